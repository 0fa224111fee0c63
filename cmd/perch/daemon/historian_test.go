package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/record"
)

// disk is a log store that refuses for a while.
type disk struct {
	refuses string // all that have this; "*": everything
	written []string
	hangs   chan struct{}
	tries   int
}

func (d *disk) keep(_ context.Context, r record.Record) error {
	d.tries++
	if d.hangs != nil {
		<-d.hangs
	}
	if d.refuses == "*" || d.refuses != "" && strings.Contains(string(r.Body), d.refuses) {
		return errors.New("no space left on device")
	}
	d.written = append(d.written, fmt.Sprint(string(r.Body), " ", r.Time))
	return nil
}

// write starts a historian in a bubble and ends it with the returned func.
func (d *disk) write() (h *historian, stop func()) {
	h = newHistorian(d.keep, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = h.Run(ctx) // nil always
	}()
	return h, func() {
		cancel()
		<-ended
	}
}

func (h *historian) tell(words ...string) {
	for i, w := range words {
		h.note(context.Background(), record.Record{Time: int64(i), Body: []byte(w)})
	}
}

func TestWhatAFullDiskRefusesIsWrittenLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		h, stop := d.write()
		h.tell("a")
		synctest.Wait()
		if len(d.written) != 1 {
			t.Fatalf("not written at once: %v", d.written)
		}
		d.refuses, d.tries = "*", 0
		h.tell("b", "c")
		synctest.Wait()
		h.tell("d", "e", "f")
		time.Sleep(10 * time.Minute)
		if n := testutil.ToFloat64(h.waiting); n != 5 || d.tries > 3*125 {
			t.Errorf("%g wait, %d tries", n, d.tries)
		}
		d.refuses = ""
		time.Sleep(tryHistory + time.Second)
		if got := strings.Join(d.written, ", "); got != "a 0, b 0, c 1, d 0, e 1, f 2" {
			t.Errorf("written: %s", got)
		}
		if n := testutil.ToFloat64(h.waiting); n != 0 || h.left() != 0 {
			t.Errorf("%g wait", n)
		}
		h.tell("g")
		stop()
		if !slices.Contains(d.written, "g 0") {
			t.Error("what came last was not written at the end")
		}
	})
}

func TestOneRecordThatIsRefusedHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{refuses: "bad"}
		h, stop := d.write()
		defer stop()
		h.tell("bad", "good")
		synctest.Wait()
		if got := strings.Join(d.written, ", "); got != "good 1" {
			t.Errorf("written: %s", got)
		}
		time.Sleep(unwrittenFor + time.Minute)
		if n := testutil.ToFloat64(h.dropped.WithLabelValues("old")); n != 1 || h.left() != 0 {
			t.Errorf("%g given up, %d wait", n, h.left())
		}
	})
}

func TestAHistoryThatCannotBeWrittenHasALimitAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{hangs: make(chan struct{})}
		h, stop := d.write()
		h.tell("first")
		synctest.Wait() // the disk hangs
		for range maxUnwritten + 7 {
			h.tell("x")
		}
		if n := testutil.ToFloat64(h.dropped.WithLabelValues("full")); n != 7 {
			t.Errorf("%g dropped", n)
		}
		close(d.hangs)
		synctest.Wait()
		if len(d.written) != maxUnwritten+1 {
			t.Errorf("%d written", len(d.written))
		}
		stop()
	})
}
