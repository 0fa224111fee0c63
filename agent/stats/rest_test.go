package stats

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"golang.org/x/sys/unix"
)

const devText = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
  eth0: 1111 11 1 2 0 0 0 0 2222 22 3 4 0 0 0 0
pc0123456789ab:      5       1    0    0    0     0          0         0        5       1    0    0    0     0       0          0
`

// devOfPod is what a pod sees of itself.
func devOfPod(received int) string {
	text, _, _ := strings.Cut(strings.ReplaceAll(devText, "1111", fmt.Sprint(received)), "pc0123")
	return text
}

// withProcesses is a machine whose pod U1 has a sandbox, process 17, in a
// network of its own, and process 21 with two files and a socket in c1.
func withProcesses(t testing.TB) func(*Config, *Parts) {
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
	link := func(path, target string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	write("proc/self/net/dev", devText)
	link("proc/self/ns/net", "net:[1]")
	write("proc/17/net/dev", devOfPod(7777))
	link("proc/17/ns/net", "net:[17]")
	link("proc/17/fd/0", "/dev/null")
	link("proc/21/fd/0", "/dev/null")
	link("proc/21/fd/1", "socket:[4711]")
	link("proc/21/fd/2", "/some/file")
	link("sys/dev/block/254:0", "../../block/vda")
	return func(c *Config, p *Parts) {
		c.Proc, c.Sys = dir+"/proc", dir+"/sys"
		p.Sandbox = func(uid string) string { return map[string]string{"U1": "pause"}[uid] }
		name := p.Name
		p.Name = func(uid, id string) (Identity, bool) {
			if id == "pause" {
				return Identity{}, false
			}
			return name(uid, id)
		}
		for _, f := range []struct{ path, text string }{
			{"pause/cgroup.procs", "17\n"}, {"c1/cgroup.procs", "21\n"}, {"c1/io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2\n"},
			{"../../../cpu.stat", "usage_usec 9000000\n"},
		} {
			if err := os.WriteFile(filepath.Join(c.Mount, "perch/burstable/podU1", f.path), []byte(f.text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// copyPod makes pod U1's files those of another, too.
func copyPod(t testing.TB, mount string, n int, of string) {
	t.Helper()
	from, to := filepath.Join(mount, "perch/burstable/podU1"+of), filepath.Join(mount, fmt.Sprintf("perch/burstable/podU1-%d%s", n, of))
	entries, err := os.ReadDir(from)
	if err == nil {
		err = os.MkdirAll(to, 0o755)
	}
	for _, e := range entries {
		if e.IsDir() || err != nil {
			continue
		}
		var text []byte
		if text, err = os.ReadFile(filepath.Join(from, e.Name())); err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), text, 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestNetworkDisksAndProcesses(t *testing.T) {
	dir := mount(t)
	s := newStats(t, dir, withProcesses(t))
	now := time.Unix(1500, 0)
	s.Round(now)
	s.look(now)
	drain(s)
	round := func() []Sample {
		now = now.Add(15 * time.Second)
		s.Round(now)
		return drain(s)
	}
	one := func(batch []Sample, name string, pairs ...string) float64 {
		t.Helper()
		var got []Sample
	next:
		for _, x := range batch {
			if x.Labels.Get("__name__") != name {
				continue
			}
			for i := 0; i < len(pairs); i += 2 {
				if x.Labels.Get(pairs[i]) != pairs[i+1] {
					continue next
				}
			}
			got = append(got, x)
		}
		if len(got) != 1 {
			t.Fatalf("%s%v: %v", name, pairs, got)
		}
		return got[0].V
	}
	batch := round()
	pause := []string{"id", "/perch/burstable/podU1/pause", "name", "pause", "pod", "web-1", "namespace", "red", "container", ""}
	for _, c := range []struct {
		name  string
		pairs []string
		want  float64
	}{
		{"container_network_receive_bytes_total", append(pause, "interface", "eth0"), 7777},
		{"container_network_receive_packets_dropped_total", append(pause, "interface", "eth0"), 2},
		{"container_network_transmit_errors_total", append(pause, "interface", "eth0"), 3},
		{"container_network_receive_bytes_total", []string{"id", "/", "interface", "eth0"}, 1111},
		{"container_fs_writes_bytes_total", []string{"container", "web", "device", "/dev/vda"}, 20},
		{"container_fs_reads_total", []string{"container", "web", "device", "/dev/vda"}, 1},
		{"container_blkio_device_usage_total", []string{"container", "web", "operation", "Read", "major", "254", "minor", "0"}, 10},
		{"container_processes", []string{"container", "web"}, 1},
		{"container_file_descriptors", []string{"container", "web"}, 3},
		{"container_sockets", []string{"container", "web"}, 1},
		{"container_processes", []string{"id", "/perch/burstable/podU1"}, 2},
		{"container_file_descriptors", []string{"id", "/perch"}, 4},
		{"container_processes", []string{"id", "/"}, 2},
		{"machine_memory_bytes", nil, 4096},
		{"machine_cpu_physical_cores", nil, 1},
	} {
		if got := one(batch, c.name, c.pairs...); got != c.want {
			t.Errorf("%s%v is %g, want %g", c.name, c.pairs, got, c.want)
		}
	}
	for _, x := range batch {
		if i := x.Labels.Get("interface"); i != "" && i != "eth0" {
			t.Errorf("interface of the machine: %s", x.Labels)
		}
	}

	// What did not run is not looked at again for a minute, but its pod's network is.
	if err := os.WriteFile(filepath.Join(dir, "perch/burstable/podU1/c1/cgroup.procs"), []byte("21\n22\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.cfg.Proc, "17/net/dev"), []byte(devOfPod(8888)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.look(now)
	batch = round()
	if n := one(batch, "container_processes", "container", "web"); n != 1 {
		t.Errorf("an idle container was counted again: %g", n)
	}
	if n := one(batch, "container_fs_reads_total", "container", "web"); n != 1 {
		t.Errorf("an idle container keeps the numbers of its disks: %g", n)
	}
	if n := one(batch, "container_network_receive_bytes_total", "pod", "web-1"); n != 8888 {
		t.Errorf("network of the pod: %g", n)
	}
	s.look(now.Add(time.Minute))
	if n := one(round(), "container_processes", "container", "web"); n != 2 {
		t.Errorf("after a minute it is counted: %g", n)
	}

	// A link that goes ends its series; a pod in the machine's network has none.
	if err := os.Remove(filepath.Join(s.cfg.Proc, "17/ns/net")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("net:[1]", filepath.Join(s.cfg.Proc, "17/ns/net")); err != nil {
		t.Fatal(err)
	}
	s.look(now)
	batch = round()
	if v := one(batch, "container_network_receive_bytes_total", "pod", "web-1"); !value.IsStaleNaN(v) {
		t.Errorf("the series of a link that is gone: %g", v)
	}
	for _, x := range round() {
		if x.Labels.Get("pod") != "" && x.Labels.Get("interface") != "" {
			t.Errorf("sent after its end: %s", x.Labels)
		}
	}

	// A container that ends takes the series along.
	path := s.PathOf("burstable", "U1", "c1")
	s.Ended(path, Exit{})
	if n := one(drain(s), "container_file_descriptors", "container", "web"); n != 3 {
		t.Errorf("last numbers: %g", n)
	}
	if err := os.RemoveAll(filepath.Join(dir, path)); err != nil {
		t.Fatal(err)
	}
	now = time.Now().Truncate(15 * time.Second).Add(15 * time.Second)
	if v := one(round(), "container_file_descriptors", "container", "web"); !value.IsStaleNaN(v) {
		t.Errorf("no end: %g", v)
	}
}

func TestOpenFilesOfProcesses(t *testing.T) {
	gap, err := os.Open(t.TempDir()) // a number below the others: where the look opens its directory
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	end := os.NewFile(uintptr(pair[1]), "socket")
	defer end.Close()
	gap.Close()
	now := time.Now()
	look := func(p proc, pid int, known map[int]bool) counts {
		now = now.Add(countedFor)
		return p.count([]int{pid}, known, now)
	}
	self, p, listing := os.Getpid(), newProc("/proc"), proc{root: "/proc"}
	all := look(p, self, nil)
	if got := look(listing, self, nil); got.sockets != all.sockets || got.descriptors-all.descriptors > 1 { // the directory itself
		t.Errorf("listed %+v, by number %+v", got, all)
	}
	if got := look(p, self, map[int]bool{int(file.Fd()): true}); got != all || got.sockets < 2 {
		t.Errorf("%+v, looking at every file %+v", got, all)
	}
	if got := look(p, self, map[int]bool{pair[0]: true}); got.sockets != all.sockets-1 || got.descriptors != all.descriptors {
		t.Errorf("what is known was looked at: %+v, all %+v", got, all)
	}
	const far = 900 // a number after a hole
	if err := unix.Dup3(pair[0], far, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if got := look(p, self, nil); got.sockets != all.sockets+1 || got.descriptors != all.descriptors+1 {
		t.Errorf("with a socket more, number %d: %+v, before %+v", far, got, all)
	}
	if err := unix.Dup3(int(file.Fd()), far, unix.O_CLOEXEC); err != nil { // as many files, a socket less
		t.Fatal(err)
	}
	now = now.Add(15 * time.Second)
	if got := p.count([]int{self}, nil, now); p.sized && got.sockets != all.sockets+1 {
		t.Errorf("with as many files open it is not looked at again: %+v", got)
	}
	if got := look(p, self, nil); got.sockets != all.sockets {
		t.Errorf("after a minute it is: %+v", got)
	}
	if err := unix.Close(far); err != nil {
		t.Fatal(err)
	}
	now = now.Add(15 * time.Second)
	if got := p.count([]int{self}, nil, now); got != all {
		t.Errorf("and at once with fewer: %+v, want %+v", got, all)
	}
	if p.forget(now.Add(3 * countedFor)); len(p.seen) != 0 {
		t.Errorf("still known: %v", p.seen)
	}
	other := exec.Command("sh", "-c", "echo started; read never")
	other.Stdin = end
	said, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if _, err := said.Read(make([]byte, 1)); err != nil { // what it opens to start is closed
		t.Fatal(err)
	}
	if got, all := look(p, other.Process.Pid, map[int]bool{0: true}), look(p, other.Process.Pid, nil); got != all || all.sockets < 1 {
		t.Errorf("the files of another process are other files: %+v, all %+v", got, all)
	}
}

func aMachine() (Machine, error) {
	return Machine{Cores: 2, PhysicalCores: 1, Sockets: 1, Memory: 4096, Swap: 1024}, nil
}
