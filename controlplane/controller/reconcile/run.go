package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 30 * time.Second
)

type queue = workqueue.TypedRateLimitingInterface[Key]

// Run works on changed objects until ctx ends. Somebody else starts the
// informers; Run waits for their first lists. It may be called again after it
// returned, as a new term.
func (c *Controller) Run(ctx context.Context, log *slog.Logger, m *Metrics) error {
	log = log.With("controller", c.Name)
	q := workqueue.NewTypedRateLimitingQueueWithConfig(workqueue.NewTypedItemExponentialFailureRateLimiter[Key](firstRetry, lastRetry),
		workqueue.TypedRateLimitingQueueConfig[Key]{Name: c.Name, MetricsProvider: m.works})
	defer q.ShutDown()

	var synced []cache.InformerSynced
	for _, source := range c.Sources {
		handle, err := source.Informer.AddEventHandler(source.handler(q))
		if err != nil {
			return fmt.Errorf("watch for controller %s: %w", c.Name, err)
		}
		defer func() { _ = source.Informer.RemoveEventHandler(handle) }() // fails only when the informer has ended
		synced = append(synced, handle.HasSynced)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil // asked to end before the first list
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a failed feed ends the tick too
	var workers sync.WaitGroup
	for range max(1, c.Workers) {
		workers.Go(func() {
			for c.next(ctx, q, log, m) {
			}
		})
	}
	if c.Ticks > 0 {
		workers.Go(func() { c.tick(ctx, q) })
	}
	var fed error
	if c.Feed != nil {
		fed = c.Feed(ctx, q.Add)
	} else {
		<-ctx.Done()
	}
	if fed == nil {
		<-ctx.Done()
	}
	cancel()
	q.ShutDown()
	workers.Wait()
	return fed
}

func (c *Controller) tick(ctx context.Context, q queue) {
	q.Add(Key{})
	ticker := time.NewTicker(c.Ticks)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			q.Add(Key{})
		}
	}
}

func (c *Controller) next(ctx context.Context, q queue, log *slog.Logger, m *Metrics) bool {
	key, closed := q.Get()
	if closed {
		return false
	}
	defer q.Done(key)
	m.queue.WithLabelValues(c.Name).Set(float64(q.Len()))
	began := time.Now()
	again, err := c.Reconcile(ctx, key)
	m.duration.WithLabelValues(c.Name).Observe(time.Since(began).Seconds())
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		m.errors.WithLabelValues(c.Name).Inc()
		level := slog.LevelWarn
		if apierrors.IsConflict(err) { // somebody was faster; the next look sees it
			level = slog.LevelDebug
		}
		log.Log(ctx, level, "reconcile was put back", "namespace", key.Namespace, "name", key.Name, "tries", q.NumRequeues(key)+1, "err", err)
		q.AddRateLimited(key)
		return true
	}
	m.lastSuccess.WithLabelValues(c.Name).Set(float64(time.Now().Unix()))
	q.Forget(key)
	if again > 0 {
		q.AddAfter(key, again)
	}
	return true
}

func (s Source) handler(q queue) cache.ResourceEventHandler {
	keys := s.Keys
	if keys == nil {
		keys = Self
	}
	add := func(objects ...any) {
		for _, object := range objects {
			for _, key := range keys(object) {
				q.Add(key)
			}
		}
	}
	seen := s.Seen
	if seen == nil {
		seen = func(Change, any) {}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { seen(Added, object); add(object) },
		UpdateFunc: func(old, object any) { seen(Changed, object); add(old, object) },
		DeleteFunc: func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			seen(Removed, object)
			add(object)
		},
	}
}
