package stats

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"perch/agent/cgroup"
)

var update = flag.Bool("update", false, "write golden files")

// mount copies the v2 fixture, with a limit on c1 and none on c2.
func mount(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.controllers", "cpu memory\n")
	for _, p := range []string{"perch", "perch/burstable", "perch/burstable/podU1", "perch/burstable/podU1/c1", "perch/burstable/podU1/pause"} {
		write(p+"/cpu.stat", "usage_usec 2000000\nuser_usec 1500000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 2\nthrottled_usec 100\n")
		write(p+"/memory.current", "4096\n")
		write(p+"/memory.stat", "anon 1024\nfile 2048\ninactive_file 1000\npgfault 5\n")
		write(p+"/memory.events", "max 0\noom_kill 0\n")
		write(p+"/pids.current", "3\n")
		write(p+"/cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n")
	}
	write("perch/burstable/podU1/c1/cpu.max", "50000 100000\n")
	write("perch/burstable/podU1/c1/memory.max", "8192\n")
	return dir
}

func who(podUID, id string) (Identity, bool) {
	if podUID != "U1" {
		return Identity{}, false
	}
	out := Identity{Namespace: "red", Pod: "web-1", PodUID: podUID, ID: id, Started: time.Unix(1000, 0)}
	switch id {
	case "c1":
		out.Container, out.Image = "web", "nginx:1"
	case "pause":
		out.Image = "pause:3"
	}
	return out, true
}

func newStats(t testing.TB, dir string, change func(*Config, *Parts)) *Stats {
	t.Helper()
	cfg := Default()
	cfg.Node, cfg.Instance, cfg.Mount = "n1", "10.0.0.1:10250", dir
	parts := Parts{Name: who, Machine: aMachine, Sink: func(context.Context, []Sample) error { return nil }}
	if change != nil {
		change(&cfg, &parts)
	}
	s, err := New(cfg, parts, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// drain is all that waits for the sink.
func drain(s *Stats) []Sample {
	var out []Sample
	for b := s.outbox.take(); b != nil; b = s.outbox.take() {
		out = append(out, b...)
	}
	return out
}

func TestEverySeriesHasOneProducer(t *testing.T) {
	if n := len(Producers()); n != len(fastTable())+len(specTable())+len(restTable()) {
		t.Errorf("%d producers for %d rows", n, len(fastTable())+len(specTable())+len(restTable()))
	}
	s := newStats(t, mount(t), withProcesses(t))
	s.Round(time.Unix(1484, 0))
	s.look(time.Unix(1484, 0))
	drain(s)
	s.Round(time.Unix(1500, 0))
	seen := map[string]bool{}
	for _, x := range drain(s) {
		if seen[x.Labels.String()] {
			t.Errorf("%s comes twice in one round", x.Labels)
		}
		seen[x.Labels.String()] = true
	}
}

func TestLabelsAreThoseOfKubelet(t *testing.T) {
	s := newStats(t, mount(t), withProcesses(t))
	s.Round(time.Unix(1484, 0))
	s.look(time.Unix(1484, 0))
	drain(s)
	s.Round(time.Unix(1500, 0))
	var lines []string
	for _, x := range drain(s) {
		switch name := x.Labels.Get("__name__"); name {
		case "container_last_seen", "machine_cpu_cores", "container_creation_time_seconds":
			x.V = 0
		case "container_oom_events_total", "container_memory_swap":
			if x.Labels.Get("id") == "/" { // of this machine
				x.V = 0
			}
		}
		if strings.HasPrefix(x.Labels.Get("__name__"), "machine_") { // of this machine
			b := labels.NewBuilder(x.Labels)
			for _, l := range []string{"boot_id", "machine_id", "system_uuid"} {
				b.Del(l)
			}
			x.Labels = b.Labels()
		}
		if x.Labels.Get("__name__") == "container_start_time_seconds" && x.Labels.Get("pod") == "" {
			continue // the time the fixture was made
		}
		lines = append(lines, x.Labels.String()+" "+strconv.FormatFloat(x.V, 'g', -1, 64))
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	name := "testdata/labels.golden"
	if *update {
		_ = os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || got != string(want) {
		t.Errorf("%v; labels changed:\n%s", err, got)
	}
}

func find(batch []Sample, name, container string) []Sample {
	var out []Sample
	for _, x := range batch {
		if x.Labels.Get("__name__") == name && x.Labels.Get("container") == container {
			out = append(out, x)
		}
	}
	return out
}

func TestRatesAndTheLifeOfAContainer(t *testing.T) {
	dir := mount(t)
	s := newStats(t, dir, nil)
	at := time.Unix(1501, 0) // neither warm nor cold
	s.Round(at)
	if got := find(drain(s), "container_memory_usage_bytes", "web"); len(got) != 1 {
		t.Fatalf("a new container has its first sample at once, got %v", got)
	}
	s.Round(at.Add(time.Second))
	if got := drain(s); len(got) != 0 {
		t.Fatalf("between warm rounds nothing is sent, got %d", len(got))
	}
	s.Round(time.Unix(1505, 0))
	batch := drain(s)
	if len(find(batch, "container_memory_usage_bytes", "web")) != 1 || len(find(batch, "container_spec_memory_limit_bytes", "web")) != 0 {
		t.Error("a warm round sends fast series only")
	}
	s.Round(time.Unix(1515, 0))
	if len(find(drain(s), "container_spec_memory_limit_bytes", "web")) != 1 {
		t.Error("a cold round sends the specification too")
	}

	path := s.PathOf("burstable", "U1", "c1")
	if err := os.WriteFile(filepath.Join(dir, path, "cpu.stat"), []byte("usage_usec 9000000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Ended(path, Exit{Code: 137, OOMKilled: true})
	batch = drain(s)
	last := find(batch, "container_cpu_usage_seconds_total", "web")
	if len(last) != 1 || last[0].V != 9 {
		t.Errorf("last sample: %v", last)
	}
	if oom := find(batch, "container_oom_events_total", "web"); len(oom) != 1 || oom[0].V != 1 {
		t.Errorf("the OOM kill told by the runtime is counted: %v", oom)
	}
	if code := find(batch, "perch_container_exit_code", "web"); len(code) != 1 || code[0].V != 137 {
		t.Errorf("exit code %v", code)
	}
	s.Ended(path, Exit{}) // twice does nothing
	if err := os.RemoveAll(filepath.Join(dir, path)); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Truncate(15 * time.Second).Add(15 * time.Second)
	s.Round(later)
	marks := find(drain(s), "container_cpu_usage_seconds_total", "web")
	if len(marks) != 1 || !value.IsStaleNaN(marks[0].V) || marks[0].T <= last[0].T {
		t.Errorf("the series ends with a stale marker: %v", marks)
	}
	cpuSeconds := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "__name__", "container_cpu_usage_seconds_total"),
		labels.MustNewMatcher(labels.MatchEqual, "container", "web"),
	}
	points := func() int {
		list, err := s.Seconds(cpuSeconds, 0, math.MaxInt64)
		if err != nil || len(list) == 0 {
			return 0
		}
		return len(list[0].T)
	}
	if n := points(); n != 5 {
		t.Errorf("ring of the ended container has %d points, want 4 rounds and the last", n)
	}
	s.Round(later.Add(time.Second))
	if got := find(drain(s), "container_cpu_usage_seconds_total", "web"); len(got) != 0 {
		t.Errorf("after the marker there is nothing: %v", got)
	}
	s.Round(later.Add(time.Hour))
	if points() != 0 {
		t.Error("the ring of an ended container is dropped after its span")
	}
}

func TestARoundThatIsLateSendsWhatWasDue(t *testing.T) {
	s := newStats(t, mount(t), nil)
	s.Round(time.Unix(1500, 0))
	for _, x := range []struct {
		at         int64
		fast, spec int
	}{
		{1504, 0, 0}, {1506, 1, 0}, {1507, 0, 0}, {1510, 1, 0}, {1514, 0, 0}, {1517, 1, 1}, {1518, 0, 0}, {1520, 1, 0}, {1560, 1, 1}, {1561, 0, 0},
	} {
		drain(s)
		s.Round(time.Unix(x.at, 0))
		got := drain(s)
		if f, p := len(find(got, "container_memory_usage_bytes", "web")), len(find(got, "container_spec_memory_limit_bytes", "web")); f != x.fast || p != x.spec {
			t.Errorf("at %d: %d fast and %d others, want %d and %d", x.at, f, p, x.fast, x.spec)
		}
	}
}

func TestAClockThatIsSetBackStopsNoSeries(t *testing.T) {
	s := newStats(t, mount(t), nil)
	s.Round(time.Unix(10000, 0))
	s.Round(time.Unix(10005, 0))
	drain(s)
	s.Round(time.Unix(7000, 0))
	s.Round(time.Unix(7005, 0))
	if got := find(drain(s), "container_memory_usage_bytes", "web"); len(got) != 2 || got[1].T != 7005_000 {
		t.Errorf("after the clock was set back: %v", got)
	}
	memory := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "container_memory_usage_bytes"), labels.MustNewMatcher(labels.MatchEqual, "container", "web")}
	s.Round(time.Unix(7005, 0)) // the timer was early
	if got, err := s.Seconds(memory, 0, 20000_000); err != nil || len(got) != 1 || !slices.Equal(got[0].T, []int64{7000_000, 7005_000}) {
		t.Errorf("the ring has %+v, %v", got, err)
	}
}

// TestTheLastNumbersAreThoseOfTheLastSecond: a cgroup that cannot be read any more
// is told with what was read after the last warm round.
func TestTheLastNumbersAreThoseOfTheLastSecond(t *testing.T) {
	dir := mount(t)
	s := newStats(t, dir, nil)
	s.Round(time.Unix(1500, 0))
	path := s.PathOf("burstable", "U1", "c1")
	if err := os.WriteFile(filepath.Join(dir, path, "cpu.stat"), []byte("usage_usec 7000000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for p := filepath.Dir(path); p != "/"; p = filepath.Dir(p) {
		if err := os.WriteFile(filepath.Join(dir, p, "cpu.stat"), []byte("usage_usec 8000000\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.Round(time.Unix(1501, 0))
	drain(s)

	files := map[int]bool{}
	s.tracked[path].reader.Descriptors(files)
	broken, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) // a directory has nothing to read
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(broken)
	for fd := range files {
		if err := syscall.Dup3(broken, fd, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	s.Round(time.Unix(1505, 0))
	got := drain(s)
	if last := find(got, "container_cpu_usage_seconds_total", "web"); len(last) != 1 || last[0].V != 7 {
		t.Errorf("the last sample: %v", last)
	}
	s.Ended(path, Exit{Code: 3})
	got = drain(s)
	if last := find(got, "container_cpu_usage_seconds_total", "web"); len(last) != 1 || last[0].V != 7 {
		t.Errorf("with its exit code: %v", last)
	}
	if code := find(got, "perch_container_exit_code", "web"); len(code) != 1 || code[0].V != 3 {
		t.Errorf("exit code %v", code)
	}
}

func TestACgroupThatVanishesEndsWithItsLastNumbers(t *testing.T) {
	dir := mount(t)
	s := newStats(t, dir, nil)
	s.Round(time.Unix(1500, 0))
	drain(s)
	if err := os.RemoveAll(filepath.Join(dir, "perch/burstable/podU1/c1")); err != nil {
		t.Fatal(err)
	}
	s.Round(time.Unix(1505, 0)) // the files of the fixture can be read when they are gone
	if got := find(drain(s), "container_memory_usage_bytes", "web"); len(got) != 1 || got[0].V != 4096 {
		t.Errorf("got %v", got)
	}
	if testutil.ToFloat64(s.metrics.late) != 1 {
		t.Error("a container without a last reading is counted")
	}
	path := s.PathOf("burstable", "U1", "c1")
	s.Ended(path, Exit{Code: 137, OOMKilled: true})
	batch := drain(s)
	if got := find(batch, "container_oom_events_total", "web"); len(got) != 1 || got[0].V != 1 {
		t.Errorf("the OOM kill told afterwards is counted: %v", got)
	}
	if got := find(batch, "perch_container_exit_code", "web"); len(got) != 1 || got[0].V != 137 {
		t.Errorf("the exit code told afterwards is kept: %v", got)
	}
	s.Ended(path, Exit{Code: 137, OOMKilled: true})
	if got := drain(s); len(got) != 0 {
		t.Errorf("telling it twice sends nothing: %v", got)
	}
}

// TestACgroupMadeWhileAnotherWentDoesNotEnd: with as many links as before nothing
// is listed anew, and what was told of is in no list.
func TestACgroupMadeWhileAnotherWentDoesNotEnd(t *testing.T) {
	dir := mount(t)
	s := newStats(t, dir, nil)
	s.Round(time.Unix(1500, 0))
	old, path := s.PathOf("burstable", "U1", "pause"), s.PathOf("burstable", "U1", "c2")
	if err := os.Rename(filepath.Join(dir, old), filepath.Join(dir, path)); err != nil {
		t.Fatal(err)
	}
	s.Started(path)
	s.Round(time.Unix(1505, 0))
	if got := s.tracked[path]; got == nil || got.stale {
		t.Error("it is taken for gone")
	}
	if got := s.tracked[old]; got == nil || !got.stale {
		t.Error("the other is not")
	}
}

func TestAContainerIsSilentUntilItHasAName(t *testing.T) {
	known := false
	s := newStats(t, mount(t), func(_ *Config, p *Parts) {
		p.Name = func(uid, id string) (Identity, bool) {
			if !known {
				return Identity{}, false
			}
			return who(uid, id)
		}
	})
	s.Round(time.Unix(1500, 0))
	for _, x := range drain(s) {
		if strings.Contains(x.Labels.Get("id"), "pod") {
			t.Fatalf("sample without a name: %s", x.Labels)
		}
	}
	known = true
	s.Round(time.Unix(1501, 0))
	if len(find(drain(s), "container_memory_usage_bytes", "web")) != 1 {
		t.Error("once named it is sent at once")
	}
}

func TestWhatStaysWithoutANameIsSeldomRead(t *testing.T) {
	dir, asked, known := mount(t), 0, false
	s := newStats(t, dir, func(_ *Config, p *Parts) {
		p.Name = func(uid, id string) (Identity, bool) {
			if id != "pause" || known {
				return who(uid, id)
			}
			asked++
			return Identity{}, false
		}
	})
	at := time.Unix(1500, 0)
	for range 60 {
		s.Round(at)
		at = at.Add(time.Second)
	}
	if asked != 13 { // ten seconds, then at 15, 30 and 45
		t.Errorf("asked %d times", asked)
	}
	known = true
	s.Round(at)
	if got := s.tracked["/perch/burstable/podU1/pause"]; !got.named {
		t.Error("it gets its name late, but gets it")
	}
}

func TestWhatStandsStillIsReadInFullAtColdTimes(t *testing.T) {
	dir := mount(t)
	s := newStats(t, dir, nil)
	path := s.PathOf("burstable", "U1", "c1")
	write := func(file, text string) {
		t.Helper()
		for p := path; p != "/"; p = filepath.Dir(p) { // what happens in a container happens in those above
			if err := os.WriteFile(filepath.Join(dir, p, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	sent := func(sec int64, name string) float64 {
		t.Helper()
		drain(s)
		s.Round(time.Unix(sec, 0))
		got := find(drain(s), name, "web")
		if len(got) != 1 {
			t.Fatalf("%s at %d: %v", name, sec, got)
		}
		return got[0].V
	}
	const rss, use, threads = "container_memory_rss", "container_memory_usage_bytes", "container_threads"
	sent(1500, rss)
	write("memory.stat", "anon 2000\nfile 2048\ninactive_file 1000\npgfault 5\n")
	if v := sent(1505, rss); v != 1024 {
		t.Errorf("nothing ran and use is the same: %v", v)
	}
	write("memory.current", "5000\n")
	if v := sent(1510, rss); v != 2000 {
		t.Errorf("use changed though nothing ran: %v", v)
	}
	write("pids.current", "7\n")
	if v := sent(1515, threads); v != 7 {
		t.Errorf("a cold round reads all: %v", v)
	}
	write("pids.current", "8\n")
	write("memory.current", "6000\n")
	write("cpu.stat", "usage_usec 3000000\n")
	s.Round(time.Unix(1516, 0))
	if got := s.tracked[path].state.use; got.CPU.Usage != 3e9 || got.Memory.Usage != 6000 || got.Tasks != 7 {
		t.Errorf("between warm rounds, where something ran: %+v", got)
	}
	if v := sent(1520, use); v != 6000 {
		t.Errorf("use was sent as %v", v)
	}
	write("cpu.stat", "usage_usec 4000000\n")
	if v := sent(1525, threads); v != 8 {
		t.Errorf("where something ran a warm round reads all: %v", v)
	}
}

func TestABurstThatASecondSawIsReadInFullAtTheWarmRound(t *testing.T) {
	for name, between := range map[string]func(*Stats, string){
		"nothing else happened":           func(*Stats, string) {},
		"the cgroup above was read since": func(s *Stats, path string) { s.Started(filepath.Dir(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := mount(t)
			s := newStats(t, dir, nil)
			path := s.PathOf("burstable", "U1", "c1")
			s.Round(time.Unix(1500, 0))
			s.Round(time.Unix(1505, 0))
			for file, text := range map[string]string{
				"cpu.stat": "usage_usec 3000000\n", "memory.events": "max 0\noom_kill 3\n", "pids.current": "8\n", "cpu.pressure": "some total=6000000\n",
			} {
				for p := path; p != "/"; p = filepath.Dir(p) {
					if err := os.WriteFile(filepath.Join(dir, p, file), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.Round(time.Unix(1506, 0))
			between(s, path)
			for sec := range int64(3) { // it stands still again
				s.Round(time.Unix(1507+sec, 0))
			}
			drain(s)
			s.Round(time.Unix(1510, 0))
			if got := s.tracked[path].state.use; got.Memory.OOMKills != 3 || got.Tasks != 8 || got.PSI.CPU.Some != 6e9 {
				t.Errorf("of the burst the warm round has %+v", got)
			}
			if got := find(drain(s), "container_threads", "web"); len(got) != 1 || got[0].V != 8 {
				t.Errorf("threads were sent as %v", got)
			}
			if s.tracked[path].idle {
				t.Error("it ran since the last full read, and is called idle")
			}
		})
	}
}

func TestTheLimitOfCgroupsIsCounted(t *testing.T) {
	s := newStats(t, mount(t), func(c *Config, _ *Parts) { c.CgroupLimit = 2 })
	s.Round(time.Unix(1500, 0))
	if len(s.tracked) != 2 || testutil.ToFloat64(s.metrics.refused) == 0 {
		t.Error(len(s.tracked), testutil.ToFloat64(s.metrics.refused))
	}
}

func TestASinkThatIsAwayGetsEverythingLaterInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(nil)
		o := newOutbox(1000, m)
		ctx, cancel := context.WithCancel(t.Context())
		var away atomic.Bool
		away.Store(true)
		var got []int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			o.run(ctx, func(_ context.Context, b []Sample) error {
				if away.Load() {
					return errors.New("connection refused")
				}
				for _, x := range b {
					got = append(got, x.T)
				}
				return nil
			})
		}()
		for k := range int64(60) {
			o.put([]Sample{{T: k}})
			<-time.After(time.Second) // by the bubble's clock
		}
		away.Store(false)
		<-time.After(2 * time.Second)
		cancel()
		<-done
		if len(got) != 60 || !slices.IsSorted(got) {
			t.Errorf("got %v", got)
		}
	})
}

func TestAFullOutboxDropsTheOldestAndCounts(t *testing.T) {
	m := newMetrics(nil)
	o := newOutbox(3, m)
	for k := range int64(5) {
		o.put([]Sample{{T: k}, {T: k}})
	}
	if b := o.take(); b[0].T != 4 || o.take() != nil || testutil.ToFloat64(m.dropped) != 8 {
		t.Error(b, testutil.ToFloat64(m.dropped))
	}
}

func TestTextIsWhatKubeletServes(t *testing.T) {
	s := newStats(t, mount(t), nil)
	s.Round(time.Unix(1500, 0))
	for path, want := range map[string]string{
		"cadvisor": `container_memory_working_set_bytes{container="web",id="/perch/burstable/podU1/c1",image="nginx:1",name="c1",namespace="red",pod="web-1"} 3096`,
		"resource": `container_cpu_usage_seconds_total{container="web",namespace="red",pod="web-1"} 2`,
		"summary":  `"containers":[{"name":"web"`,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		switch path {
		case "cadvisor":
			s.CadvisorHandler().ServeHTTP(w, r)
		case "resource":
			s.ResourceHandler().ServeHTTP(w, r)
		case "summary":
			s.SummaryHandler().ServeHTTP(w, r)
		}
		if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d, no %s in\n%s", path, w.Code, want, w.Body)
		}
	}
}

func TestPromtoolHasNothingToSayAboutTheText(t *testing.T) {
	s := newStats(t, mount(t), withProcesses(t))
	s.Round(time.Unix(1484, 0))
	s.look(time.Unix(1484, 0))
	s.Round(time.Unix(1500, 0))
	for name, h := range map[string]http.Handler{"cadvisor": s.CadvisorHandler(), "resource": s.ResourceHandler()} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		problems, err := promlint.New(w.Body).Lint() // what `promtool check metrics` does
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", name, p.Metric, p.Text)
		}
	}
}

// cgroups makes n real cgroups below root in the layout of pods.
func cgroups(b *testing.B, root string, n int) {
	b.Helper()
	tree, err := cgroup.Detect("/sys/fs/cgroup")
	if err != nil {
		b.Skip(err)
	}
	bases := []string{tree.Root}
	if tree.Layout != cgroup.Unified {
		bases = nil
		for _, c := range []string{"cpu", "cpuacct", "memory", "pids", "unified"} {
			if _, err := os.Stat(filepath.Join(tree.Root, c)); err == nil {
				bases = append(bases, filepath.Join(tree.Root, c))
			}
		}
	}
	paths := []string{root, root + "/burstable", root + "/burstable/podU1"}
	for i := range n {
		paths = append(paths, fmt.Sprintf("%s/burstable/podU1/c%d", root, i))
	}
	b.Cleanup(func() {
		for _, base := range bases {
			for _, p := range slices.Backward(paths) {
				_ = os.Remove(base + p) // what was made
			}
		}
	})
	for _, base := range bases {
		for _, p := range paths {
			if err := os.Mkdir(base+p, 0o755); err != nil {
				b.Skip("cannot make a cgroup: ", err)
			}
		}
	}
}

// BenchmarkFast is the way from files of 50 real cgroups to batches for the
// sink, CPU time of the process.
func BenchmarkFast(b *testing.B) {
	root := fmt.Sprintf("/perch-bench-%d", os.Getpid())
	cgroups(b, root, 50)
	s := newStats(b, "/sys/fs/cgroup", func(c *Config, _ *Parts) { c.Root = root })
	n := 0
	at := time.Unix(1500, 0)
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		at = at.Add(5 * time.Second)
		s.Round(at)
		n += len(drain(s))
	}
	b.ReportMetric((cpu()-began).Seconds()/float64(n)*1e6, "cpu-s/Msample")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*54), "us/cgroup")
}

// BenchmarkPace is a minute as it passes: reading every second for the ring,
// every five for the sink. busy of the 50 cgroups use CPU, as far as it looks.
func BenchmarkPace(b *testing.B) {
	for _, busy := range []bool{false, true} {
		b.Run(map[bool]string{false: "idle", true: "busy"}[busy], func(b *testing.B) {
			root := fmt.Sprintf("/perch-bench-%d", os.Getpid())
			cgroups(b, root, 50)
			s := newStats(b, "/sys/fs/cgroup", func(c *Config, _ *Parts) { c.Root = root })
			at := time.Unix(1500, 0)
			s.Round(at)
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				at = at.Add(time.Second)
				if busy {
					for _, t := range s.tracked {
						t.state.use.CPU.Usage++
					}
				}
				s.Round(at)
				drain(s)
			}
			b.ReportMetric((cpu()-began).Seconds()/float64(b.N)*100, "%core")
		})
	}
}

// BenchmarkRest is the way from files of 50 real cgroups with processes to what
// the sink gets of network, disks and processes.
func BenchmarkRest(b *testing.B) {
	for _, busy := range []bool{false, true} {
		b.Run(map[bool]string{false: "idle", true: "busy"}[busy], func(b *testing.B) {
			s := newStats(b, mount(b), withProcesses(b))
			name := s.parts.Name
			s.parts.Name = func(uid, id string) (Identity, bool) { return name(uid[:2], id) }
			s.parts.Sandbox = func(string) string { return "pause" }
			for i := range 50 { // a pod's files, again and again
				for _, t := range []string{"", "/c1", "/pause"} {
					copyPod(b, s.cfg.Mount, i, t)
				}
			}
			at := time.Unix(1500, 0)
			s.Round(at)
			s.look(at)
			n := 0
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				at = at.Add(15 * time.Second)
				if busy {
					for _, t := range s.tracked {
						t.counted.usage++
					}
				}
				s.look(at)
				s.mu.Lock()
				var batch []Sample
				for _, t := range s.tracked {
					batch = t.rest.samples(batch, at.UnixMilli())
				}
				n += len(batch)
				s.mu.Unlock()
			}
			b.ReportMetric((cpu()-began).Seconds()/float64(n)*1e6, "cpu-s/Msample")
		})
	}
}

// cpu is what this process has used by now: it holds on a busy machine.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
