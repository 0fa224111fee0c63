package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"perch/logs/record"
)

// attempt is one run of a container: its files in order, and the lines that are
// only begun.
type attempt struct {
	key     string // "<pod dir>/<container>/<attempt>", the File of positions
	streams [2]*record.Stream
	files   []*file // oldest first; the last is being written
	open    [2]joined
}

// joined is a line of which some parts have been read.
type joined struct {
	active bool
	time   int64
	body   []byte
	over   int64 // bytes beyond the limit
	parts  int   // source lines
	file   *file // where it begins
	trace  trace // a whole line that others may belong to; noTrace: parts of one line
	since  time.Time
}

// file is one log file of an attempt.
type file struct {
	a     *attempt
	path  string // as last seen
	inode uint64
	print uint64
	f     *os.File
	read  int64    // everything before is parsed
	done  [2]int64 // lines of stdout, stderr that begin before are in a batch
	size  int64    // at the last look
	mtime time.Time
	gone  bool // no longer in the directory
	moved bool // renamed: nothing more will be written soon
	ended bool // the next file is being written: its size is final
	batch bool // its position changed since the last batch
}

func inodeOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// begin opens the file and goes on where reading stopped, when position is of
// this very file.
func (t *Tail) begin(a *attempt, path string, info fs.FileInfo) (*file, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	have, err := h.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", path, err), h.Close())
	}
	if !os.SameFile(have, info) { // rotated since it was listed; the next look finds both
		return nil, errors.Join(fmt.Errorf("open log %s: %w", path, fs.ErrNotExist), h.Close())
	}
	f := &file{a: a, path: path, inode: inodeOf(info), f: h}
	if p, ok := t.positions.Position(a.key, f.inode); ok {
		head := make([]byte, printBytes)
		n, err := h.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, errors.Join(fmt.Errorf("read log %s: %w", path, err), h.Close())
		}
		if fingerprint(head[:n]) == p.Print && max(p.Stdout, p.Stderr) <= info.Size() {
			f.print = p.Print
			f.done = [2]int64{p.Stdout, p.Stderr}
			f.read = min(p.Stdout, p.Stderr)
		}
	}
	return f, nil
}

// position of the file after the current batch.
func (f *file) position() record.Position {
	return record.Position{File: f.a.key, Inode: f.inode, Print: f.print, Stdout: f.done[0], Stderr: f.done[1]}
}

// readMore parses what was written since and adds whole lines to the batch. It
// stops when the batch is full and tells whether the end was reached.
func (t *Tail) readMore(f *file) (end bool, err error) {
	info, err := f.f.Stat()
	if err != nil {
		return false, fmt.Errorf("read log %s: %w", f.path, err)
	}
	f.size = info.Size()
	if f.size < f.read { // truncated in place: what was there is lost or read
		t.m.dropped.WithLabelValues(reasonTruncated).Inc()
		t.log.Warn("log file became shorter", "namespace", f.a.streams[0].Namespace, "pod", f.a.streams[0].Pod, "container", f.a.streams[0].Container)
		f.read, f.done, f.print = 0, [2]int64{}, 0
		f.batch = true
	}
	for !t.batch.full() {
		if len(t.buf) < chunkBytes {
			t.buf = make([]byte, chunkBytes)
		}
		n, err := f.f.ReadAt(t.buf, f.read)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read log %s: %w", f.path, err)
		}
		b := t.buf[:n]
		used := bytes.LastIndexByte(b, '\n') + 1
		if used == 0 {
			if n < len(t.buf) {
				return true, nil // an unfinished line, or nothing
			}
			if len(t.buf) < maxSourceLine { // one line longer than the buffer
				t.buf = make([]byte, len(t.buf)*2)
				continue
			}
			used = n // no runtime writes that; take it as a line
		}
		if f.print == 0 {
			head := make([]byte, printBytes)
			k, err := f.f.ReadAt(head, 0)
			if err != nil && !errors.Is(err, io.EOF) {
				return false, fmt.Errorf("read log %s: %w", f.path, err)
			}
			f.print = fingerprint(head[:k])
		}
		t.m.bytes.Add(float64(used))
		start := f.read
		for rest := b[:used]; len(rest) > 0; {
			line, after, _ := bytes.Cut(rest, []byte{'\n'})
			at := start + int64(used-len(rest))
			t.take(f, at, at+int64(len(rest)-len(after)), line)
			rest = after
		}
		f.read = start + int64(used)
		if n < len(t.buf) && used == n {
			return true, nil
		}
	}
	return false, nil
}

const (
	chunkBytes    = 256 << 10
	maxSourceLine = 4 << 20
)

// take handles one source line from at to next.
func (t *Tail) take(f *file, at, next int64, line []byte) {
	l, ok := parse(line)
	side := 0
	if l.stderr {
		side = 1
	}
	if at < f.done[side] {
		return // dealt with before a restart
	}
	t.m.read.Inc()
	j := &f.a.open[side]
	if !ok {
		if len(line) == 0 {
			t.m.dropped.WithLabelValues(reasonFormat).Inc()
			if !j.active {
				f.advance(side, next)
			}
			return
		}
		// Not ours to throw away: it is stored as it stands.
		if j.active {
			t.finish(f.a, side)
			f.advance(side, at)
		}
		l = criLine{time: time.Now().UnixNano(), body: line}
	}
	if j.active && j.trace != noTrace {
		if kind, more := j.trace.next(l.body); more && ok && !l.part && j.parts < maxTraceLines {
			j.trace, j.since = kind, time.Now()
			keep := l.body[:min(len(l.body), max(0, record.MaxBody-len(j.body)-1))]
			j.body = append(append(j.body, '\n'), keep...)
			j.over += int64(len(l.body) - len(keep))
			j.parts++
			return
		}
		t.finish(f.a, side)
		f.advance(side, at)
	}
	if !j.active && !l.part {
		if kind := beginsTrace(l.body); kind != noTrace && t.cfg.Traces {
			*j = joined{active: true, time: l.time, file: f, body: bytes.Clone(l.body[:min(len(l.body), record.MaxBody)]), parts: 1, trace: kind, since: time.Now()}
			j.over = int64(len(l.body) - len(j.body))
			return
		}
		t.batch.add(f.a.streams[side], l.time, l.body, 0, 1)
		f.advance(side, next)
		return
	}
	if !j.active {
		*j = joined{active: true, time: l.time, file: f}
	}
	keep := l.body[:min(len(l.body), record.MaxBody-len(j.body))]
	j.body = append(j.body, keep...)
	j.over += int64(len(l.body) - len(keep))
	j.parts++
	if !l.part {
		t.finish(f.a, side)
		f.advance(side, next)
	}
}

// finish puts a joined line into the batch. What was read of the files it
// stretches over is then dealt with on this side.
func (t *Tail) finish(a *attempt, side int) {
	j := a.open[side]
	a.open[side] = joined{}
	t.m.cutBytes.Add(float64(j.over))
	t.batch.add(a.streams[side], j.time, j.body, j.over, j.parts)
	within := false
	for _, f := range a.files {
		if within = within || f == j.file; within {
			f.advance(side, f.read)
		}
	}
}

// advance notes that a side is stored up to next, and the other side too when
// it has no line open: then everything before next is dealt with.
func (f *file) advance(side int, next int64) {
	f.done[side] = max(f.done[side], next)
	if other := 1 - side; !f.a.open[other].active {
		f.done[other] = max(f.done[other], next)
	}
	f.batch = true
}

// scanContainer brings the list of files of a container directory up to date.
func (t *Tail) scanContainer(podDir, container string) error {
	p, ok := parsePod(podDir)
	if !ok {
		return nil
	}
	dir := filepath.Join(t.cfg.Dir, podDir, container)
	infos, err := list(dir)
	if err != nil {
		return fmt.Errorf("list logs %s: %w", dir, err)
	}
	seen := map[*file]bool{}
	for _, info := range infos {
		number, rotated, _ := parseFile(info.Name())
		key := podDir + "/" + container + "/" + number
		a := t.attempts[key]
		if a == nil {
			a = &attempt{key: key}
			for side, output := range [2]string{record.Stdout, record.Stderr} {
				a.streams[side] = &record.Stream{Namespace: p.namespace, Pod: p.name, UID: p.uid, Container: container,
					Instance: number, Node: t.cfg.Node, Output: output, Kind: record.KindLog}
			}
			t.attempts[key] = a
		}
		path := filepath.Join(dir, info.Name())
		f := a.find(inodeOf(info))
		if f == nil {
			if f, err = t.begin(a, path, info); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					t.missed = true
					continue // renamed meanwhile; the next look finds it
				}
				return err
			}
			a.insert(f, rotated)
		}
		f.path, f.moved, f.size, f.mtime = path, rotated != "", info.Size(), info.ModTime()
		seen[f] = true
	}
	prefix := podDir + "/" + container + "/"
	for key, a := range t.attempts {
		if strings.HasPrefix(key, prefix) {
			for _, f := range a.files {
				f.gone = !seen[f] && f.removed()
			}
		}
	}
	return nil
}

// list returns the log files of a directory as they were at one moment, sorted
// by name. Files may be renamed while it looks; then it looks again, since a
// file must not be read before the one that was written before it.
func list(dir string) ([]fs.FileInfo, error) {
	const resting = 50 * time.Millisecond // the kernel's clock for directories is coarse
	var last []fs.FileInfo
	for try := range 8 {
		start := time.Now()
		before, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		var infos []fs.FileInfo
		whole := true
		for _, e := range entries {
			if _, _, ok := parseFile(e.Name()); !ok {
				continue
			}
			info, err := e.Info()
			if err != nil {
				whole = false // renamed or removed meanwhile
			} else if info.Mode().IsRegular() {
				infos = append(infos, info)
			}
		}
		if !whole {
			last = nil
			continue
		}
		if start.Sub(before.ModTime()) > resting {
			if after, err := os.Stat(dir); err == nil && after.ModTime().Equal(before.ModTime()) {
				return infos, nil
			}
		}
		if try > 0 && slices.EqualFunc(infos, last, func(a, b fs.FileInfo) bool { return a.Name() == b.Name() && inodeOf(a) == inodeOf(b) }) {
			return infos, nil
		}
		last = infos
	}
	return nil, errUnsettled
}

var errUnsettled = errors.New("files were renamed again and again")

// removed tells whether the file has no name any more. A listing alone does not
// say so: the file may have been renamed meanwhile.
func (f *file) removed() bool {
	info, err := f.f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

// closed tells whether nobody has the file open for writing: the runtime closes
// it when the container has ended. The kernel grants a read lease only then.
func (f *file) closed() bool {
	raw, err := f.f.SyscallConn()
	if err != nil {
		return false
	}
	granted := false
	err = raw.Control(func(fd uintptr) {
		if _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK); err == nil {
			granted = true
			_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) // closing the file ends it too
		}
	})
	if !granted || err != nil {
		return false
	}
	// A file that is rotated is renamed first and closed then.
	have, err := f.f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.path)
	return err == nil && os.SameFile(have, named)
}

func (a *attempt) find(inode uint64) *file {
	for _, f := range a.files {
		if f.inode == inode {
			return f
		}
	}
	return nil
}

// insert keeps the order: rotated files by name, then the one being written.
func (a *attempt) insert(f *file, rotated string) {
	at := len(a.files)
	if rotated != "" {
		at = 0
		for at < len(a.files) && a.files[at].moved && a.files[at].path < f.path {
			at++
		}
	}
	f.moved = rotated != ""
	a.files = append(a.files[:at], append([]*file{f}, a.files[at:]...)...)
}

// retire closes files that no longer exist and forgets them. Everything that
// could be read of them is in the store.
func (t *Tail) retire(a *attempt) {
	keep := a.files[:0]
	for _, f := range a.files {
		if !f.gone {
			keep = append(keep, f)
			continue
		}
		if f.size > f.read { // a line without its end
			t.m.dropped.WithLabelValues(reasonGone).Inc()
		}
		_ = f.f.Close() // read only
		t.positions.Forget(a.key, f.inode)
	}
	a.files = keep
	if len(a.files) == 0 {
		delete(t.attempts, a.key)
	}
}
