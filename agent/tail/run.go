package tail

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"perch/logs/record"
)

// Config says what to follow.
type Config struct {
	Dir  string // D/podlogs
	Node string // name of this node, for records
	Poll time.Duration
	// Settle is how long notifications are gathered before files are read.
	Settle time.Duration
	// Finish is how long a file must rest before a line that was only begun is
	// taken as whole.
	Finish time.Duration
	// Traces joins the lines of stack traces into one record. Hold is how long a
	// line that may begin one waits for the next.
	Traces bool
	Hold   time.Duration
	// OpenFiles is how many log files are open at most; the others are opened
	// when something is written to them.
	OpenFiles int
	// Ledgers is how many containers are counted by themselves. Linger is how long
	// one is counted after its files are gone.
	Ledgers int
	Linger  time.Duration
	// Booted is when the machine started: a file that was not written since may be
	// shorter than it was when its lines were stored.
	Booted time.Time
}

// Default returns the configuration for a node.
func Default(dir, node string) Config {
	return Config{Dir: dir, Node: node, Poll: 2 * time.Second, Settle: 30 * time.Millisecond, Finish: 10 * time.Second, Traces: true, Hold: 100 * time.Millisecond,
		OpenFiles: 1024, Ledgers: 2000, Linger: time.Minute, Booted: booted()}
}

// booted is when the machine started, by the clock of now; zero if that is not known.
func booted() time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up.Nano()))
}

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("tail directory is empty"))
	}
	if c.Node == "" {
		errs = append(errs, errors.New("tail node name is empty"))
	}
	if c.Poll <= 0 || c.Settle <= 0 || c.Finish <= 0 || c.Hold <= 0 {
		errs = append(errs, errors.New("tail intervals must be more than 0"))
	}
	if c.OpenFiles < 1 || c.Ledgers < 0 || c.Linger < 0 {
		errs = append(errs, errors.New("tail limits must not be less than 0, and 1 file must be open"))
	}
	return errors.Join(errs...)
}

// Sink makes records and positions durable together and returns then. It copies
// what it keeps. An error means that nothing was stored; Tail tries again.
type Sink func(ctx context.Context, records []record.Record, positions []record.Position) error

// Positions is what the store remembers of files, and of counts under names that
// begin with "ledger:". What others keep there is left alone. Methods may be
// called from any goroutine.
type Positions interface {
	Position(file string, inode uint64) (record.Position, bool)
	Positions() []record.Position
	Forget(file string, inode uint64)
}

// Tail follows log files. Make it with New.
type Tail struct {
	cfg       Config
	positions Positions
	sink      Sink
	log       *slog.Logger
	m         *metrics
	ledger    *ledger
	leaves    chan leave

	// What follows belongs to Run.
	watch      *watcher
	containers map[string]*container // by "<pod dir>/<container>"
	attempts   map[string]*attempt
	losses     []loss     // not booked yet
	changed    []*attempt // something of them is in the batch
	handles    list.List  // of open *file, the one used last in front
	batch      batch
	buf        []byte
	warned     bool
	missed     bool // the last look at everything left something out
	forgot     bool // positions of files that are gone are forgotten
}

// New checks the configuration and makes the directory if need be.
func New(cfg Config, positions Positions, sink Sink, log *slog.Logger, reg prometheus.Registerer) (*Tail, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	return &Tail{cfg: cfg, positions: positions, sink: sink, log: log, m: newMetrics(cfg, reg), ledger: newLedger(cfg, positions, reg),
		leaves: make(chan leave), containers: map[string]*container{}, attempts: map[string]*attempt{}}, nil
}

// Run follows files until ctx ends. What was read but not stored then is read
// again next time.
func (t *Tail) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan []event)
	watching := make(chan struct{})
	w, err := newWatcher(t.cfg.Dir)
	if err != nil {
		t.log.Warn("watching is not possible, logs are polled", "err", err)
		close(watching)
	} else {
		t.watch = w
		go func() {
			defer close(watching)
			w.run(ctx, events)
		}()
	}
	defer func() {
		cancel()
		if w != nil {
			_ = w.f.Close() // ends the goroutine
		}
		<-watching
		for e := t.handles.Front(); e != nil; e = t.handles.Front() {
			t.shut(e.Value.(*file))
		}
		t.containers, t.attempts = map[string]*container{}, map[string]*attempt{}
		t.watch = nil
	}()
	t.scanAll()
	more := t.work(ctx)
	t.forgetOld()
	poll := time.NewTicker(t.cfg.Poll)
	defer poll.Stop()
	settle := time.NewTimer(t.cfg.Settle)
	defer settle.Stop()
	hold := time.NewTimer(t.cfg.Hold)
	defer hold.Stop()
	ready := make(chan struct{})
	close(ready)
	for {
		var unread <-chan struct{}
		if more {
			unread = ready
		}
		select {
		case <-ctx.Done():
			return nil
		case <-unread:
		case <-poll.C:
			t.scanAll()
			t.forgetOld()
			t.finishOld(time.Now())
			t.ledger.letGone(time.Now())
		case e := <-events:
			t.scanChanged(e)
		case <-hold.C:
		case l := <-t.leaves:
			t.leave(l, false)
		}
		more = t.work(ctx)
		if t.finishHeld(time.Now()) { // what is still held is looked at again
			hold.Reset(t.cfg.Hold)
		}
		if !t.flush(ctx) {
			return nil
		}
		t.measure()
		if more {
			continue
		}
		settle.Reset(t.cfg.Settle)
		select { // more happens meanwhile and is read at once
		case <-ctx.Done():
			return nil
		case l := <-t.leaves:
			t.leave(l, false)
		case <-settle.C:
		}
	}
}

// scanAll looks at everything.
func (t *Tail) scanAll() {
	t.missed = false
	t.tell(t.follow(""))
	pods, err := os.ReadDir(t.cfg.Dir)
	t.tell(err)
	seen := map[string]bool{}
	for _, p := range pods {
		if _, ok := parsePod(p.Name()); ok && p.IsDir() {
			t.scanPod(p.Name(), seen)
		}
	}
	for dir, c := range t.containers { // whole directories may be gone
		if seen[dir] {
			continue
		}
		if _, err := os.Lstat(filepath.Join(t.cfg.Dir, dir)); errors.Is(err, fs.ErrNotExist) {
			c.markGone(nil)
		}
	}
}

func (t *Tail) scanPod(podDir string, seen map[string]bool) {
	t.tell(t.follow(podDir))
	containers, err := os.ReadDir(filepath.Join(t.cfg.Dir, podDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.tell(err)
	}
	for _, c := range containers {
		if c.IsDir() {
			dir := podDir + "/" + c.Name()
			seen[dir] = true
			t.tell(t.follow(dir))
			t.tell(t.scanContainer(podDir, c.Name()))
		}
	}
}

func (t *Tail) scanChanged(events []event) {
	dirs := map[string]struct{}{}
	for _, e := range events {
		if e.mask&unix.IN_Q_OVERFLOW != 0 {
			t.m.rescanned.Inc()
			t.watch.anew() // also which watches ended may be lost
			t.scanAll()
			return
		}
		if dir, ok := t.watch.name(e); ok {
			dirs[dir] = struct{}{}
		}
	}
	seen := map[string]bool{}
	for dir := range dirs {
		if podDir, container, ok := containerDir(dir); ok {
			t.tell(t.scanContainer(podDir, container))
		} else if dir != "" {
			t.scanPod(dir, seen)
		} else {
			t.scanAll()
			return
		}
	}
}

func (t *Tail) follow(dir string) error {
	if t.watch == nil {
		return nil
	}
	if err := t.watch.add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		if !t.warned { // polling goes on
			t.warned = true
			return err
		}
	}
	return nil
}

func (t *Tail) tell(err error) {
	if err != nil {
		t.missed = true
		t.log.Warn("logs were not read, trying again", "err", err)
	}
}

// turnBatches is how much of one attempt is read before it is the next one's
// turn, so that a container that never rests does not keep others waiting.
const turnBatches = 4

// work reads what there is and stores it, a turn for each attempt. It tells
// whether there is more to read at once.
func (t *Tail) work(ctx context.Context) (more bool) {
	for _, a := range t.attempts {
		retire := false
		turn := turnBatches
		for i, f := range a.files {
			if i+1 < len(a.files) && !f.ended && a.files[i+1].size > 0 { // nobody writes to this one any more
				if size, err := f.look(); err == nil { // the size known may be from before it was rotated
					f.size, f.ended = size, true
				}
			}
			end := f.size == f.read && !f.gone || f.gone && f.f == nil
			for !end && ctx.Err() == nil {
				if turn == 0 {
					more = true
					break
				}
				turn--
				var err error
				if end, err = t.readMore(f); err != nil {
					t.tell(err)
					break
				}
				if t.batch.full() && !t.flush(ctx) {
					return false
				}
			}
			if !end {
				break // later files wait for this one
			}
			retire = retire || f.gone
		}
		if retire {
			for side := range a.open { // nobody will finish a line of an attempt that is gone
				if a.open[side].active && a.last().gone {
					t.finish(a, side)
				}
			}
			if !t.flush(ctx) {
				return false
			}
			t.retire(a)
		}
	}
	return t.flush(ctx) && more
}

func (a *attempt) last() *file { return a.files[len(a.files)-1] }

// flush hands the batch to the sink until it is taken. It returns false when ctx
// ended before.
func (t *Tail) flush(ctx context.Context) bool {
	var positions []record.Position
	for _, a := range t.changed {
		for _, f := range a.files {
			if f.batch && f.print != 0 {
				positions = append(positions, f.position())
			}
		}
		t.ledger.book(a.in.account, a.settle())
	}
	t.bookLosses()
	positions = t.ledger.entries(positions)
	if len(t.batch.records) == 0 && len(positions) == 0 {
		return true
	}
	wait := 50 * time.Millisecond
	for {
		err := t.sink(ctx, t.batch.records, positions)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		t.m.refused.Inc()
		if wait > time.Second {
			t.log.Warn("lines were refused, trying again", "count", len(t.batch.records), "err", err)
		}
		timer := time.NewTimer(wait)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return false
			case l := <-t.leaves:
				t.leave(l, true)
			case <-timer.C:
				waiting = false
			}
		}
		wait = min(wait*2, 2*time.Second)
	}
	t.ledger.commit(time.Now(), t.batch.records)
	t.batch.reset()
	for _, a := range t.changed {
		a.changed = false
		for _, f := range a.files {
			f.batch = false
		}
	}
	clear(t.changed)
	t.changed = t.changed[:0]
	return true
}

// finishOld takes lines as whole that nobody goes on writing.
func (t *Tail) finishOld(now time.Time) {
	for _, a := range t.attempts {
		for side := range a.open {
			if f := a.last(); a.open[side].active && f.read == f.size && now.Sub(f.mtime) > t.cfg.Finish {
				t.finish(a, side)
			}
		}
	}
}

// finishHeld takes traces as whole that nothing was added to for a while, and
// lines without their end when their container has ended. It tells whether
// others wait.
func (t *Tail) finishHeld(now time.Time) (waiting bool) {
	for _, a := range t.attempts {
		for side := range a.open {
			j := &a.open[side]
			if !j.active || len(a.files) == 0 {
				continue
			}
			f := a.last()
			size, err := f.look()
			if err != nil {
				continue // finishOld takes it
			}
			unread := size > f.read
			rested := now.Sub(j.since)
			switch {
			case j.trace != noTrace && rested >= t.cfg.Hold && (!unread || rested >= t.cfg.Finish),
				j.trace == noTrace && !unread && !f.moved && t.closed(f):
				t.finish(a, side)
			default:
				waiting = waiting || j.trace != noTrace || unread
			}
		}
	}
	return waiting
}

// forgetOld drops positions of files that no longer exist, once, after a look
// that missed nothing: a file that was being renamed is not gone.
func (t *Tail) forgetOld() {
	if t.missed || t.forgot {
		return
	}
	t.forgot = true
	for _, p := range t.positions.Positions() {
		if a := t.attempts[p.File]; isAttempt(p.File) && (a == nil || a.find(p.Inode) == nil) {
			t.positions.Forget(p.File, p.Inode)
		}
	}
}

func (t *Tail) measure() {
	files, unread := 0, int64(0)
	for _, a := range t.attempts {
		for _, f := range a.files {
			files++
			unread += f.size - f.read
		}
	}
	t.m.files.Set(float64(files))
	t.m.open.Set(float64(t.handles.Len()))
	t.m.lag.Set(float64(unread))
}
