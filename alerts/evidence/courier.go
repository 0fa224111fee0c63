package evidence

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Alert is one state of one alert, the same unnamed shape as the router's.
type Alert struct {
	Labels, Annotations map[string]string
	Starts, Ends        time.Time // Ends in the future: it is firing
	Guessed             bool      // nobody said when it ends: Ends holds until it is told again
	Source              string
}

// Line is one log line or event.
type Line struct {
	Time time.Time
	Text string
}

// Value is one series' value.
type Value struct {
	Labels map[string]string
	Value  float64
}

// Sources answer what is looked up.
type Sources struct {
	Lines  func(ctx context.Context, query string, from, to time.Time, limit int) ([]Line, error) // the newest, oldest first
	Values func(ctx context.Context, expr string, at time.Time) ([]Value, error)
}

// Transition is the beginning or the end of an alert.
type Transition struct {
	Alert
	Firing bool
	At     time.Time
}

// Config of the courier.
type Config struct {
	Page  *url.URL
	Queue int           // batches of one evaluation that wait; a full queue holds up the rules
	Look  time.Duration // for the lookups of one batch
	Batch int           // alerts of one batch that are looked up; the others go without
	Known int           // alerts remembered; more go without
	Posts int           // Deliver calls at a time; more wait, so that those of rules go first
}

// Default leaves the promise of two seconds from crash to webhook room.
func Default(page *url.URL) Config {
	return Config{Page: page, Queue: 256, Look: 400 * time.Millisecond, Batch: 16, Known: 10_000, Posts: 4}
}

// Courier adds evidence and hands alerts on.
type Courier struct {
	cfg     Config
	from    Sources
	deliver func(context.Context, ...Alert) error
	note    func(context.Context, Transition)
	log     *slog.Logger
	queue   chan batch
	posts   chan struct{} // a place for each call of Deliver

	seconds prometheus.Histogram
	without *prometheus.CounterVec

	known map[string]told // what fires, by labels; Run's own
}

// batch are alerts of one evaluation or one request.
type batch struct {
	alerts []Alert
	done   chan<- error // capacity 1; nil: nobody waits
}

// told is an alert as it was told last.
type told struct {
	Alert
	evidence map[string]string
}

// sweep is how often alerts are looked for that are not told any more: those of a
// rule that is gone, or that ended while nobody ran.
const sweep = 15 * time.Second

// New makes a courier. before are alerts that fired when the process before
// ended: they are no beginnings. deliver takes alerts in order; note is told of
// each beginning and end.
func New(cfg Config, from Sources, before []Alert, deliver func(context.Context, ...Alert) error, note func(context.Context, Transition), log *slog.Logger, reg prometheus.Registerer) *Courier {
	c := &Courier{cfg: cfg, from: from, deliver: deliver, note: note, log: log, queue: make(chan batch, cfg.Queue), posts: make(chan struct{}, cfg.Posts), known: map[string]told{},
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_evidence_seconds", Help: "Time to look up what belongs to new alerts.", Buckets: []float64{0.01, 0.03, 0.1, 0.2, 0.4}}),
		without: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_evidence_left_out_total", Help: "Alerts that went out without evidence: busy (too many at once), known (too many fire)."}, []string{"reason"})}
	reg.MustRegister(c.seconds, c.without)
	for _, a := range before {
		if a.Ends.After(time.Now()) {
			evidence := map[string]string{}
			for k, v := range a.Annotations {
				if strings.HasPrefix(k, "perch_") {
					evidence[k] = v
				}
			}
			c.known[key(a)] = told{a, evidence}
		}
	}
	return c
}

// Send queues alerts of one evaluation. It blocks while the queue is full.
func (c *Courier) Send(ctx context.Context, alerts ...Alert) error {
	return c.put(ctx, batch{alerts: alerts})
}

func (c *Courier) put(ctx context.Context, b batch) error {
	select {
	case c.queue <- b:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("queue alerts: %w", ctx.Err())
	}
}

// Deliver is Send for alerts that somebody else tells: it returns when they are
// handed on, or why they were not.
func (c *Courier) Deliver(ctx context.Context, alerts ...Alert) error {
	select {
	case c.posts <- struct{}{}:
		defer func() { <-c.posts }()
	case <-ctx.Done():
		return fmt.Errorf("queue alerts: %w", ctx.Err())
	}
	done := make(chan error, 1)
	if err := c.put(ctx, batch{alerts, done}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("hand on alerts: %w", ctx.Err())
	}
}

// Run hands alerts on until ctx ends; what is queued then is handed on without
// evidence.
func (c *Courier) Run(ctx context.Context) error {
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.end(ctx, time.Now())
		case <-ctx.Done():
			for {
				select {
				case b := <-c.queue:
					c.handOn(context.WithoutCancel(ctx), b, false)
				default:
					return nil
				}
			}
		case b := <-c.queue:
			c.handOn(ctx, b, len(c.queue) < c.cfg.Queue/4)
		}
	}
}

// end notes the end of alerts that were not told again in time; so the router takes
// it too.
func (c *Courier) end(ctx context.Context, now time.Time) {
	for k, t := range c.known {
		if !t.Ends.After(now) {
			delete(c.known, k)
			c.note(ctx, Transition{t.Alert, false, t.Ends})
		}
	}
}

func (c *Courier) handOn(ctx context.Context, b batch, look bool) {
	now, batch := time.Now(), b.alerts
	c.end(ctx, now)
	var fresh []int
	for i, a := range batch {
		k := key(a)
		if _, known := c.known[k]; a.Ends.After(now) && !known {
			fresh = append(fresh, i)
		}
	}
	found := make([]map[string]string, len(batch))
	if len(fresh) > 0 {
		within, cancel := context.WithTimeout(ctx, c.cfg.Look)
		var all sync.WaitGroup
		for n, i := range fresh {
			p := ask(batch[i].Labels)
			found[i] = links(c.cfg.Page, p, batch[i].Starts)
			if !look || n >= c.cfg.Batch {
				c.without.WithLabelValues("busy").Inc()
				continue
			}
			all.Go(func() { maps.Copy(found[i], c.lookUp(within, p, now)) })
		}
		all.Wait()
		cancel()
		c.seconds.Observe(time.Since(now).Seconds())
	}
	out := make([]Alert, len(batch))
	var turns []Transition
	for i, a := range batch {
		k := key(a)
		firing := a.Ends.After(now)
		was, known := c.known[k]
		evidence := was.evidence
		switch {
		case firing && known:
			c.known[k] = told{a.after(was.Alert, now), evidence}
		case firing && !known:
			evidence = found[i]
			if len(c.known) < c.cfg.Known {
				c.known[k] = told{a, evidence}
				turns = append(turns, Transition{a, true, a.Starts})
			} else {
				c.without.WithLabelValues("known").Inc()
			}
		case !firing && known:
			delete(c.known, k)
			turns = append(turns, Transition{a.after(was.Alert, now), false, a.Ends})
		}
		out[i] = a
		out[i].Annotations = maps.Clone(a.Annotations)
		if out[i].Annotations == nil {
			out[i].Annotations = map[string]string{}
		}
		maps.Copy(out[i].Annotations, evidence)
	}
	err := c.deliver(ctx, out...)
	switch {
	case b.done != nil:
		b.done <- err
	case err != nil:
		c.log.Warn("alerts were not taken, their next evaluation sends them again", "count", len(out), "err", err)
	}
	for _, t := range turns {
		c.note(ctx, t)
	}
}

// after is what the router makes of a when was is known: the earlier beginning, and
// while it fires the later end, if somebody said it.
func (a Alert) after(was Alert, now time.Time) Alert {
	if was.Starts.Before(a.Starts) {
		a.Starts = was.Starts
	}
	if was.Ends.After(a.Ends) && a.Ends.After(now) && !was.Guessed {
		a.Ends, a.Guessed = was.Ends, false
	}
	return a
}

// lookUp asks everything at once.
func (c *Courier) lookUp(ctx context.Context, p plan, now time.Time) map[string]string {
	out := map[string]string{}
	var mu sync.Mutex
	var missing []string
	put := func(note, text string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			missing = append(missing, strings.TrimPrefix(note, "perch_")+": "+err.Error())
		} else if text != "" {
			out[note] = text
		}
	}
	lines := func(note, query string, back time.Duration, count, size int) {
		if query == "" {
			return
		}
		got, err := c.from.Lines(ctx, query, now.Add(-back), now, count)
		put(note, joined(got, size), err)
	}
	var all sync.WaitGroup
	all.Go(func() { lines(noteLines, p.lines, 15*time.Minute, linesCount, linesSize) })
	all.Go(func() { lines(noteEvents, p.events, time.Hour, eventsCount, eventsSize) })
	all.Go(func() {
		query := p.changes
		if p.owner != "" {
			owner, err := c.ownerOf(ctx, p.owner, now)
			if err != nil {
				put(noteChanges, "", err)
				return
			}
			if owner.name != "" {
				query = "(" + query + ") or (" + owner.changes() + ") or (" + owner.events() + ")"
			}
		}
		lines(noteChanges, query, 24*time.Hour, changesCount, changesSize)
	})
	all.Go(func() {
		var say []string
		for _, m := range p.values {
			got, err := c.from.Values(ctx, m.expr, now)
			if err != nil {
				put(noteValues, "", err)
				return
			}
			if len(got) > 0 {
				say = append(say, m.name+" "+amount(got[0].Value, m.unit))
			}
		}
		put(noteValues, cut(strings.Join(say, ", "), valuesSize), nil)
	})
	all.Wait()
	if len(missing) > 0 {
		slices.Sort(missing)
		out[noteMissing] = cut(strings.Join(missing, "; "), missingSize)
	}
	return out
}

// ownerOf is what made a pod: the Deployment, when a ReplicaSet stands between, and
// the CronJob, when a Job does. Empty: nobody.
func (c *Courier) ownerOf(ctx context.Context, expr string, now time.Time) (object, error) {
	got, err := c.from.Values(ctx, expr, now)
	if err != nil || len(got) == 0 {
		return object{}, err
	}
	l := got[0].Labels
	o := object{l["namespace"], l["owner_kind"], l["owner_name"]}
	if o.kind == "" || strings.HasPrefix(o.kind, "<") {
		return object{}, nil
	}
	if above := map[string]string{"ReplicaSet": `kube_replicaset_owner{job="kube-state-metrics",namespace=%q,replicaset=%q}`, "Job": `kube_job_owner{job="kube-state-metrics",namespace=%q,job_name=%q}`}[o.kind]; above != "" {
		up, err := c.from.Values(ctx, fmt.Sprintf(above, o.ns, o.name), now)
		if err != nil {
			return object{}, err
		}
		if len(up) > 0 && up[0].Labels["owner_kind"] != "" && !strings.HasPrefix(up[0].Labels["owner_kind"], "<") {
			o.kind, o.name = up[0].Labels["owner_kind"], up[0].Labels["owner_name"]
		}
	}
	return o, nil
}

// key is the same for alerts with the same labels.
func key(a Alert) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
		if v := a.Labels[k]; v != "" {
			b.WriteString(k)
			b.WriteByte(0)
			b.WriteString(v)
			b.WriteByte(0)
		}
	}
	return b.String()
}
