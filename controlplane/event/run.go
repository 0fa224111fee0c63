package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Config bounds the recorder.
type Config struct {
	Host   string        // node name written into the events; empty on servers
	Queue  int           // records waiting to be posted
	Burst  int           // events one object may cause at once …
	Refill time.Duration // … and then one per Refill
	Known  int           // facts remembered for counting repeats
	Linger time.Duration // time to post what waits when Run is asked to end
}

// Default suits a server and an agent alike.
func Default() Config {
	return Config{Queue: 1000, Burst: 50, Refill: 30 * time.Second, Known: 4096, Linger: time.Second}
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs error
	if c.Queue < 1 {
		errs = errors.Join(errs, fmt.Errorf("event queue %d: want 1 or more", c.Queue))
	}
	if c.Burst < 1 {
		errs = errors.Join(errs, fmt.Errorf("event burst %d: want 1 or more", c.Burst))
	}
	if c.Known < 1 {
		errs = errors.Join(errs, fmt.Errorf("event known %d: want 1 or more", c.Known))
	}
	return errs
}

// Recorder posts records as Event objects.
type Recorder struct {
	cfg     Config
	client  typedcorev1.EventsGetter
	log     *slog.Logger
	metrics metrics
	queue   chan Record

	// Owned by Run.
	known   generations[sameness, posted]
	buckets generations[sameness, bucket]
	last    int64 // ns of the newest name given, so that no two events share one
}

type posted struct {
	namespace, name string
	count           int32
}

// New makes a recorder. A nil client is allowed: then records are logged and counted only.
func New(cfg Config, client typedcorev1.EventsGetter, log *slog.Logger, reg prometheus.Registerer) (*Recorder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Recorder{
		cfg: cfg, client: client, log: log, metrics: newMetrics(reg),
		queue:   make(chan Record, cfg.Queue),
		known:   generations[sameness, posted]{limit: cfg.Known},
		buckets: generations[sameness, bucket]{limit: cfg.Known},
	}, nil
}

// Tell logs, counts and queues a record. It never blocks: when the queue is full
// the Event object is dropped and counted, the log line and the counter stay.
func (r *Recorder) Tell(record Record) {
	if record.Type == "" {
		record.Type = Normal
	}
	record.Message = cut(record.Message)
	r.metrics.told.WithLabelValues(record.Reason, record.Type).Inc()
	level := slog.LevelInfo
	if record.Type == Warning {
		level = slog.LevelWarn
	}
	r.log.Log(context.Background(), level, "event told",
		"component", record.Component, "reason", record.Reason, "kind", record.Object.Kind,
		"namespace", record.Object.Namespace, "name", record.Object.Name, "message", record.Message)
	if r.client == nil {
		return
	}
	select {
	case r.queue <- record:
		r.metrics.queued.Set(float64(len(r.queue)))
	default:
		r.metrics.dropped.WithLabelValues("queue_full").Inc()
	}
}

// Run posts what Tell queued until ctx ends, then for Config.Linger what still waits.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			r.drain()
			return nil
		case record := <-r.queue:
			r.metrics.queued.Set(float64(len(r.queue)))
			r.post(ctx, record)
		}
	}
}

func (r *Recorder) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Linger)
	defer cancel()
	for {
		select {
		case record := <-r.queue:
			if ctx.Err() != nil {
				r.metrics.dropped.WithLabelValues("stopped").Inc()
				continue
			}
			r.post(ctx, record)
		default:
			return
		}
	}
}

func (r *Recorder) post(ctx context.Context, record Record) {
	now := time.Now()
	who := sameness{component: record.Component, kind: record.Object.Kind, namespace: record.Object.Namespace, name: record.Object.Name}
	have, _ := r.buckets.get(who)
	have, allowed := have.take(now, r.cfg.Burst, r.cfg.Refill)
	r.buckets.put(who, have)
	if !allowed {
		r.metrics.dropped.WithLabelValues("rate").Inc()
		return
	}
	var err error
	for wait := 100 * time.Millisecond; ; wait *= 4 {
		if err = r.write(ctx, now, record); err == nil || ctx.Err() != nil || !worthRetrying(err) || wait > 2*time.Second {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	if err != nil {
		r.metrics.dropped.WithLabelValues("rejected").Inc()
		r.log.Debug("event was not stored", "reason", record.Reason, "err", err)
	}
}

func (r *Recorder) write(ctx context.Context, now time.Time, record Record) error {
	same := samenessOf(record)
	if old, ok := r.known.get(same); ok {
		patch, err := json.Marshal(map[string]any{"count": old.count + 1, "lastTimestamp": metav1.NewTime(now)})
		if err != nil {
			return fmt.Errorf("encode event %s: %w", old.name, err)
		}
		_, err = r.client.Events(old.namespace).Patch(ctx, old.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if err == nil {
			old.count++
			r.known.put(same, old)
			return nil
		}
		if !apierrors.IsNotFound(err) { // it expired: tell it anew
			return fmt.Errorf("count event %s/%s: %w", old.namespace, old.name, err)
		}
	}
	r.last = max(r.last+1, now.UnixNano())
	object := objectOf(now, record, r.cfg.Host, r.last)
	created, err := r.client.Events(object.Namespace).Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create event for %s %s/%s: %w", record.Object.Kind, record.Object.Namespace, record.Object.Name, err)
	}
	r.known.put(same, posted{created.Namespace, created.Name, 1})
	return nil
}

// worthRetrying tells a passing trouble from an answer.
func worthRetrying(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // no answer at all
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) || apierrors.IsTimeout(err)
}

// generations is a map that forgets: when the young half is full, the old half goes.
type generations[K comparable, V any] struct {
	limit      int
	young, old map[K]V
}

func (g *generations[K, V]) get(key K) (V, bool) {
	if v, ok := g.young[key]; ok {
		return v, true
	}
	v, ok := g.old[key]
	return v, ok
}

func (g *generations[K, V]) put(key K, value V) {
	if g.young == nil || len(g.young) >= max(1, g.limit/2) {
		g.old, g.young = g.young, make(map[K]V)
	}
	g.young[key] = value
}
