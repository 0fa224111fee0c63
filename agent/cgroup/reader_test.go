package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

func TestEachLayoutGivesTheSameNumbers(t *testing.T) {
	all := Use{
		Has: HasCPU | HasThrottling | HasMemory | HasMemoryPeak | HasOOM | HasTasks | HasPSI,
		CPU: CPU{Usage: 123456789012, User: 10_000_000_000, System: 2_340_000_000, Periods: 100, ThrottledPeriods: 7, Throttled: 350_000_000},
		Memory: Memory{
			Usage: 104857600, WorkingSet: 94371840, RSS: 73400320, Cache: 20971520, MappedFile: 4096, Swap: 8192,
			Peak: 134217728, ActiveFile: 5242880, InactiveFile: 10485760,
			LimitHits: 42, OOMKills: 3, Faults: 700, MajorFaults: 8, TotalFaults: 900, TotalMajorFaults: 10,
		},
		Tasks: 9,
		PSI:   PSI{CPU: Pressure{145508000, 45508000}, Memory: Pressure{20000, 10000}, IO: Pressure{7000, 6000}},
	}
	for _, c := range []struct {
		layout Layout
		change func(*Use)
		limits Limits
	}{
		{Hybrid, func(*Use) {}, Limits{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 268435456}},
		{Separate, func(u *Use) { u.Has &^= HasPSI; u.PSI = PSI{} }, Limits{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 268435456}},
		{Unified, func(u *Use) { // counts in µs, and has no numbers without children
			u.CPU.Usage, u.CPU.User, u.CPU.System = 123456789000, 100_000_000_000, 23_456_789_000
			u.Memory.Faults, u.Memory.MajorFaults = 900, 10
		}, Limits{CPUShares: 127, CPUQuota: 50000, CPUPeriod: 100000, Memory: 268435456, Pids: 100}},
	} {
		t.Run(c.layout.String(), func(t *testing.T) {
			tree, err := Detect(filepath.Join("testdata", c.layout.String()))
			if err != nil || tree.Layout != c.layout {
				t.Fatal(tree, err)
			}
			r, err := tree.Open("/perch/podA/c1")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			want := all
			c.change(&want)
			var got Use
			for range 2 { // a second read starts at the front again
				if err := r.Read(&got); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
				}
			}
			if idle, err := r.Look(&got); err != nil || !idle || !reflect.DeepEqual(got, want) {
				t.Errorf("a look at an idle cgroup changes nothing: %v %v %+v", idle, err, got)
			}
			got.CPU.Usage--
			got.Memory.Usage, got.Memory.RSS, got.Memory.Peak, want.Memory.Peak = 0, 0, 1, 1
			if idle, err := r.Look(&got); err != nil || idle || !reflect.DeepEqual(got, want) {
				t.Errorf("a look at a busy cgroup reads all but slow files: %v %v\ngot  %+v\nwant %+v", idle, err, got, want)
			}
			if d := tree.Disks("/perch/podA/c1"); len(d) != 1 || d[0] != (Disk{254, 0, 4096, 8192, 1, 2}) {
				t.Errorf("disks %+v", d)
			}
			if p := tree.Processes("/perch/podA/c1"); !slices.Equal(p, []int{17, 4711}) {
				t.Errorf("processes %v", p)
			}
			if l := tree.Limits("/perch/podA/c1"); l != c.limits {
				t.Errorf("limits %+v, want %+v", l, c.limits)
			}
			if names, err := tree.Children("/perch"); err != nil || !slices.Equal(names, []string{"/perch/podA"}) {
				t.Error(names, err)
			}
			if tree.Created("/perch/podA").IsZero() || !tree.Created("/perch/podB").IsZero() {
				t.Error("creation time")
			}
			if _, err := tree.Open("/perch/podB"); !errors.Is(err, ErrGone) {
				t.Errorf("open of a missing cgroup: %v", err)
			}
		})
	}
}

func TestDetectSaysWhatIsMissing(t *testing.T) {
	if _, err := Detect(t.TempDir()); err == nil {
		t.Error("an empty directory is no cgroup tree")
	}
}

// fixture is a container's reader in a copy of testdata that can be written.
func fixture(t *testing.T, layout string) (Tree, *Reader, func(name, text string)) {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", layout))); err != nil {
		t.Fatal(err)
	}
	tree, err := Detect(root)
	if err != nil {
		t.Fatal(err)
	}
	r, err := tree.Open("/perch/podA/c1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return tree, r, func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLooksReadWhatCanHaveChanged(t *testing.T) {
	for layout, files := range map[string]struct{ cpu, use, detail, slow, throttling, hits string }{
		"unified":  {"perch/podA/c1/cpu.stat", "perch/podA/c1/memory.current", "perch/podA/c1/memory.stat", "perch/podA/c1/pids.current", "", ""},
		"separate": {"cpuacct/perch/podA/c1/cpuacct.usage", "memory/perch/podA/c1/memory.usage_in_bytes", "memory/perch/podA/c1/memory.stat", "pids/perch/podA/c1/pids.current", "cpu/perch/podA/c1/cpu.stat", "memory/perch/podA/c1/memory.failcnt"},
	} {
		t.Run(layout, func(t *testing.T) {
			_, r, write := fixture(t, layout)
			cpu := func(n string) { // in µs
				if layout == "unified" {
					write(files.cpu, "usage_usec "+n+"\n")
				} else {
					write(files.cpu, n+"000\n")
				}
			}
			var u Use
			if err := r.Read(&u); err != nil {
				t.Fatal(err)
			}
			first := u
			anon := func(n string) {
				if layout == "unified" {
					write(files.detail, "anon "+n+"\n")
				} else {
					write(files.detail, "total_rss "+n+"\n")
				}
			}

			anon("77")
			write(files.slow, "99\n")
			if idle, err := r.Look(&u); !idle || err != nil || u != first {
				t.Errorf("a look where nothing ran: %v %v %+v", idle, err, u)
			}
			if still, err := r.Refresh(&u); !still || err != nil || u != first {
				t.Errorf("a refresh where nothing happened: %v %v %+v", still, err, u)
			}
			cpu("900000000")
			if idle, err := r.Look(&u); idle || err != nil || u.CPU.Usage != 900000000000 || u.Memory.RSS != first.Memory.RSS || u.Tasks != first.Tasks || u.Has != first.Has {
				t.Errorf("a look where something ran and memory use stayed: %v %v %+v", idle, err, u)
			}
			write(files.use, "123456\n")
			cpu("900000001")
			if idle, err := r.Look(&u); idle || err != nil || u.Memory.Usage != 123456 || u.Memory.RSS != 77 || u.Tasks != first.Tasks || u.Has != first.Has {
				t.Errorf("a look where something ran and memory use changed: %v %v %+v", idle, err, u)
			}
			write(files.use, "123457\n")
			if still, err := r.Refresh(&u); still || err != nil || u.Memory.Usage != 123457 || u.Tasks != 99 || u.Has != first.Has {
				t.Errorf("a refresh where nothing ran and memory use changed: %v %v %+v", still, err, u)
			}
			anon("78")
			if err := r.Read(&u); err != nil || u.Memory.RSS != 78 || u.Has != first.Has {
				t.Errorf("a read: %v %+v", err, u)
			}

			if files.throttling == "" {
				return
			}
			write(files.throttling, "nr_periods 1000\n")
			write(files.hits, "1000\n")
			r.Limited(false, false)
			if err := r.Read(&u); err != nil || u.CPU.Periods != first.CPU.Periods || u.Memory.LimitHits != first.Memory.LimitHits || u.Has != first.Has {
				t.Errorf("without limits what they held back is not read: %v %+v", err, u)
			}
			r.Limited(true, true)
			if err := r.Read(&u); err != nil || u.CPU.Periods != 1000 || u.Memory.LimitHits != 1000 || u.Has != first.Has {
				t.Errorf("with limits it is: %v %+v", err, u)
			}
		})
	}
}

// TestABurstBetweenRefreshesIsNotStill: a look that saw it must not hide it.
func TestABurstBetweenRefreshesIsNotStill(t *testing.T) {
	for layout, files := range map[string]map[string]string{
		"unified": {
			"perch/podA/c1/cpu.stat":      "usage_usec 900000000\n",
			"perch/podA/c1/memory.events": "max 42\noom_kill 6\n",
			"perch/podA/c1/memory.peak":   "200000000\n",
			"perch/podA/c1/pids.current":  "99\n",
			"perch/podA/c1/cpu.pressure":  "some total=900000\nfull total=800000\n",
		},
		"hybrid": {
			"cpuacct/perch/podA/c1/cpuacct.usage":            "900000000000\n",
			"cpuacct/perch/podA/c1/cpuacct.stat":             "user 70000\nsystem 20000\n",
			"memory/perch/podA/c1/memory.oom_control":        "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n",
			"memory/perch/podA/c1/memory.max_usage_in_bytes": "200000000\n",
			"pids/perch/podA/c1/pids.current":                "99\n",
			"unified/perch/podA/c1/cpu.pressure":             "some total=900000\nfull total=800000\n",
		},
	} {
		t.Run(layout, func(t *testing.T) {
			tree, r, write := fixture(t, layout)
			var u, want Use
			if err := r.Read(&u); err != nil || r.Ran() {
				t.Fatalf("after a read nothing is left to read: %v %v", err, r.Ran())
			}
			for name, text := range files {
				write(name, text)
			}
			if idle, err := r.Look(&u); idle || err != nil || !r.Ran() {
				t.Fatalf("a look at a burst: %v %v, ran %v", idle, err, r.Ran())
			}
			if idle, err := r.Look(&u); !idle || err != nil || !r.Ran() {
				t.Fatalf("a look after the burst: %v %v, ran %v", idle, err, r.Ran())
			}
			other, err := tree.Open("/perch/podA/c1")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if err := other.Read(&want); err != nil || want.Memory.OOMKills != 6 || want.Tasks != 99 || want.PSI.CPU.Some != 900000000 {
				t.Fatalf("%v %+v", err, want)
			}
			// What the burst's fixture leaves out of cpu.stat stays what it was.
			want.CPU.Periods, want.CPU.ThrottledPeriods, want.CPU.Throttled = u.CPU.Periods, u.CPU.ThrottledPeriods, u.CPU.Throttled
			if layout == "unified" {
				want.CPU.User, want.CPU.System = u.CPU.User, u.CPU.System
			}
			if still, err := r.Refresh(&u); still || err != nil || u != want || r.Ran() {
				t.Errorf("a refresh after a burst: still %v, %v, ran %v\ngot  %+v\nwant %+v", still, err, r.Ran(), u, want)
			}
			if still, err := r.Refresh(&u); !still || err != nil || u != want {
				t.Errorf("the next refresh: still %v, %v\ngot  %+v\nwant %+v", still, err, u, want)
			}
		})
	}
}

// TestARemovedCgroupIsGone runs where cgroups can be made.
func TestARemovedCgroupIsGone(t *testing.T) {
	tree, path := realCgroup(t)
	r, err := tree.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var u Use
	if err := r.Read(&u); err != nil || u.Has&(HasCPU|HasMemory) == 0 {
		t.Fatalf("%+v %v", u, err)
	}
	removeReal(tree, path)
	last := u
	if _, err := r.Look(&u); !errors.Is(err, ErrGone) || u != last {
		t.Errorf("look after removal: %v, %+v", err, u)
	}
	if err := r.Read(&u); !errors.Is(err, ErrGone) || u != last {
		t.Errorf("after removal: %v, %+v", err, u)
	}
	r.Limited(false, false)
	if _, err := r.Refresh(&u); !errors.Is(err, ErrGone) || u != last {
		t.Errorf("refresh after removal: %v, %+v", err, u)
	}
}

func realCgroup(t testing.TB) (Tree, string) {
	t.Helper()
	tree, err := Detect("/sys/fs/cgroup")
	if err != nil {
		t.Skip("no cgroups here: ", err)
	}
	path := "/perch-test-" + filepath.Base(t.TempDir()) + "-" + filepath.Base(filepath.Dir(t.TempDir()))
	for _, dir := range tree.all(path) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			removeReal(tree, path)
			t.Skip("cannot make a cgroup: ", err)
		}
	}
	t.Cleanup(func() { removeReal(tree, path) })
	return tree, path
}

func (t Tree) all(path string) []string {
	if t.Layout == Unified {
		return []string{filepath.Join(t.Root, path)}
	}
	var out []string
	for _, d := range t.dirs {
		if p := filepath.Join(d, path); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func removeReal(tree Tree, path string) {
	for _, dir := range tree.all(path) {
		_ = os.Remove(dir) // gone already, or never made
	}
}

func TestTheMachinesRootHasMemory(t *testing.T) {
	tree, err := Detect("testdata/unified")
	if err != nil {
		t.Fatal(err)
	}
	r, err := tree.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var u Use
	if err := r.Read(&u); err != nil {
		t.Fatal(err)
	}
	if m := u.Memory; u.Has&HasMemory == 0 || m.Usage != 300<<20 || m.WorkingSet != 250<<20 || m.RSS != 200<<20 {
		t.Errorf("have %v %+v", u.Has, m)
	}
}

func TestSwapOfTheMachine(t *testing.T) {
	for text, want := range map[string]uint64{
		"MemTotal: 9 kB\nSwapTotal:      100 kB\nSwapFree:        40 kB\n": 60 << 10,
		"SwapTotal: 0 kB\nSwapFree: 0 kB\n":                                0,
		"":                                                                 0,
	} {
		var u Use
		if u.parseSwap([]byte(text)); u.Memory.Swap != want {
			t.Errorf("%q: %d, want %d", text, u.Memory.Swap, want)
		}
	}
}

func TestSharesOfAWeight(t *testing.T) {
	for weight, want := range map[uint64]uint64{0: 0, 1: 2, 17: 102, 100: 1024, 10000: 262144} {
		if got := shares(weight); got != want {
			t.Errorf("shares(%d) = %d, want %d", weight, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	_ = filepath.WalkDir("testdata", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if b, err := os.ReadFile(path); err == nil {
				f.Add(b)
			}
		}
		return nil
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		var u Use
		u.parseCPUStat(b)
		u.parseCPUStat2(b)
		u.parseCPUAcct(b)
		u.parseMemoryStat(b)
		u.parseMemoryStat2(b)
		u.parseOOMControl(b)
		u.parseMemoryEvents(b)
		u.parseRootMemory(b)
		u.parseSwap(b)
		_ = parsePressure(b)
		_ = limit(string(b))
	})
}

// BenchmarkRead is the cost of one sample of a real, empty cgroup.
func BenchmarkRead(b *testing.B) {
	tree, path := realCgroup(b)
	r, err := tree.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	var u Use
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Read(&u); err != nil {
			b.Fatal(err)
		}
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	tree, err := Detect("testdata/unified")
	if err != nil {
		t.Fatal(err)
	}
	r, err := tree.Open("/perch/podA/c1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var u Use
	if n := testing.AllocsPerRun(100, func() { _ = r.Read(&u) }); n > 0 {
		t.Errorf("%v allocations per sample", n)
	}
}
