package tail

import (
	"bytes"
	"container/list"
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

	"perch/logs/record"
)

// container is a directory of log files.
type container struct {
	account  *account
	attempts []*attempt
}

// attempt is one run of a container: its files in order, and the lines that are
// only begun.
type attempt struct {
	key     string // "<pod dir>/<container>/<attempt>", the File of positions
	in      *container
	streams [2]*record.Stream
	files   []*file // oldest first; the last is being written
	open    [2]joined
	changed bool   // something of it is in the batch
	took    int64  // source lines taken
	settled int64  // of them, those that are counted as read
	booked  counts // stored and dropped lines that are not counted yet
}

// settle returns the counts since it was last called. Lines that are only begun
// would be read again after a restart: they do not count yet.
func (a *attempt) settle() counts {
	out, whole := a.booked, a.took
	for i := range a.open {
		whole -= int64(a.open[i].parts + a.open[i].empty)
	}
	out.read += whole - a.settled
	a.booked, a.settled = counts{}, whole
	return out
}

// joined is a line of which some parts have been read.
type joined struct {
	active bool
	time   int64
	body   []byte
	over   int64 // bytes beyond the limit
	parts  int   // source lines
	empty  int   // lines between them that are not stored
	file   *file // where it begins
	trace  trace // a whole line that others may belong to; noTrace: parts of one line
	since  time.Time
}

// file is one log file of an attempt.
type file struct {
	a       *attempt
	path    string // as last seen
	inode   uint64
	print   uint64
	f       *os.File      // nil: closed, see handles
	used    *list.Element // of handles
	shut    bool          // it was open before
	read    int64         // everything before is parsed
	done    [2]int64      // lines of stdout, stderr that begin before are in a batch
	size    int64         // at the last look
	mtime   time.Time
	gone    bool // no longer in the directory
	missing bool // closed, and not there at the last look
	moved   bool // renamed: nothing more will be written soon
	ended   bool // the next file is being written: its size is final
	batch   bool // its position changed since the last batch
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
	f := &file{a: a, path: path, inode: inodeOf(info)}
	h, err := t.handle(f) // rotated since it was listed: the next look finds both
	if err != nil {
		return nil, err
	}
	if p, ok := t.positions.Position(a.key, f.inode); ok {
		have, err := printOf(h)
		if err != nil {
			t.shut(f)
			return nil, fmt.Errorf("read log %s: %w", path, err)
		}
		// A machine that lost its power may have lost the file's end, which was stored.
		size, whole := info.Size(), max(p.Stdout, p.Stderr) <= info.Size()
		if have == p.Print && (whole || info.ModTime().Before(t.cfg.Booted)) {
			f.print = p.Print
			f.done = [2]int64{min(p.Stdout, size), min(p.Stderr, size)}
			f.read = min(f.done[0], f.done[1])
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
	h, err := t.handle(f)
	if err != nil {
		return false, err
	}
	info, err := h.Stat()
	if err != nil {
		return false, fmt.Errorf("read log %s: %w", f.path, err)
	}
	f.size = info.Size()
	if f.size < f.read { // truncated in place: what was there is lost or read
		t.lose(f.a, reasonTruncated)
		t.log.Warn("log file became shorter", "namespace", f.a.streams[0].Namespace, "pod", f.a.streams[0].Pod, "container", f.a.streams[0].Container)
		f.read, f.done, f.print = 0, [2]int64{}, 0
		f.batch = true
	}
	for !t.batch.full() {
		if len(t.buf) < chunkBytes {
			t.buf = make([]byte, chunkBytes)
		}
		n, err := h.ReadAt(t.buf, f.read)
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
			if f.print, err = printOf(h); err != nil {
				return false, fmt.Errorf("read log %s: %w", f.path, err)
			}
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
	f.a.took++
	j := &f.a.open[side]
	if !ok {
		if len(line) == 0 {
			if j.active {
				j.empty++ // it is read again with the line it stands in
				return
			}
			f.a.booked.dropped[reasonFormat]++
			t.advance(f, side, next)
			return
		}
		// Not ours to throw away: it is stored as it stands.
		if j.active {
			t.finish(f.a, side)
			t.advance(f, side, at)
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
		t.advance(f, side, at)
	}
	if !j.active && !l.part {
		if kind := beginsTrace(l.body); kind != noTrace && t.cfg.Traces {
			*j = joined{active: true, time: l.time, file: f, body: bytes.Clone(l.body[:min(len(l.body), record.MaxBody)]), parts: 1, trace: kind, since: time.Now()}
			j.over = int64(len(l.body) - len(j.body))
			return
		}
		t.batch.add(f.a.streams[side], l.time, l.body, 0)
		f.a.booked.stored++
		t.advance(f, side, next)
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
		t.advance(f, side, next)
	}
}

// finish puts a joined line into the batch. What was read of the files it
// stretches over is then dealt with on this side.
func (t *Tail) finish(a *attempt, side int) {
	j := a.open[side]
	a.open[side] = joined{}
	t.m.cutBytes.Add(float64(j.over))
	t.batch.add(a.streams[side], j.time, j.body, j.over)
	a.booked.stored += int64(j.parts)
	a.booked.dropped[reasonFormat] += int64(j.empty)
	within := false
	for _, f := range a.files {
		if within = within || f == j.file; within {
			t.advance(f, side, f.read)
		}
	}
}

// advance notes that a side is stored up to next, and the other side too when
// it has no line open: then everything before next is dealt with.
func (t *Tail) advance(f *file, side int, next int64) {
	f.done[side] = max(f.done[side], next)
	if other := 1 - side; !f.a.open[other].active {
		f.done[other] = max(f.done[other], next)
	}
	f.batch = true
	t.note(f.a)
}

// note says that something of the attempt belongs to the batch.
func (t *Tail) note(a *attempt) {
	if !a.changed {
		a.changed = true
		t.changed = append(t.changed, a)
	}
}

// lose counts a line that was there and could not be read.
func (t *Tail) lose(a *attempt, why reason) {
	a.took++
	a.booked.dropped[why]++
	t.note(a)
}

// scanContainer brings the list of files of a container directory up to date.
func (t *Tail) scanContainer(podDir, name string) error {
	p, ok := parsePod(podDir)
	if !ok {
		return nil
	}
	dir := filepath.Join(t.cfg.Dir, podDir, name)
	infos, err := listing(dir)
	if err != nil {
		return fmt.Errorf("list logs %s: %w", dir, err)
	}
	c := t.containers[podDir+"/"+name]
	if c == nil && len(infos) > 0 {
		c = &container{account: t.ledger.open(podDir + "/" + name)}
		t.containers[podDir+"/"+name] = c
	}
	seen := map[*file]bool{}
	for _, info := range infos {
		number, rotated, _ := parseFile(info.Name())
		key := podDir + "/" + name + "/" + number
		a := t.attempts[key]
		if a == nil {
			a = &attempt{key: key, in: c}
			for side, output := range [2]string{record.Stdout, record.Stderr} {
				a.streams[side] = &record.Stream{Namespace: p.namespace, Pod: p.name, UID: p.uid, Container: name,
					Instance: number, Node: t.cfg.Node, Output: output, Kind: record.KindLog}
			}
			t.attempts[key] = a
			c.attempts = append(c.attempts, a)
		}
		path := filepath.Join(dir, info.Name())
		f := a.find(inodeOf(info))
		if f != nil && f.f == nil && f.moved && f.path != path {
			a.remove(f) // another file has its inode now
			f = nil
		}
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
		f.path, f.moved, f.missing, f.size, f.mtime = path, rotated != "", false, info.Size(), info.ModTime()
		seen[f] = true
	}
	if c != nil {
		c.markGone(seen)
	}
	return nil
}

// markGone looks for files that no listing has any more.
func (c *container) markGone(seen map[*file]bool) {
	for _, a := range c.attempts {
		for _, f := range a.files {
			f.gone = !seen[f] && f.removed()
		}
	}
}

// listing returns the log files of a directory as they were at one moment, sorted
// by name. Files may be renamed while it looks; then it looks again, since a
// file must not be read before the one that was written before it.
func listing(dir string) ([]fs.FileInfo, error) {
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

func (a *attempt) remove(f *file) {
	a.files = slices.DeleteFunc(a.files, func(have *file) bool { return have == f })
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
			t.lose(a, reasonGone)
		}
		t.shut(f)
		t.positions.Forget(a.key, f.inode)
	}
	a.files = keep
	if len(a.files) > 0 {
		return
	}
	delete(t.attempts, a.key)
	c := a.in
	c.attempts = slices.DeleteFunc(c.attempts, func(have *attempt) bool { return have == a })
	if len(c.attempts) == 0 {
		delete(t.containers, a.key[:strings.LastIndexByte(a.key, '/')])
		t.ledger.close(c.account, time.Now())
	}
}
