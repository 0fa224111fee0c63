package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/supervisor"
	"perch/logs/replica"
	"perch/logs/ring"
	"perch/metrics/share"
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

func TestStatusTellsHowStoresOfSeriesDo(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 12, 0, 0, time.Local)
	var out bytes.Buffer
	if err := writeStores(&out, []share.Standing{
		{Name: "w1", Behind: 1400 * time.Millisecond, Seen: now.Add(-2 * time.Second)},
		{Name: "w2", Behind: 12 * time.Minute, Seen: now.Add(-12 * time.Minute), Until: now.Add(63 * time.Minute)},
	}, now); err != nil {
		t.Fatal(err)
	}
	const want = `
COPIES OF SERIES   BEHIND   STATE
w1                 1s       there
w2                 12m0s    away since 08:00:00 (12m0s), its part goes to others at 09:15:00
`
	if out.String() != want {
		t.Errorf("got %s", out.String())
	}
}

func TestStatusTellsWhereTheCopyOfLinesIs(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	two := []ring.Member{{Node: "a"}, {Node: "b"}}
	for _, tc := range []struct {
		status copyStatus
		want   string
	}{
		{copyStatus{Own: replica.Status{Reason: "there is no other node"}}, ""},
		{copyStatus{Own: replica.Status{Reason: "no node has room", Error: "node b: no room for copies"}, Members: two}, `
COPY OF LINES   BEHIND   STATE
none            -        no node has room; node b: no room for copies
`},
		{copyStatus{Own: replica.Status{Follower: "b", At: now.Add(-1500 * time.Millisecond), Whole: true, Reason: "it is where the ring says"}, Members: two,
			Kept: []replica.Copy{{Owner: "b", At: now.Add(time.Second), Bytes: 3 << 20}, {Owner: "gone", At: now.Add(-3 * time.Hour), Bytes: 5}}}, `
COPY OF LINES   BEHIND   STATE
b               1s       whole; it is where the ring says

KEEPS LINES OF   BEHIND   USED
b                0s       3.0Mi
gone             3h0m0s   5
`},
		{copyStatus{Own: replica.Status{Follower: "b", Next: "c", At: now.Add(-time.Minute), Pending: 4 << 10, Reason: "c is first in the ring"}, Members: two}, `
COPY OF LINES   BEHIND   STATE
b               1m0s     older lines are still to come; 4.0Ki to send; moves to c; c is first in the ring
`},
	} {
		var out bytes.Buffer
		if err := writeCopy(&out, tc.status, now); err != nil || out.String() != tc.want {
			t.Errorf("%+v: %v, got %s", tc.status.Own, err, out.String())
		}
	}
}

func TestStatusSaysNothingOfStoresOfSeriesWhereThereAreNone(t *testing.T) {
	for about, answer := range map[string]http.HandlerFunc{
		"a worker": http.NotFound,
		"a server without them": func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode([]share.Standing(nil))
		},
		"no role": nil,
	} {
		cfg := config.Default()
		cfg.DataDir = t.TempDir()
		if answer != nil {
			if err := os.MkdirAll(filepath.Dir(cfg.Socket("telemetry")), 0o700); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", cfg.Socket("telemetry"))
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: answer}
			go func() { _ = srv.Serve(l) }() // until Close
			defer srv.Close()
		}
		var out bytes.Buffer
		if err := showStores(context.Background(), cfg, &out); err != nil || out.Len() > 0 {
			t.Errorf("%s: %v, %s", about, err, out.String())
		}
	}
}
