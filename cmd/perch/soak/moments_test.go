package main

import (
	"context"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"perch/agent/stats"
	"perch/metrics/store"
)

// reader is the reader of a worker's cgroups and the store that it fills, in a
// bubble of time. Cgroups are files here.
type reader struct {
	dir   string
	stats *stats.Stats
	store *store.Store
	reg   *prometheus.Registry
	stop  func()
}

const momentRoot = "/perch/burstable"

func startReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{dir: t.TempDir(), reg: prometheus.NewRegistry()}
	quiet := slog.New(slog.DiscardHandler)
	r.write(t, "cgroup.controllers", "cpu memory\n")
	cfg := store.DefaultWorker()
	cfg.Dir = filepath.Join(r.dir, "metrics")
	var err error
	if r.store, err = store.New(cfg, quiet, r.reg); err != nil {
		t.Fatal(err)
	}
	inlet := r.store.Inlet("agent")
	read := stats.Default()
	read.Node, read.Instance, read.Mount, read.Proc, read.Sys = "n1", "192.0.2.1:10250", r.dir, filepath.Join(r.dir, "proc"), filepath.Join(r.dir, "sys")
	read.Hot = read.Warm // hours pass here
	r.stats, err = stats.New(read, stats.Parts{
		Machine: func() (stats.Machine, error) { return stats.Machine{Cores: 1}, nil },
		Name: func(uid, id string) (stats.Identity, bool) {
			who := stats.Identity{Namespace: "moments", Pod: uid, PodUID: uid}
			if id != "" {
				who.Container, who.ID, who.Image = "c", id, "moment"
			}
			return who, true
		},
		Sink: func(ctx context.Context, batch []stats.Sample) error {
			_, err := inlet.Append(ctx, batch)
			return err
		},
	}, quiet, r.reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.stats.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := r.store.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	return r
}

func (r *reader) write(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(r.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pod makes the cgroups of a pod with one container, which are there with all
// their files at once, as the kernel makes them.
func (r *reader) pod(t *testing.T, uid string) (container string) {
	t.Helper()
	made := "/made/pod" + uid
	for _, p := range []string{made, made + "/c-" + uid} {
		r.write(t, p+"/cpu.stat", "usage_usec 1000000\nuser_usec 1500\nsystem_usec 500\n")
		r.write(t, p+"/memory.current", "4096\n")
		r.write(t, p+"/memory.peak", "8192\n")
		r.write(t, p+"/memory.stat", "anon 1024\nfile 2048\ninactive_file 1000\npgfault 5\n")
		r.write(t, p+"/memory.events", "max 0\noom_kill 0\n")
		r.write(t, p+"/pids.current", "3\n")
		r.write(t, p+"/cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n")
	}
	pod := momentRoot + "/pod" + uid
	if err := os.MkdirAll(filepath.Join(r.dir, momentRoot), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(r.dir, made), filepath.Join(r.dir, pod)); err != nil {
		t.Fatal(err)
	}
	return pod + "/c-" + uid
}

// used lets a cgroup have used 7 s; nobody sees half of it.
func (r *reader) used(t *testing.T, cgroup string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, cgroup, "cpu.stat"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("usage_usec 7"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// pass lets pods live 200 ms each, some every second, each with an exit code of
// its own, and returns how many series there were at most.
func (r *reader) pass(t *testing.T, prefix string, pods, each int) (most uint64) {
	t.Helper()
	for n := 0; n < pods; n += each {
		var paths []string
		for i := range each {
			uid := prefix + strconv.Itoa(n+i)
			paths = append(paths, r.pod(t, uid))
			r.stats.Started(paths[i])
		}
		time.Sleep(200 * time.Millisecond)
		for i, p := range paths {
			uid := prefix + strconv.Itoa(n+i)
			r.used(t, p)
			r.stats.Ended(p, stats.Exit{Code: (n + i) % 256, At: time.Now()})
			if err := os.RemoveAll(filepath.Join(r.dir, momentRoot, "pod"+uid)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(800 * time.Millisecond)
		most = max(most, r.store.Series())
	}
	return most
}

// last counts the series with a name by their newest values.
func (r *reader) last(t *testing.T, name, pods string) map[float64]int {
	t.Helper()
	q, err := r.store.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name),
		labels.MustNewMatcher(labels.MatchEqual, "container", "c"), labels.MustNewMatcher(labels.MatchRegexp, "pod", pods))
	out := map[float64]int{}
	for set.Next() {
		v := math.NaN()
		for it := set.At().Iterator(nil); it.Next() != 0; { // until there is none; all are plain numbers
			if _, x := it.At(); !math.IsNaN(x) {
				v = x
			}
		}
		out[v]++
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}

// readerUse is what must not grow with the number of pods.
type readerUse struct {
	heap, series      uint64
	goroutines, files int
	disk              int64
	refused           float64 // samples
}

func (r *reader) use(t *testing.T) (u readerUse) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap, u.series, u.goroutines = m.HeapAlloc, r.store.Series(), runtime.NumGoroutine()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	u.files = len(files)
	if err := filepath.WalkDir(r.store.Dir(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		u.disk += info.Size()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := f.GetName(); n == "perch_store_samples_refused_total" || n == "perch_stats_samples_dropped_total" || n == "perch_stats_cgroups_refused_total" {
			for _, x := range f.GetMetric() {
				u.refused += x.GetCounter().GetValue()
			}
		}
	}
	return u
}

// TestTenThousandMomentsLeaveTheirLastNumbersAndNothingElse runs the cgroups of
// pods of 200 ms through the reader into a worker's store: the last CPU time,
// peak of memory and exit code of each are stored, none is refused, and when the
// store has let go of them it holds what it held before.
func TestTenThousandMomentsLeaveTheirLastNumbersAndNothingElse(t *testing.T) {
	const first, pods, each = 200, 10_000, 10
	synctest.Test(t, func(t *testing.T) {
		r := startReader(t)
		defer r.stop()
		for i := range 3 { // they stay
			r.stats.Started(r.pod(t, "base-"+strconv.Itoa(i)))
		}
		forgotten := 2*time.Hour + 3*store.DefaultWorker().BlockDuration
		r.pass(t, "first-", first, each)
		time.Sleep(forgotten)
		before := r.use(t)
		most := r.pass(t, "p-", pods, each)
		time.Sleep(time.Minute)
		for name, want := range map[string]float64{"container_cpu_usage_seconds_total": 7, "container_memory_max_usage_bytes": 8192} {
			if have := r.last(t, name, "p-.*"); have[want] != pods {
				t.Errorf("%s: %v, want %d times %v", name, have, pods, want)
			}
		}
		codes := r.last(t, "perch_container_exit_code", "p-.*")
		for code := range 256 {
			if n := codes[float64(code)]; n != pods/256 && n != pods/256+1 {
				t.Errorf("%d containers have exit code %d", n, code)
			}
		}
		if most > 40_000 {
			t.Errorf("%d series at most: those of pods that ended stay too long", most)
		}
		time.Sleep(forgotten)
		after := r.use(t)
		t.Logf("before %+v", before)
		t.Logf("at most %d series", most)
		t.Logf("after  %+v", after)
		if after.refused > 0 || after.series > before.series || after.goroutines > before.goroutines || after.files > before.files+5 {
			t.Errorf("%d pods left something, or were not told of", pods)
		}
		if more := int64(after.heap) - int64(before.heap); more > 16<<20 {
			t.Errorf("%d pods left %d MB of memory", pods, more>>20)
		}
		if more := after.disk - before.disk; more > 8<<20 {
			t.Errorf("%d pods left %d MB on disk", pods, more>>20)
		}
	})
}
