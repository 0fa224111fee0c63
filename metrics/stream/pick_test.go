package stream

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"perch/metrics/store"
)

func TestOnlyWhatIsPickedIsSentFromWhereItIsToBegin(t *testing.T) {
	dir, states := t.TempDir(), t.TempDir()
	from := newStore(t, dir)
	in := from.Inlet("test")
	start := time.Now().UnixMilli() - 60_000
	write := func(first, last int) {
		for k := first; k < last; k++ {
			var batch []Sample
			for i := range 6 {
				batch = append(batch, Sample{uint64(i + 1), name(i), start + int64(k)*100, float64(k)})
			}
			if done, err := in.Append(t.Context(), batch); err != nil || done.Refused > 0 {
				t.Fatal(done, err)
			}
		}
	}
	write(0, 100)
	_, change, err := End(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(100, 200)
	// From the change on the even series go to one store and the odd ones to
	// another, which knows nothing of what was before.
	even := func(_ uint64, l labels.Labels) bool { return (l.Get("i")[0]-'0')%2 == 0 }
	first, second := newStore(t, t.TempDir()), newStore(t, t.TempDir())
	_, firstURL := serve(t, NewReceiver("a", DefaultReceiver(), first, quiet, nil))
	_, secondURL := serve(t, NewReceiver("b", DefaultReceiver(), second, quiet, nil))
	a, b := DefaultForward(filepath.Join(states, "a")), DefaultForward(filepath.Join(states, "b"))
	a.Name, a.Interval = "a", 10*time.Millisecond
	a.Pick = func(at Position) func(uint64, labels.Labels) bool {
		if change.Before(at) {
			return even
		}
		return func(uint64, labels.Labels) bool { return true }
	}
	b.Name, b.Interval, b.Begin = "b", 10*time.Millisecond, change
	b.Pick = func(at Position) func(uint64, labels.Labels) bool {
		if !change.Before(at) {
			t.Errorf("%+v is before the change at %+v", at, change)
		}
		return func(r uint64, l labels.Labels) bool { return !even(r, l) }
	}
	defer run(t, a, dir, firstURL.URL)()
	stop := run(t, b, dir, secondURL.URL)
	whole := read(t, from)
	want := func(rest int, others bool) map[string][]string {
		out := map[string][]string{}
		for i := range 6 {
			l := name(i).String()
			switch {
			case i%2 == rest && others:
				out[l] = whole[l]
			case i%2 == rest:
				out[l] = whole[l][100:]
			case others:
				out[l] = whole[l][:100]
			}
		}
		return out
	}
	until(t, "the first has all of before and the even ones of after", func() bool { return reflect.DeepEqual(read(t, first), want(0, true)) })
	until(t, "the second has the odd ones of after", func() bool { return reflect.DeepEqual(read(t, second), want(1, false)) })
	stop()
	write(200, 250)
	defer run(t, b, dir, secondURL.URL)()
	whole = read(t, from)
	until(t, "after a restart too", func() bool { return reflect.DeepEqual(read(t, second), want(1, false)) })
}

func TestANodeThatSendsOldSamplesIsMissingStill(t *testing.T) {
	cfg := DefaultReceiver()
	cfg.NodeOf = func(*http.Request) (string, error) { return "n1", nil }
	r := NewReceiver("nodes", cfg, newStore(t, t.TempDir()), quiet, nil)
	_, srv := serve(t, r)
	c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	now := time.Now()
	for _, tc := range []struct {
		about string
		old   time.Duration
		want  []string
	}{
		{"of its hour without the server", 50 * time.Minute, []string{"n1"}},
		{"of some minutes ago", 4 * time.Minute, []string{"n1"}},
		{"of now, by a clock that is late", time.Minute, nil},
		{"of now", 0, nil},
	} {
		if err := c.Send(t.Context(), []Sample{{1, name(1), now.Add(-tc.old).UnixMilli(), 1}}); err != nil {
			t.Fatal(err)
		}
		if got := r.Missing([]string{"n1"}, now, 45*time.Second); !slices.Equal(got, tc.want) {
			t.Errorf("after samples %s %v are missing, want %v", tc.about, got, tc.want)
		}
	}
	if got := r.Missing([]string{"n1"}, now.Add(time.Hour), 45*time.Second); len(got) != 1 {
		t.Errorf("after an hour of silence %v are missing", got)
	}
}

// TestAClockThatIsAheadStopsNobodyElse: what is stored for a time to come would make
// everything else too old until then.
func TestAClockThatIsAheadStopsNobodyElse(t *testing.T) {
	from := "n1"
	cfg := DefaultReceiver()
	cfg.NodeOf = func(*http.Request) (string, error) { return from, nil }
	into, reg := newStore(t, t.TempDir()), prometheus.NewRegistry()
	r := NewReceiver("nodes", cfg, into, quiet, reg)
	_, srv := serve(t, r)
	send := func(node string, ahead time.Duration) {
		t.Helper()
		from = node
		c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
		if err := c.Send(t.Context(), []Sample{{1, name(1), time.Now().Add(ahead).UnixMilli(), 1}}); err != nil {
			t.Fatal(err) // it must not be sent again for ever
		}
	}
	told := func(want int) {
		t.Helper()
		if n, err := testutil.GatherAndCount(reg, "perch_stream_sender_ahead_seconds"); err != nil || n != want {
			t.Errorf("%d senders are told to be ahead, want %d: %v", n, want, err)
		}
	}
	send("n1", 3*time.Hour)
	told(1)
	if got := r.Missing([]string{"n1"}, time.Now(), 45*time.Second); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("nothing of n1 is stored, and %v are missing", got)
	}
	send("n2", 0)
	if got := read(t, into); len(got) != 1 {
		t.Errorf("stored: %v", got)
	}
	send("n1", 0)
	told(0)
	if got := r.Missing([]string{"n1", "n2"}, time.Now(), 45*time.Second); len(got) > 0 {
		t.Errorf("missing: %v", got)
	}
}

// TestWhatASeriesSaysOfNodesIsKept: one kube-state-metrics tells of all nodes, and
// runs on one.
func TestWhatASeriesSaysOfNodesIsKept(t *testing.T) {
	cfg := DefaultReceiver()
	cfg.NodeOf = nodeOf
	into := newStore(t, t.TempDir())
	_, srv := serve(t, NewReceiver("nodes", cfg, into, quiet, nil))
	c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	at := time.Now().UnixMilli()
	var batch []Sample
	for i, l := range [][]string{{"node", "n1"}, {"node", "n2"}, {"node", "n3"}, {}, {"node", "n4", "exported_node", "x"}} {
		batch = append(batch, Sample{uint64(i + 1), labels.FromStrings(append(l, "__name__", "kube_node_info")...), at, float64(i)})
	}
	if err := c.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for i, l := range []string{``, `exported_node="n2", `, `exported_node="n3", `, ``, `exported_exported_node="n4", exported_node="x", `} {
		set := `{__name__="kube_node_info", ` + l + `node="n1"}`
		want[set] = append(want[set], fmt.Sprintf("%d@%d", i, at))
	}
	want[`{__name__="kube_node_info", node="n1"}`] = []string{fmt.Sprintf("0@%d", at)} // the other says the same
	if got := read(t, into); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestSeriesThatEndedAreForgotten(t *testing.T) {
	cfg := store.DefaultWorker()
	cfg.Dir, cfg.WALSegmentBytes = t.TempDir(), 1<<20
	from, err := store.New(cfg, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = from.Close(context.Background()) })
	in, start := from.Inlet("test"), time.Now().UnixMilli()-800*60_000
	r := openTail(cfg.Dir, Position{}, nil, quiet)
	defer r.close()
	r.many = 1000
	const minutes, rate, pods = 800, 20, 100 // pods end after ten minutes
	got, most := 0, 0
	var batch []Sample
	for m := range minutes {
		for k := range rate {
			batch = batch[:0]
			for i := range pods {
				id := m/10*pods + i + 1
				batch = append(batch, Sample{uint64(id), labels.FromStrings("__name__", "x", "pod", fmt.Sprint(id)), start + int64(m*rate+k)*3000, math.Sin(float64((m*rate+k)*pods + i))})
			}
			if done, err := in.Append(t.Context(), batch); err != nil || done.Refused > 0 {
				t.Fatal(done, err)
			}
		}
		if m == 0 {
			if err := r.start(); err != nil {
				t.Fatal(err)
			}
		}
		for {
			read, err := r.next(Batch{Samples: batch[:0]}, 5000)
			if err != nil {
				t.Fatal(err)
			}
			batch = read.Samples
			got += len(batch)
			if len(batch) == 0 {
				break
			}
		}
		most = max(most, len(r.series))
		if err := from.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := minutes * rate * pods; got != want {
		t.Errorf("read %d samples of %d", got, want)
	}
	if all := minutes / 10 * pods; most > all/2 {
		t.Errorf("%d of %d series were remembered at once", most, all)
	}
}

func TestALateClockIsNotAGap(t *testing.T) {
	began := time.Unix(1e9, 0)
	for _, tc := range []struct {
		name string
		lags []time.Duration // each minute
		want []bool          // it catches up
	}{
		{"it sends what waited", []time.Duration{time.Hour, 40 * time.Minute, 20 * time.Minute, 5 * time.Minute}, []bool{true, true, true, true}},
		{"its clock is late", []time.Duration{5 * time.Minute, 5*time.Minute + time.Second, 5*time.Minute - time.Second}, []bool{true, false, false}},
		{"late, and then it sends what waited", []time.Duration{5 * time.Minute, 5 * time.Minute, time.Hour, 30 * time.Minute}, []bool{true, false, false, true}},
	} {
		l := &lagging{}
		for i, lag := range tc.lags {
			now := began.Add(time.Duration(i) * time.Minute)
			if have := l.catchesUp(lag, now); have != tc.want[i] {
				t.Errorf("%s, minute %d: %v", tc.name, i, have)
			}
			if have := l.catchesUp(lag, now.Add(30*time.Second)); have != tc.want[i] {
				t.Errorf("%s, half a minute after minute %d: %v", tc.name, i, have)
			}
		}
	}
}
