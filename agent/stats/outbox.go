package stats

import (
	"context"
	"sync"
	"time"
)

// outbox holds batches while the sink is away. When it is full the oldest batch
// is dropped and counted: the newest numbers are worth the most.
type outbox struct {
	metrics *metrics
	limit   int
	wake    chan struct{} // capacity 1

	mu      sync.Mutex
	batches [][]Sample
	samples int
}

func newOutbox(limit int, m *metrics) *outbox {
	return &outbox{metrics: m, limit: limit, wake: make(chan struct{}, 1)}
}

func (o *outbox) put(batch []Sample) {
	if len(batch) == 0 {
		return
	}
	o.mu.Lock()
	o.batches = append(o.batches, batch)
	o.samples += len(batch)
	for o.samples > o.limit && len(o.batches) > 1 {
		n := len(o.batches[0])
		o.batches[0] = nil
		o.batches, o.samples = o.batches[1:], o.samples-n
		o.metrics.dropped.Add(float64(n))
	}
	o.metrics.waiting.Set(float64(o.samples))
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) take() []Sample {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.batches) == 0 {
		return nil
	}
	b := o.batches[0]
	o.batches[0] = nil
	o.batches, o.samples = o.batches[1:], o.samples-len(b)
	o.metrics.waiting.Set(float64(o.samples))
	return b
}

// retryAfter is how long a failed sink is left alone.
const retryAfter = time.Second

// lastTry bounds the goodbye to a sink that may be stopping too.
const lastTry = 2 * time.Second

// run gives batches to sink in order until ctx ends, then once more what is
// left.
func (o *outbox) run(ctx context.Context, sink func(context.Context, []Sample) error) {
	for {
		for b := o.take(); b != nil; b = o.take() {
			for sink(ctx, b) != nil {
				o.metrics.failures.Inc()
				select {
				case <-ctx.Done():
					o.finish(ctx, b, sink)
					return
				case <-time.After(retryAfter):
				}
			}
			o.metrics.sent.Add(float64(len(b)))
		}
		select {
		case <-ctx.Done():
			o.finish(ctx, nil, sink)
			return
		case <-o.wake:
		}
	}
}

func (o *outbox) finish(ctx context.Context, b []Sample, sink func(context.Context, []Sample) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTry)
	defer cancel()
	if b == nil {
		b = o.take()
	}
	for ; b != nil; b = o.take() {
		if sink(ctx, b) != nil {
			o.metrics.dropped.Add(float64(len(b)))
			return
		}
		o.metrics.sent.Add(float64(len(b)))
	}
}
