package ingest

import (
	"net"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// budget is memory that connections share. Who wants more than there is waits,
// in the order of asking.
type budget struct {
	limit int64
	used  prometheus.Gauge
	waits prometheus.Counter
	free  sync.Pool // of *[]byte

	mu      sync.Mutex // guards what follows
	taken   int64
	waiting []*waiter
}

type waiter struct {
	n    int64
	mine chan struct{} // closed when it has its share
}

// take waits for n bytes, or for all when n is more, and returns how many to
// give back.
func (b *budget) take(ended <-chan struct{}, n int64) (int64, error) {
	n = min(n, b.limit)
	b.mu.Lock()
	w := &waiter{n, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.serve()
	b.mu.Unlock()
	select {
	case <-w.mine:
		return n, nil
	default:
	}
	b.waits.Inc()
	select {
	case <-w.mine:
		return n, nil
	case <-ended:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := slices.Index(b.waiting, w); at >= 0 {
		b.waiting = slices.Delete(b.waiting, at, at+1)
	} else {
		b.taken -= n
	}
	b.serve()
	return 0, net.ErrClosed
}

// give gives back what take returned.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken -= n
	b.serve()
}

// serve gives shares to those that wait for longest. Called with mu held.
func (b *budget) serve() {
	for len(b.waiting) > 0 && b.taken+b.waiting[0].n <= b.limit {
		b.taken += b.waiting[0].n
		close(b.waiting[0].mine)
		b.waiting = b.waiting[1:]
	}
	b.used.Set(float64(b.taken))
}

const bufferStep = 64 << 10

// get returns empty memory for n bytes, which may have been used before.
func (b *budget) get(n int) []byte {
	if have, ok := b.free.Get().(*[]byte); ok && cap(*have) >= n {
		return (*have)[:0]
	}
	return make([]byte, 0, (n+bufferStep-1)/bufferStep*bufferStep)
}

// put keeps memory to be used again.
func (b *budget) put(buf []byte) {
	if cap(buf) <= 1<<20 {
		b.free.Put(&buf)
	}
}
