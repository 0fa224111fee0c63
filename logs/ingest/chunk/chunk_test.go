package chunk

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/record"
)

// disk remembers positions as the store does: by file and inode.
type disk map[uint64]record.Position

func (d disk) list() (out []record.Position) {
	for _, p := range d {
		out = append(out, p)
	}
	return out
}

func TestAChunkIsStoredOnceAlsoAfterARestart(t *testing.T) {
	d, calls := disk{}, 0
	store := func(ps []record.Position) error {
		calls++
		for _, p := range ps {
			d[p.Inode] = p
		}
		return nil
	}
	s := New(nil, prometheus.NewRegistry())
	ctx, a, b := context.Background(), &record.Stream{Pod: "a"}, &record.Stream{Pod: "b"}
	put := func(from *record.Stream, name string, want int) {
		t.Helper()
		if err := s.Store(ctx, from, name, store); err != nil || calls != want {
			t.Fatalf("stored %d times, want %d: %v", calls, want, err)
		}
	}
	put(a, "1", 1)
	put(a, "1", 1) // sent again
	put(b, "1", 2) // another sender may use the same name
	put(a, "", 3)  // no chunk
	put(a, "", 4)
	if n := testutil.ToFloat64(s.duplicates); n != 1 {
		t.Errorf("%v duplicates counted, want 1", n)
	}
	if err := s.Store(ctx, a, "2", func([]record.Position) error { return errors.New("full") }); err == nil {
		t.Fatal("an error of the store was lost")
	}
	put(a, "2", 5) // what failed is stored when it comes again

	s = New(d.list(), prometheus.NewRegistry())
	put(a, "1", 5)
	put(a, "2", 5)
	put(a, "3", 6)
	for i := range 3 * Durable {
		put(a, fmt.Sprint("x", i), 7+i)
	}
	if len(d) != Durable {
		t.Errorf("%d positions, want %d", len(d), Durable)
	}
	s = New(d.list(), prometheus.NewRegistry())
	put(a, fmt.Sprint("x", 3*Durable-1), calls)
	put(a, fmt.Sprint("x", 2*Durable+2), calls)
	put(a, "1", calls+1) // older ones are forgotten
}

func TestASecondConnectionWaitsForTheFirst(t *testing.T) {
	s := New(nil, prometheus.NewRegistry())
	from := &record.Stream{}
	begun, fail, second := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	go func() {
		_ = s.Store(context.Background(), from, "1", func([]record.Position) error {
			close(begun)
			<-fail
			return errors.New("full")
		})
	}()
	<-begun
	go func() {
		n := 0
		_ = s.Store(context.Background(), from, "1", func([]record.Position) error { n++; return nil })
		second <- n
	}()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Store(ctx, from, "1", func([]record.Position) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting ends with its context: %v", err)
	}
	close(fail)
	if n := <-second; n != 1 {
		t.Errorf("the second stored %d times, want once since the first failed", n)
	}
}
