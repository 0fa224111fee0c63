package daemon

import (
	"testing"
	"time"

	"perch/cmd/perch/daemon/supervisor"
)

func TestARoleThatIsNotReadyIsNamedAndSinceWhen(t *testing.T) {
	began := time.Date(2026, 11, 21, 8, 0, 0, 7e8, time.UTC)
	role := func(name string, state supervisor.State, started time.Duration, lastError string) supervisor.Status {
		return supervisor.Status{Role: name, State: state, Started: began.Add(started), LastError: lastError}
	}
	const s = time.Second
	for _, c := range []struct {
		what  string
		roles []supervisor.Status
		stage string
		since time.Duration // after began, rounded down
	}{
		{"all are ready: the node's word counts since its roles run", []supervisor.Status{
			role("runtime", supervisor.Ready, 9*s, ""), role("telemetry", supervisor.Ready, 20*s, ""), role("agent", supervisor.Ready, 4*s, "was killed")}, "", 9 * s},
		{"one starts", []supervisor.Status{role("runtime", supervisor.Starting, 0, ""), role("agent", supervisor.Ready, 0, "")}, "starting runtime", 0},
		{"one restarts", []supervisor.Status{role("runtime", supervisor.Ready, 0, ""), role("agent", supervisor.Restarting, 0, "signal: killed")}, "restarting agent (signal: killed)", 0},
		{"one gives no sign of life", []supervisor.Status{role("agent", supervisor.Silent, 0, "")}, "agent is silent", 0},
	} {
		stage, since := waitsFor(c.roles)
		if stage != c.stage || (stage == "" && !since.Equal(began.Add(c.since).Truncate(s))) {
			t.Errorf("%s: %q since %s", c.what, stage, since)
		}
	}
}

func TestStatusTellsSinceWhenARoleRestarts(t *testing.T) {
	since := time.Date(2026, 11, 21, 8, 0, 0, 0, time.Local)
	now := since.Add(3500 * time.Millisecond)
	if got := stateOf(supervisor.Status{State: supervisor.Restarting, Since: since}, now); got != "restarting since 08:00:00 (3s)" {
		t.Errorf("got %q", got)
	}
	if got := stateOf(supervisor.Status{State: supervisor.Ready, Since: since}, now); got != "ready" {
		t.Errorf("got %q", got)
	}
}
