package stats

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// proc is where the kernel tells of processes.
type proc struct {
	root  string // /proc
	sized bool   // the size of a directory of open files is their count: Linux 6.2
	seen  map[int]seen
}

// seen is what a process had open when it was looked at last. While it has as
// many files open, its sockets are looked at once a minute.
type seen struct {
	files, sockets int
	at             time.Time
}

func newProc(root string) proc {
	p := proc{root: root, seen: map[int]seen{}}
	for range 3 { // another goroutine may open or close one meanwhile
		dir := filepath.Join(root, "self", "fd")
		names, err := os.ReadDir(dir)
		info, err2 := os.Stat(dir)
		if err == nil && err2 == nil && info.Size() == int64(len(names)-1) { // less the directory itself
			p.sized = true
		}
	}
	return p
}

// link is one network interface; counts are in the order of restTable.
type link struct {
	name   string
	counts [8]uint64
}

// ofPods says of an interface of the machine that it is the other end of a
// pod's, or of another container's: their numbers are told with the pods.
func (l link) ofPods() bool {
	for _, prefix := range []string{"lo", "veth", "docker", "nerdctl"} { // as cAdvisor
		if strings.HasPrefix(l.name, prefix) {
			return true
		}
	}
	return strings.HasPrefix(l.name, "pc") && len(l.name) == 14 // agent/network/cni.LinkName
}

// links are the interfaces in the network of a process, without lo.
func (p proc) links(pid string) []link {
	text, err := os.ReadFile(filepath.Join(p.root, pid, "net", "dev"))
	if err != nil {
		return nil // it ended
	}
	var out []link
	for line := range bytes.Lines(text) {
		name, numbers, ok := bytes.Cut(line, []byte(":"))
		fields := bytes.Fields(numbers)
		l := link{name: string(bytes.TrimSpace(name))}
		if !ok || len(fields) < 12 || l.name == "lo" {
			continue // a heading
		}
		for k, column := range [8]int{0, 1, 2, 3, 8, 9, 10, 11} {
			l.counts[k], _ = strconv.ParseUint(string(fields[column]), 10, 64) // the kernel's own digits
		}
		out = append(out, l)
	}
	return out
}

// namespace names the network of a process.
func (p proc) namespace(pid string) string {
	name, _ := os.Readlink(filepath.Join(p.root, pid, "ns", "net")) // "" when it ended
	return name
}

// counts of a cgroup's processes.
type counts struct {
	processes, descriptors, sockets int
	partly                          bool // too many to count what they have open
	pid                             int  // one of them
}

func (c counts) first() string {
	if c.pid == 0 {
		return ""
	}
	return strconv.Itoa(c.pid)
}

func (c counts) plus(d counts) counts {
	return counts{c.processes + d.processes, c.descriptors + d.descriptors, c.sockets + d.sockets, c.partly || d.partly, c.pid}
}

// With more than these, open files are not counted: it would cost more than
// the number is worth.
const (
	maxProcesses   = 500
	maxDescriptors = 10_000
)

// count looks at what processes have open. own are files of this process that are
// known to be no sockets: the cgroups', a dozen for each.
func (p proc) count(pids []int, own map[int]bool, now time.Time) counts {
	c := counts{processes: len(pids)}
	if len(pids) == 0 {
		return c
	}
	c.pid = pids[0]
	if len(pids) > maxProcesses {
		c.partly = true
		return c
	}
	for _, pid := range pids {
		known := own
		if pid != os.Getpid() {
			known = nil
		}
		files, sockets := p.open(pid, known, now)
		c.descriptors, c.sockets = c.descriptors+files, c.sockets+sockets
		if c.descriptors > maxDescriptors {
			c.partly = true
			return c
		}
	}
	return c
}

// open looks at files by number where the kernel says how many there are and
// they lie close together, which spares the listing; else it lists them.
func (p proc) open(pid int, known map[int]bool, now time.Time) (files, sockets int) {
	dir := filepath.Join(p.root, strconv.Itoa(pid), "fd")
	if !p.sized {
		return list(dir, known)
	}
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0, 0 // it ended
	}
	files = int(st.Size)
	if files > maxDescriptors {
		return files, 0
	}
	before, looked := p.seen[pid]
	if looked && before.files == files && now.Sub(before.at) < countedFor {
		return files, before.sockets
	}
	sockets, ok := socketsByNumber(dir, files, known, pid == os.Getpid())
	if !ok {
		_, sockets = list(dir, known)
	}
	p.seen[pid] = seen{files, sockets, now}
	return files, sockets
}

// forget drops what was seen of processes that were not looked at for long.
func (p proc) forget(now time.Time) {
	for pid, s := range p.seen {
		if now.Sub(s.at) > 2*countedFor {
			delete(p.seen, pid)
		}
	}
}

// socketsByNumber looks at the first numbers until so many files were seen; not
// ok when there are many holes between them. Of its own files, the process does
// not see the one it looks through: files was counted before.
func socketsByNumber(path string, files int, known map[int]bool, own bool) (sockets int, ok bool) {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, true // it ended
	}
	defer unix.Close(dir)
	var name [20]byte
	for fd, holes := 0, 0; files > 0; fd++ {
		if own && fd == dir {
			continue
		}
		if known[fd] {
			files--
			continue
		}
		switch linkKind(dir, string(strconv.AppendInt(name[:0], int64(fd), 10))) {
		case none:
			if holes++; holes > 64 {
				return 0, false
			}
		case socket:
			sockets++
			files--
		default:
			files--
		}
	}
	return sockets, true
}

type kind int

const (
	none kind = iota
	other
	socket
)

func linkKind(dir int, name string) kind {
	var buf [64]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	switch {
	case err != nil:
		return none
	case bytes.HasPrefix(buf[:n], []byte("socket:")):
		return socket
	}
	return other
}

func list(dir string, known map[int]bool) (files, sockets int) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, 0 // it ended
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxDescriptors + 1) // what was read counts
	if len(names) > maxDescriptors {
		return len(names), 0
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && known[n] {
			continue
		}
		if linkKind(int(d.Fd()), name) == socket {
			sockets++
		}
	}
	return len(names), sockets
}

// all counts the processes of the machine.
func (p proc) all() int {
	d, err := os.Open(p.root)
	if err != nil {
		return 0
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1) // what was read counts
	n := 0
	for _, name := range names {
		if name[0] >= '1' && name[0] <= '9' {
			n++
		}
	}
	return n
}
