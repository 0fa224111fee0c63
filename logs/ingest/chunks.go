package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"perch/logs/record"
)

// maxChunks ids are remembered; older ones would be stored again.
const maxChunks = 16 << 10

// chunks remembers which chunks are stored, so that one that is sent again
// because its acknowledgement was lost is not stored twice.
type chunks struct {
	mu    sync.Mutex // guards what follows
	known map[key]*chunk
	order []key // oldest first, a ring once full
	next  int
}

// key is a chunk of one sender. Senders choose ids as they like: two may choose
// the same, and one may choose very long ones.
type key [sha256.Size]byte

func chunkKey(from *record.Stream, id string) key {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(id)), from.Hash())
	return sha256.Sum256(append(b, id...))
}

type chunk struct {
	ready  chan struct{} // closed when stored is known
	stored bool
}

func newChunks(n int) *chunks {
	return &chunks{known: map[key]*chunk{}, order: make([]key, n)}
}

// begin tells whether the chunk is stored already, waiting for another
// connection that is storing it. Otherwise the caller stores it and says done.
func (c *chunks) begin(ctx context.Context, id key) (seen bool, done func(stored bool)) {
	for {
		c.mu.Lock()
		k := c.known[id]
		if k == nil {
			k = &chunk{ready: make(chan struct{})}
			c.known[id] = k
			c.mu.Unlock()
			return false, func(stored bool) { c.done(id, k, stored) }
		}
		c.mu.Unlock()
		select {
		case <-k.ready:
			if k.stored {
				return true, nil
			}
		case <-ctx.Done():
			return false, func(bool) {}
		}
	}
}

func (c *chunks) done(id key, k *chunk, stored bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.stored = stored
	if stored {
		if old := c.order[c.next]; old != (key{}) {
			delete(c.known, old)
		}
		c.order[c.next] = id
		c.next = (c.next + 1) % len(c.order)
	} else {
		delete(c.known, id)
	}
	close(k.ready)
}
