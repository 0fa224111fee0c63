package tail

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

// ledger counts source lines of the node and of each container, as far as they
// are durable: read = stored + dropped, always and also after a restart. Counts
// are stored as positions, in the fsync of the lines they count.
//
// Run calls its methods, except those that gather metrics, which any goroutine
// may.
type ledger struct {
	limit     int           // containers that are counted by themselves
	linger    time.Duration // how long a container is counted after its files are gone
	positions Positions
	m         ledgerMetrics
	shown
	due []*account // to be stored with the batch

	mu         sync.Mutex // guards what follows, and of accounts what is said there
	node       account
	containers map[string]*account // by directory
	delays     delays
}

// account is how many source lines of a container, or of the node, were read
// and what became of them.
type account struct {
	dir    string // "<pod dir>/<container>"; empty: the node
	labels []string
	next   counts // when the batch is durable
	due    bool
	hidden bool // beyond the limit: only the node counts its lines

	// Guarded by the ledger's mu.
	now     counts    // durable
	gone    time.Time // since when it has no files
	sampled bool      // a sample was taken since then
}

type counts struct {
	read, stored int64
	dropped      [reasonCount]int64
}

func (c *counts) add(d counts) {
	c.read += d.read
	c.stored += d.stored
	for i, n := range d.dropped {
		c.dropped[i] += n
	}
}

// reason is why a source line is not stored. The numbers are stored: they never
// change.
type reason int

const (
	reasonFormat    reason = iota // an empty line, as a crash may leave it
	reasonGone                    // the file was removed before its end was read
	reasonTruncated               // the file became shorter; how many lines were lost nobody knows
	reasonCount
)

func (r reason) String() string { return [...]string{"format", "gone", "truncated"}[r] }

// ledgerFile begins the names under which counts are stored. Inode 0 has the
// lines read and stored, Inode 1+reason those dropped.
const ledgerFile = "ledger:"

func newLedger(cfg Config, positions Positions, reg prometheus.Registerer) *ledger {
	l := &ledger{limit: cfg.Ledgers, linger: cfg.Linger, positions: positions, m: newLedgerMetrics(reg),
		shown: newShown(), containers: map[string]*account{}, delays: newDelays()}
	l.restore(time.Now())
	reg.MustRegister(l)
	return l
}

// restore reads what is stored. Containers count as gone until open is called.
func (l *ledger) restore(now time.Time) {
	for _, p := range l.positions.Positions() {
		dir, ok := strings.CutPrefix(p.File, ledgerFile)
		if !ok || p.Inode > uint64(reasonCount) {
			continue
		}
		a := &l.node
		if dir != "" {
			if a = l.containers[dir]; a == nil {
				a = newAccount(dir)
				a.gone = now
				l.containers[dir] = a
			}
		}
		if p.Inode == 0 {
			a.now.read, a.now.stored = p.Stdout, p.Stderr
		} else {
			a.now.dropped[p.Inode-1] = p.Stdout
		}
		a.next = a.now
	}
}

func newAccount(dir string) *account {
	podDir, container, _ := strings.Cut(dir, "/")
	p, _ := parsePod(podDir) // all are empty if it is none
	return &account{dir: dir, labels: []string{p.namespace, p.name, container}}
}

// open returns the account of a container that has files.
func (l *ledger) open(dir string) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.containers[dir]
	if a == nil {
		a = newAccount(dir)
		if len(l.containers) >= l.limit && !l.makeRoom() {
			a.hidden = true
			l.m.refused.Inc()
			return a
		}
		l.containers[dir] = a
	}
	a.gone = time.Time{}
	return a
}

// close notes that a container has no files any more.
func (l *ledger) close(a *account, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.gone, a.sampled = now, false
}

// makeRoom lets the counts go of the container that is gone for longest, sooner
// than they should. Called with mu held.
func (l *ledger) makeRoom() bool {
	var oldest *account
	for _, a := range l.containers {
		if !a.gone.IsZero() && (oldest == nil || a.gone.Before(oldest.gone)) {
			oldest = a
		}
	}
	if oldest == nil {
		return false
	}
	if !oldest.sampled {
		l.m.unsampled.Inc()
	}
	l.letGo(oldest)
	return true
}

// letGone lets the counts go of containers that are gone, after their last
// sample. The node's have their lines in them for good.
func (l *ledger) letGone(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.containers {
		if !a.gone.IsZero() && a.sampled && now.Sub(a.gone) >= l.linger {
			l.letGo(a)
		}
	}
	l.m.containers.Set(float64(len(l.containers)))
}

func (l *ledger) letGo(a *account) {
	delete(l.containers, a.dir)
	a.hidden = true
	for i := range uint64(reasonCount) + 1 {
		l.positions.Forget(ledgerFile+a.dir, i)
	}
}

// book adds counts that become durable with the next batch.
func (l *ledger) book(a *account, c counts) {
	for _, a := range []*account{a, &l.node} {
		a.next.add(c)
		if !a.due {
			a.due = true
			l.due = append(l.due, a)
		}
	}
}

// entries adds what is to be stored with the batch to positions.
func (l *ledger) entries(positions []record.Position) []record.Position {
	for _, a := range l.due {
		if a.hidden {
			continue
		}
		file := ledgerFile + a.dir
		positions = append(positions, record.Position{File: file, Stdout: a.next.read, Stderr: a.next.stored})
		for r, n := range a.next.dropped {
			if n != a.now.dropped[r] {
				positions = append(positions, record.Position{File: file, Inode: 1 + uint64(r), Stdout: n})
			}
		}
	}
	return positions
}

// commit makes what was booked visible: it is durable.
func (l *ledger) commit(now time.Time, records []record.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.due {
		a.now, a.due = a.next, false
	}
	l.due = l.due[:0]
	l.delays.add(now.UnixNano(), records)
}
