package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"perch/logs/store"
)

// link is the way to one follower and what is known to be there.
type link struct {
	s  *Shipper
	to Member

	known
	sum      uint32 // of the checkpoint of the last commit
	at       time.Time
	readable bool // a commit was acknowledged
	whole    bool
	pending  int64
	failed   error
	again    time.Time     // not before
	wait     time.Duration // after the next failure
}

func newLink(s *Shipper, to Member) *link { return &link{s: s, to: to} }

// Waits after failures.
const (
	waitFirst = time.Second
	waitMost  = 15 * time.Second
	askLimit  = 10 * time.Second
)

// ship sends once what is missing of files, which were listed at that time.
func (l *link) ship(ctx context.Context, files store.Files, at time.Time) {
	reason, err := l.try(ctx, files, at)
	if err == nil || ctx.Err() != nil {
		if l.failed != nil && err == nil {
			l.s.log.Info("follower answers again", "node", l.to.Node)
		}
		l.failed, l.wait = nil, 0
		return
	}
	if errors.Is(err, fs.ErrNotExist) { // removed or replaced since it was listed
		l.pending = 0
		return
	}
	l.s.m.failures.WithLabelValues(reason).Inc()
	if l.failed == nil {
		l.s.log.Warn("log copy was not sent", "node", l.to.Node, "err", err)
	}
	l.failed, l.have = err, nil
	l.wait = min(max(2*l.wait, waitFirst), waitMost)
	l.again = time.Now().Add(l.wait)
}

func (l *link) try(ctx context.Context, files store.Files, at time.Time) (reason string, err error) {
	if l.have == nil {
		if err := l.ask(ctx, files); err != nil {
			return "ask", err
		}
	}
	p := decideShipment(files, l.known, l.budget())
	l.pending = p.pending
	body := newShipment(l.s.cfg.Dir, l.s.cfg.Rate)
	defer body.close()
	mark := frame{kind: frameMark, offset: at.UnixNano()}
	if p.logFirst {
		err = errors.Join(body.add(p.log), body.frame(mark), body.add(p.parts))
	} else {
		err = errors.Join(body.add(p.parts), body.add(p.log))
	}
	var c commit
	sum := crc32.Checksum(files.Checkpoint, castagnoli())
	// A commit without news is only a mark.
	commits := p.commit && (!l.readable || sum != l.sum || p.from != l.from || !sameFiles(p.files, l.seen))
	if commits {
		c = commit{At: at, From: p.from, Keep: l.s.cfg.Keep(), Files: p.files, Coming: p.coming, Checkpoint: files.Checkpoint}
		text, jsonErr := json.Marshal(c)
		if jsonErr != nil {
			panic("BUG: commit: " + jsonErr.Error())
		}
		err = errors.Join(err, body.frame(frame{kind: frameCommit, body: text}))
	}
	err = errors.Join(err, body.add(p.older))
	if err != nil {
		return "read", err
	}
	if body.size == 0 && !commits && at.Sub(l.at) < l.s.cfg.Idle {
		l.whole = p.whole
		return "", nil
	}
	got, status, err := l.post(ctx, body)
	if err != nil {
		return reasonOf(status), err
	}
	l.s.m.sent.Add(float64(body.size))
	for _, sends := range [][]send{p.log, p.parts, p.older} {
		for _, x := range sends {
			l.have[keyFor(x.file)] = x.file.Size
			l.pending -= x.file.Size - x.from
		}
	}
	l.floor = got.Floor
	if commits {
		l.readable, l.committed, l.seen, l.from, l.sum = true, true, c.Files, c.From, sum
		l.clean(c)
	}
	if l.readable && (p.logFirst || commits) {
		l.at = at
	}
	l.whole = p.whole && l.readable
	return "", nil
}

// clean forgets files that the follower removed with a commit.
func (l *link) clean(c commit) {
	keep := map[fileKey]bool{}
	for _, files := range [][]store.File{c.Files, c.Coming} {
		for _, f := range files {
			keep[keyFor(f)] = true
		}
	}
	for k := range l.have {
		if !keep[k] {
			delete(l.have, k)
		}
	}
}

func sameFiles(a, b []store.File) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// budget is how many bytes of partitions one shipment may have.
func (l *link) budget() int64 {
	return max(maxData, int64(float64(l.s.cfg.Rate)*l.s.cfg.Every.Seconds()))
}

// ask finds out what the follower has, and what of it is as here.
func (l *link) ask(ctx context.Context, files store.Files) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.s.url(l.to), nil)
	if err != nil {
		return err
	}
	resp, err := l.s.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s for its copy: %w", l.to.Node, err)
	}
	defer resp.Body.Close() // read only
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s for its copy: %w", l.to.Node, refusal(resp))
	}
	var there State
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxCommit)).Decode(&there); err != nil {
		return fmt.Errorf("ask %s for its copy: %w", l.to.Node, err)
	}
	sizes := map[fileKey]int64{}
	for _, f := range files.Segments {
		sizes[keyFor(f)] = f.Size
	}
	for _, p := range files.Parts {
		for _, f := range p.Files {
			sizes[keyFor(f)] = f.Size
		}
	}
	l.known = known{have: map[fileKey]int64{}, committed: !there.At.IsZero(), from: there.From, floor: there.Floor}
	l.readable, l.sum = false, 0
	for _, f := range there.Files {
		size, listed := sizes[keyFor(f.File)]
		tail, err := tailSum(filepath.Join(l.s.cfg.Dir, filepath.FromSlash(f.Path)), f.Size)
		same := listed && f.Size <= size && err == nil && tail == f.Tail
		switch {
		case same:
			l.have[keyFor(f.File)] = f.Size
		case listed && f.Committed:
			l.s.log.Warn("file of the copy is not as here, sending it anew", "node", l.to.Node, "path", f.Path)
		}
		if f.Committed {
			l.seen = append(l.seen, f.File)
		}
	}
	return nil
}

// post sends a shipment.
func (l *link) post(ctx context.Context, body *shipment) (State, int, error) {
	// Besides the bytes at their rate there are fsyncs, and an opening to wait for.
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second+2*time.Duration(float64(body.size)/float64(l.s.cfg.Rate)*float64(time.Second)))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.s.url(l.to), body)
	if err != nil {
		return State{}, 0, err
	}
	req.ContentLength = body.total
	resp, err := l.s.client.Do(req)
	if err != nil {
		return State{}, 0, fmt.Errorf("send copy to %s: %w", l.to.Node, err)
	}
	defer resp.Body.Close() // read only
	if resp.StatusCode != http.StatusOK {
		return State{}, resp.StatusCode, fmt.Errorf("send copy to %s: %w", l.to.Node, refusal(resp))
	}
	var got State
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxData)).Decode(&got); err != nil {
		return State{}, 0, fmt.Errorf("send copy to %s: %w", l.to.Node, err)
	}
	return got, resp.StatusCode, nil
}

func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only for the message
	return fmt.Errorf("status %d: %s", resp.StatusCode, text)
}

func reasonOf(status int) string {
	switch status {
	case 0:
		return "network"
	case http.StatusInsufficientStorage:
		return "full"
	case http.StatusConflict:
		return "mismatch"
	}
	return "refused"
}

// shipment is the body of a request: frames, made from files as they are read.
type shipment struct {
	dir   string
	rate  int64
	size  int64 // bytes of files
	total int64 // bytes of all frames

	mu    sync.Mutex // guards what follows: the transport may read on when the answer is there
	items []item
	begun time.Time
	moved int64
	chunk []byte // of the frame at hand
	rest  []byte // of chunk, or of a head
	body  []byte // after rest
}

// item is a frame, or a part of a file as frames.
type item struct {
	frame
	file *os.File
	upto int64
}

func newShipment(dir string, rate int64) *shipment { return &shipment{dir: dir, rate: rate} }

const chunkBytes = 256 << 10

// add opens files to be read: they stay readable when they are removed.
func (b *shipment) add(sends []send) error {
	for _, x := range sends {
		f, err := os.Open(filepath.Join(b.dir, filepath.FromSlash(x.file.Path)))
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if sys, ok := info.Sys().(*syscall.Stat_t); err != nil || !ok || sys.Ino != x.file.Inode {
			return errors.Join(err, f.Close(), fmt.Errorf("%s is another file now: %w", x.file.Path, fs.ErrNotExist))
		}
		b.items = append(b.items, item{frame{kind: frameData, path: x.file.Path, version: x.file.Version, offset: x.from}, f, x.file.Size})
		n := x.file.Size - x.from
		b.size += n
		b.total += n + (n+chunkBytes-1)/chunkBytes*int64(frameBytes+len(x.file.Path)+len(x.file.Version))
	}
	return nil
}

func (b *shipment) frame(f frame) error {
	b.items = append(b.items, item{frame: f})
	b.total += int64(frameBytes + len(f.path) + len(f.version) + len(f.body))
	return nil
}

// Read gives the next bytes, no faster than rate.
func (b *shipment) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.rest) == 0 {
		if len(b.body) > 0 {
			b.rest, b.body = b.body, nil
			break
		}
		if len(b.items) == 0 {
			return 0, io.EOF
		}
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *shipment) next() error {
	x := &b.items[0]
	if x.file == nil {
		b.rest, b.body = x.appendHead(nil), x.frame.body
		b.items = b.items[1:]
		return nil
	}
	b.pace()
	if b.chunk == nil {
		b.chunk = make([]byte, chunkBytes)
	}
	n := min(int64(len(b.chunk)), x.upto-x.offset)
	if _, err := x.file.ReadAt(b.chunk[:n], x.offset); err != nil {
		return fmt.Errorf("read %s: %w", x.path, err)
	}
	f := x.frame
	f.body = b.chunk[:n]
	b.rest, b.body = f.appendHead(nil), f.body
	b.moved += n
	x.offset += n
	if x.offset == x.upto {
		_ = x.file.Close() // read only
		b.items = b.items[1:]
	}
	return nil
}

// pace waits while more was sent than rate allows.
func (b *shipment) pace() {
	if b.begun.IsZero() {
		b.begun = time.Now()
	}
	ahead := time.Duration(float64(b.moved)/float64(b.rate)*float64(time.Second)) - time.Since(b.begun)
	if ahead > 10*time.Millisecond {
		time.Sleep(ahead)
	}
}

// Close ends reading; the transport calls it when it has read enough.
func (b *shipment) Close() error { return nil }

func (b *shipment) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range b.items {
		if x.file != nil {
			_ = x.file.Close() // read only
		}
	}
	b.items, b.rest, b.body = nil, nil, nil
}
