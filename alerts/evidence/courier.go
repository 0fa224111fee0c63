package evidence

import (
	"cmp"
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

// Alert is one state of one alert, the same unnamed shape as the rules' and the
// router's.
type Alert struct {
	Labels, Annotations map[string]string
	Starts, Ends        time.Time // Ends in the future: it is firing
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
}

// Default leaves the promise of two seconds from crash to webhook room.
func Default(page *url.URL) Config {
	return Config{Page: page, Queue: 256, Look: 400 * time.Millisecond, Batch: 16, Known: 10_000}
}

// Courier adds evidence and hands alerts on.
type Courier struct {
	cfg     Config
	from    Sources
	deliver func(context.Context, ...Alert) error
	note    func(context.Context, Transition)
	log     *slog.Logger
	queue   chan []Alert

	seconds prometheus.Histogram
	without *prometheus.CounterVec

	known map[string]told // what fires, by labels; Run's own
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
	c := &Courier{cfg: cfg, from: from, deliver: deliver, note: note, log: log, queue: make(chan []Alert, cfg.Queue), known: map[string]told{},
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
	select {
	case c.queue <- alerts:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("queue alerts: %w", ctx.Err())
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
				case batch := <-c.queue:
					c.handOn(context.WithoutCancel(ctx), batch, false)
				default:
					return nil
				}
			}
		case batch := <-c.queue:
			c.handOn(ctx, batch, len(c.queue) < c.cfg.Queue/4)
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

func (c *Courier) handOn(ctx context.Context, batch []Alert, look bool) {
	now := time.Now()
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
			c.known[k] = told{a, evidence}
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
			turns = append(turns, Transition{a, false, a.Ends})
		}
		out[i] = a
		out[i].Annotations = maps.Clone(a.Annotations)
		if out[i].Annotations == nil {
			out[i].Annotations = map[string]string{}
		}
		maps.Copy(out[i].Annotations, evidence)
	}
	if err := c.deliver(ctx, out...); err != nil {
		c.log.Warn("alerts were not taken, their next evaluation sends them again", "count", len(out), "err", err)
	}
	for _, t := range turns {
		c.note(ctx, t)
	}
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
		if p.owner != "" {
			query, err := c.ownerEvents(ctx, p.owner, now)
			if err != nil {
				put(noteChanges, "", err)
				return
			}
			lines(noteChanges, query, 24*time.Hour, changesCount, changesSize)
		}
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

// ownerEvents asks for the events of what made a pod: of the Deployment, when a
// ReplicaSet stands between.
func (c *Courier) ownerEvents(ctx context.Context, expr string, now time.Time) (string, error) {
	got, err := c.from.Values(ctx, expr, now)
	if err != nil || len(got) == 0 {
		return "", err
	}
	l := got[0].Labels
	ns, kind, name := l["namespace"], l["owner_kind"], l["owner_name"]
	if kind == "ReplicaSet" {
		up, err := c.from.Values(ctx, fmt.Sprintf("kube_replicaset_owner{namespace=%q,replicaset=%q}", ns, name), now)
		if err != nil {
			return "", err
		}
		if len(up) > 0 {
			kind, name = cmp.Or(up[0].Labels["owner_kind"], kind), cmp.Or(up[0].Labels["owner_name"], name)
		}
	}
	if kind == "" || strings.HasPrefix(kind, "<") {
		return "", nil // nobody made it
	}
	return fmt.Sprintf("kind:event namespace:%q object:%q", ns, kind+"/"+name), nil
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
