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

func TestWhatMayRightlyComeAgainIsKnownUntilItsSenderIsTold(t *testing.T) {
	s, from, calls := New(nil, prometheus.NewRegistry()), &record.Stream{}, 0
	send := func(fails bool) (func(bool), error) {
		return s.Unsure(context.Background(), from, "1", func([]record.Position) error {
			calls++
			if fails {
				return errors.New("full")
			}
			return nil
		})
	}
	step := func(what string, answered bool, want int) {
		t.Helper()
		told, err := send(false)
		if err != nil || calls != want {
			t.Fatalf("%s: stored %d times, want %d: %v", what, calls, want, err)
		}
		told(answered)
	}
	if _, err := send(true); err == nil {
		t.Fatal("an error of the store was lost")
	}
	step("after a failure", true, 2)
	step("the same on purpose", false, 3)
	step("its sender was not told", false, 3)
	step("and tries again", true, 3)
	step("on purpose again", true, 4)

	// Who sends the same meanwhile waits until that is known.
	told, err := send(false)
	if err != nil || calls != 5 {
		t.Fatal(calls, err)
	}
	second := make(chan func(bool))
	go func() {
		told, _ := send(false)
		second <- told
	}()
	select {
	case <-second:
		t.Fatal("the second did not wait")
	default:
	}
	told(true)
	(<-second)(true)
	if calls != 6 {
		t.Errorf("stored %d times, want 6", calls)
	}
	if len(s.known) != 0 {
		t.Errorf("%d are remembered, want none", len(s.known))
	}
}
