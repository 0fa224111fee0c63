package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSeriesStores takes a server and two workers that keep its series once more
// through the loss of one of them, its return, and the loss of the server's disk:
// nothing is missing from answers, of the time that one was away neither.
func TestSeriesStores(t *testing.T) {
	m := openMachines(t)
	f := flock{m, &http.Client{}}
	address := f.startServer(t)
	if n := f.number(t, "na", "perch_share_stores"); n != 0 {
		t.Errorf("alone the server shares with %v stores", n)
	}
	for _, n := range []string{"nb", "nc"} {
		f.join(t, n, address[n], "--series-store")
	}
	f.hasStores(t, 2, 0)
	for _, n := range []string{"nb", "nc"} {
		f.wait(t, 2*time.Minute, n+" keeps series", func() (bool, string) {
			have := f.number(t, n, "perch_share_series")
			return have > 500, fmt.Sprint(have)
		})
		f.taken(t, n)
	}
	f.whom(t, "")

	// While all are well everything is from the server, and nobody is asked.
	first := time.Now()
	before := f.settled(t, first)
	if n := f.number(t, "na", `perch_share_reads_total{result="answered"}`); n > 0 {
		t.Errorf("others were asked %v times for what the server has", n)
	}
	watchdog := f.watchdog(t)

	// One is lost. Nobody misses its copies.
	m.run(t, m.tool, "crash", "nb")
	f.hasStores(t, 2, 1)
	f.unchanged(t, "with a store away", first, before)
	second := time.Now()
	during := f.settled(t, second, `node!="nb"`) // what it had not sent yet comes when it is back
	if got := f.watchdog(t); got != watchdog {
		t.Errorf("the alert that always fires began at %s, now at %s", watchdog, got)
	}

	// It comes back, and gets what it missed.
	m.run(t, m.tool, "start", "nb", address["nb"])
	m.at(t, "nb", "agent", "--data-dir", f.data("nb"), "--detach")
	f.hasStores(t, 2, 0)
	for _, n := range []string{"nb", "nc"} {
		f.taken(t, n)
		if lost := f.number(t, "na", `perch_stream_lost_segments_total{stream="store `+n+`"}`); lost != 0 {
			t.Errorf("%v segments are lost to %s", lost, n)
		}
	}

	// The server loses its disk with all series. The others have them, and what it
	// stores from now on is copied again.
	m.run(t, m.tool, "crash", "na")
	if err := os.RemoveAll(filepath.Join(m.dir, "metrics")); err != nil {
		t.Fatal(err)
	}
	m.run(t, m.tool, "start", "na", address["na"])
	m.at(t, "na", "up", "--data-dir", m.dir, "--detach")
	f.hasStores(t, 2, 0)
	f.whom(t, "")
	f.unchanged(t, "of before, without the server's disk", first, before)
	f.unchanged(t, "of the time without a store, without the server's disk", second, during, `node!="nb"`)
	for _, n := range []string{"nb", "nc"} {
		f.taken(t, n)
	}

	// Then one is lost again: of before the answer is partial, and says so; of now
	// it lacks only what that node makes.
	m.run(t, m.tool, "crash", "nc")
	f.hasStores(t, 2, 1)
	f.wait(t, time.Minute, "answers of before lack the lost store, and only it", func() (bool, string) {
		_, warnings := f.samples(t, first)
		w := strings.Join(warnings, "\n")
		return strings.HasSuffix(w, "stores that may have them do not answer: nc"), w
	})
	f.wait(t, time.Minute, "answers of now need no other store", func() (bool, string) {
		_, warnings := f.samples(t, time.Now())
		w := strings.Join(warnings, "\n")
		return !strings.Contains(w, "stores"), w
	})
	if got := f.watchdog(t); got == "" {
		t.Error("the alert that always fires does not")
	}
}

// hasStores waits until the server knows so many stores, and that some are away.
func (f flock) hasStores(t *testing.T, stores, away float64) {
	t.Helper()
	f.wait(t, 3*time.Minute, fmt.Sprintf("the server has %v stores, %v away", stores, away), func() (bool, string) {
		a, b := f.number(t, "na", "perch_share_stores"), f.number(t, "na", "perch_share_stores_away")
		return a == stores && b == away, fmt.Sprint(a, b)
	})
}

// taken waits until a store has taken what waited for it.
func (f flock) taken(t *testing.T, node string) {
	t.Helper()
	f.wait(t, 3*time.Minute, node+" has taken what waited", func() (bool, string) {
		behind := f.number(t, "na", `perch_stream_behind_seconds{stream="store `+node+`"}`)
		sent := f.number(t, "na", `perch_stream_sent_samples_total{stream="store `+node+`"}`)
		return sent > 0 && behind >= 0 && behind < 15, fmt.Sprint(sent, behind)
	})
}

// whom waits until answers name these as missing.
func (f flock) whom(t *testing.T, missing string) {
	t.Helper()
	f.wait(t, 3*time.Minute, fmt.Sprintf("%q are missing", missing), func() (bool, string) {
		w := strings.Join(f.query(t, `vector(1) or absent(up)`).Warnings, "; ")
		return w == missing, w
	})
}

// samples are those of 20 s, by series, and what the answer warns of.
func (f flock) samples(t *testing.T, end time.Time, matchers ...string) (map[string]string, []string) {
	t.Helper()
	a := f.query(t, fmt.Sprintf(`{%s}[20s] @ %d`, strings.Join(append(matchers, `__name__=~".+"`), ","), end.Unix()))
	out := map[string]string{}
	for _, s := range a.Data.Result {
		out[fmt.Sprint(s.Metric)] = fmt.Sprint(s.Values)
	}
	return out, a.Warnings
}

// settled are the samples of 20 s when no more come for 5 s: a busy worker sends late.
func (f flock) settled(t *testing.T, end time.Time, matchers ...string) (out map[string]string) {
	t.Helper()
	var since time.Time
	f.wait(t, 2*time.Minute, "all samples are stored", func() (bool, string) {
		before := out
		out, _ = f.samples(t, end, matchers...)
		if fmt.Sprint(before) != fmt.Sprint(out) {
			since = time.Now()
		}
		return len(out) > 1000 && time.Since(since) > 5*time.Second && time.Since(end) > 20*time.Second, fmt.Sprint(len(out))
	})
	return out
}

// unchanged wants the samples of a time, as soon as no store is said to be missing:
// one that was too busy to answer is for some seconds.
func (f flock) unchanged(t *testing.T, about string, end time.Time, want map[string]string, matchers ...string) {
	t.Helper()
	var got map[string]string
	f.wait(t, time.Minute, about+": no store is missing", func() (bool, string) {
		var warnings []string
		got, warnings = f.samples(t, end, matchers...)
		w := strings.Join(warnings, "\n")
		return !strings.Contains(w, "stores"), w
	})
	missing := 0
	for series, samples := range want {
		if got[series] != samples {
			if missing++; missing < 4 {
				t.Errorf("%s: %s is %q, was %q", about, series, got[series], samples)
			}
		}
	}
	if missing > 0 || len(got) != len(want) {
		t.Errorf("%s: %d of %d series are other than they were, now %d", about, missing, len(want), len(got))
	} else {
		t.Logf("%s: all %d series", about, len(want))
	}
}

// watchdog is since when the alert that always fires does; empty: it does not.
func (f flock) watchdog(t *testing.T) string {
	t.Helper()
	var list struct {
		Data struct {
			Alerts []struct {
				Labels          map[string]string
				State, ActiveAt string
			}
		}
	}
	out := f.run(t, "curl", "-s", "-m", "20", "--unix-socket", f.data("na")+"/run/telemetry.sock", "http://telemetry/prometheus/api/v1/alerts")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, a := range list.Data.Alerts {
		if a.Labels["alertname"] == "Watchdog" && a.State == "firing" {
			return a.ActiveAt
		}
	}
	return ""
}

// number is a sample of what the telemetry role of a node tells of itself; -1 when
// there is none.
func (f flock) number(t *testing.T, node, name string) float64 {
	t.Helper()
	out := f.run(t, "curl", "-s", "-m", "20", "--unix-socket", f.data(node)+"/run/telemetry.sock", "http://telemetry/metrics")
	for _, l := range strings.Split(out, "\n") {
		if rest, ok := strings.CutPrefix(l, name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return -1
}
