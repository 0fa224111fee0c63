package chunk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

// File is the source under which the store remembers chunks as positions.
const File = "chunks"

// How many ids are remembered.
const (
	Durable = 1 << 10
	memory  = 16 << 10
)

// Sink makes records and positions durable together before it returns. It
// copies what it keeps.
type Sink func(ctx context.Context, records []record.Record, positions []record.Position) error

// Seen are the chunks that are stored. Make it with New.
type Seen struct {
	duplicates prometheus.Counter

	mu    sync.Mutex // guards what follows
	known map[id]*state
	order []id // oldest first, a ring once full
	next  int
	seq   int64 // of the next durable id
}

// id is a chunk of one sender. Senders choose names as they like: two may
// choose the same, and one may choose very long ones.
type id [16]byte

type state struct {
	ready  chan struct{} // closed when stored is known
	stored bool
}

// New returns the memory of chunks; have are the positions of the store.
func New(have []record.Position, reg prometheus.Registerer) *Seen {
	s := &Seen{known: map[id]*state{}, order: make([]id, memory),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_ingest_duplicate_chunks_total", Help: "Chunks and pushes sent again that were stored already."})}
	reg.MustRegister(s.duplicates)
	ready := make(chan struct{})
	close(ready)
	for _, p := range have {
		if p.File != File {
			continue
		}
		k := id{}
		binary.BigEndian.PutUint64(k[:], p.Print)
		binary.BigEndian.PutUint64(k[8:], uint64(p.Stderr))
		if s.known[k] == nil {
			s.known[k] = &state{ready: ready, stored: true}
			s.order[s.next] = k
			s.next = (s.next + 1) % memory
		}
		s.seq = max(s.seq, p.Stdout+1)
	}
	return s
}

// Store calls store with what to write down beside the chunk's lines, unless
// the chunk is stored already. from is who sent it. An empty name is no chunk:
// store is called.
func (s *Seen) Store(ctx context.Context, from *record.Stream, name string, store func([]record.Position) error) error {
	if name == "" {
		return store(nil)
	}
	k := identify(from, name)
	mine, err := s.begin(ctx, k)
	if err != nil {
		return err
	}
	if mine == nil {
		s.duplicates.Inc()
		return nil
	}
	stored := false
	defer func() { s.end(k, mine, stored) }()
	err = store([]record.Position{s.position(k)})
	stored = err == nil
	return err
}

// Unsure is Store for lines that may rightly come again, such as those without a
// time: they are a repetition only while their sender has not been told that they
// are stored. The caller calls told when it has tried to; meanwhile whoever sends
// the same waits.
func (s *Seen) Unsure(ctx context.Context, from *record.Stream, name string, store func([]record.Position) error) (told func(bool), _ error) {
	k := identify(from, name)
	mine, err := s.begin(ctx, k)
	if err != nil {
		return nil, err
	}
	if mine == nil {
		s.duplicates.Inc()
		return func(ok bool) {
			if ok {
				s.forget(k)
			}
		}, nil
	}
	if err := store([]record.Position{s.position(k)}); err != nil {
		s.end(k, mine, false)
		return nil, err
	}
	return func(ok bool) { s.end(k, mine, !ok) }, nil
}

func (s *Seen) forget(k id) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, k)
}

func identify(from *record.Stream, name string) (k id) {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(name)), from.Hash())
	sum := sha256.Sum256(append(b, name...))
	copy(k[:], sum[:])
	return k
}

// begin waits for another connection that is storing the chunk. It returns nil
// when the chunk is stored.
func (s *Seen) begin(ctx context.Context, k id) (*state, error) {
	for {
		s.mu.Lock()
		have := s.known[k]
		if have == nil {
			have = &state{ready: make(chan struct{})}
			s.known[k] = have
			s.mu.Unlock()
			return have, nil
		}
		s.mu.Unlock()
		select {
		case <-have.ready:
			if have.stored {
				return nil, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Seen) position(k id) record.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := record.Position{File: File, Inode: uint64(s.seq % Durable), Print: binary.BigEndian.Uint64(k[:]), Stdout: s.seq, Stderr: int64(binary.BigEndian.Uint64(k[8:]))}
	s.seq++
	return p
}

func (s *Seen) end(k id, have *state, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have.stored = stored
	if stored {
		if old := s.order[s.next]; old != (id{}) {
			delete(s.known, old)
		}
		s.order[s.next] = k
		s.next = (s.next + 1) % memory
	} else {
		delete(s.known, k)
	}
	close(have.ready)
}
