package assign

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/scrape"
	"perch/metrics/target"
)

// Config of a Desk.
type Config struct {
	Node   string        // of this machine; its part is taken by Jobs
	Every  time.Duration // planned anew at least so often: Secrets change unseen
	Soon   time.Duration // planned at most so often
	Hold   time.Duration // a request waits so long for a change
	Forget time.Duration // rows of a node that has not asked for so long are gone
	Rows   int           // of one node
	Bytes  int64         // of one request
}

// Default suits clusters of some hundred nodes.
func Default() Config {
	return Config{Every: 15 * time.Second, Soon: time.Second, Hold: 5 * time.Second, Forget: 2 * time.Minute, Rows: maxRows, Bytes: 8 << 20}
}

// Parts are the collaborators.
type Parts struct {
	World   func() target.World // from memory
	Objects func() []target.Object
	Known   func() bool                         // World and Objects are complete, asked until they are; nil: always
	NodeOf  func(*http.Request) (string, error) // who asks
}

// Desk plans and answers nodes.
type Desk struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	metrics *metrics
	stale   atomic.Bool

	mu    sync.Mutex
	plan  plan
	nodes map[string]rows
}

// plan is what is to be scraped by all nodes.
type plan struct {
	made bool // else nodes are told nothing, and keep what they have
	jobs []target.Job
	left []target.Dropped
	part map[string]part // by node, as far as asked for
	next chan struct{}   // closed when there is another plan
}

type part struct {
	mark string
	jobs []target.Job
}

type rows struct {
	list []scrape.Status
	left []target.Dropped
	more int // that are not told
	at   time.Time
}

// request is what a node sends, answer what it gets; Jobs is null while Mark is
// that of the request.
type request struct {
	Mark string           `json:"mark"`
	Here []scrape.Status  `json:"here"`
	Left []target.Dropped `json:"left"` // by the node itself: annotations

	Untold int `json:"untold"` // of both, for which there was no room
}

type answer struct {
	Mark string       `json:"mark"`
	Jobs []target.Job `json:"jobs"`
}

// NewDesk plans for the first time when it runs.
func NewDesk(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Desk, error) {
	if parts.World == nil || parts.Objects == nil || parts.NodeOf == nil || cfg.Node == "" || cfg.Every <= 0 || cfg.Soon <= 0 || cfg.Rows <= 0 || cfg.Bytes <= 0 {
		return nil, fmt.Errorf("build desk of targets: parts or limits are missing")
	}
	return &Desk{cfg: cfg, parts: parts, log: log, metrics: newMetrics(reg), nodes: map[string]rows{}, plan: plan{part: map[string]part{}, next: make(chan struct{})}}, nil
}

// Changed says that World or Objects may answer differently. It never blocks.
func (d *Desk) Changed() { d.stale.Store(true) }

// Run plans anew after changes until ctx ends. It begins when what it looks at is
// known: a plan of less would end series on all nodes at each start.
func (d *Desk) Run(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.Soon)
	defer tick.Stop()
	last := time.Time{}
	for {
		now := time.Now()
		if known := !last.IsZero() || d.parts.Known == nil || d.parts.Known(); known && (d.stale.Swap(false) || now.Sub(last) >= d.cfg.Every) {
			last = now
			d.planAnew(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *Desk) planAnew(now time.Time) {
	objects := d.parts.Objects()
	jobs, left := target.Plan(d.parts.World(), objects)
	targets := 0
	for _, j := range jobs {
		targets += len(j.Targets)
	}
	d.metrics.took.Observe(time.Since(now).Seconds())
	d.metrics.objects.Set(float64(len(objects)))
	d.metrics.targets.Set(float64(targets))
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.plan.next)
	d.plan = plan{made: true, jobs: jobs, left: left, part: map[string]part{}, next: make(chan struct{})}
	maps.DeleteFunc(d.nodes, func(_ string, r rows) bool { return now.Sub(r.at) > d.cfg.Forget })
	d.metrics.nodes.Set(float64(len(d.nodes)))
}

// Jobs are what the node of this machine scrapes, and what of all objects is left
// out and why.
func (d *Desk) Jobs() ([]target.Job, []target.Dropped) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.partOf(d.cfg.Node).jobs, d.plan.left
}

// partOf is the part of a node; the caller holds mu.
func (d *Desk) partOf(node string) part {
	p, known := d.plan.part[node]
	if !known {
		p.jobs = target.Of(node, d.plan.jobs)
		text, err := json.Marshal(p.jobs)
		if err != nil {
			panic("BUG: jobs are not JSON: " + err.Error())
		}
		sum := sha256.Sum256(text)
		p.mark = hex.EncodeToString(sum[:])
		d.plan.part[node] = p
	}
	return p
}

// Others are the targets of other nodes, and what these leave out, as they told
// it last.
func (d *Desk) Others() ([]scrape.Status, []target.Dropped) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []scrape.Status
	var left []target.Dropped
	for _, node := range slices.Sorted(maps.Keys(d.nodes)) {
		if node != d.cfg.Node {
			out, left = append(out, d.nodes[node].list...), append(left, d.nodes[node].left...)
			if n := d.nodes[node].more; n > 0 {
				left = append(left, target.Dropped{From: "node/" + node, Partly: true, Reason: fmt.Sprintf("%d more of its targets, or reasons why there are none, are not listed: they are too many or too long; they are scraped all the same", n)})
			}
		}
	}
	return out, left
}

// ServeHTTP takes a node's rows and answers with its part.
func (d *Desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	node, err := d.parts.NodeOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	var ask request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, d.cfg.Bytes)).Decode(&ask); err != nil {
		http.Error(w, "read targets of "+node+": "+err.Error(), http.StatusBadRequest)
		return
	}
	ask.Untold = max(0, ask.Untold)
	if more := len(ask.Here) - d.cfg.Rows; more > 0 {
		ask.Here, ask.Untold = ask.Here[:d.cfg.Rows], ask.Untold+more
	}
	if more := len(ask.Left) - d.cfg.Rows; more > 0 {
		ask.Left, ask.Untold = ask.Left[:d.cfg.Rows], ask.Untold+more
	}
	for i := range ask.Here {
		ask.Here[i].Node = node // it speaks for itself only
	}
	limit := time.NewTimer(d.cfg.Hold)
	defer limit.Stop()
	for waiting := true; ; {
		d.mu.Lock()
		d.nodes[node] = rows{ask.Here, ask.Left, ask.Untold, time.Now()}
		have, next, made := d.partOf(node), d.plan.next, d.plan.made
		d.mu.Unlock()
		if !made {
			have.mark = ask.Mark
		}
		if have.mark != ask.Mark || !waiting {
			out := answer{Mark: have.mark}
			if have.mark != ask.Mark {
				out.Jobs = have.jobs
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(out) // the node asks again otherwise
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-limit.C:
			waiting = false
		case <-next:
		}
	}
}
