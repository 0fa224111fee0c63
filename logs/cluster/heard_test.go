package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	"perch/logs/query"
	"perch/logs/record"
)

func TestTailHasLinesThatAreStoredLateWhileANodeIsAway(t *testing.T) {
	a, b := newNode(t), newNode(t)
	f := fan(a, b)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	now := time.Now()
	began := make(chan struct{})
	go func() { // until the tail follows
		for i := int64(0); ; i++ {
			select {
			case <-began:
				return
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
				_ = b.store.Append(ctx, []record.Record{line("b", "shop", now.UnixNano()+i, "first")}, nil)
			}
		}
	}()
	var have []string
	err := f.Tail(ctx, query.Request{}, func(e query.TailEvent) error {
		if e.Line == nil {
			return nil
		}
		switch body := string(e.Line.Body); {
		case body != "first":
			have = append(have, body)
		case len(have) == 0:
			close(began)
			have = append(have, body)
			b.add(t, line("b", "shop", now.Add(24*time.Hour).UnixNano(), "clock ahead"))
		}
		switch last := have[len(have)-1]; {
		case last == "clock ahead" && len(have) == 2:
			b.server.CloseClientConnections()
			b.add(t, line("b", "shop", now.Add(-time.Second).UnixNano(), "late"))
			b.add(t, line("b", "shop", now.Add(time.Second).UnixNano(), "end"))
		case last == "end":
			cancel()
		}
		return nil
	})
	if got := strings.Join(have, ","); err != nil || got != "first,clock ahead,late,end" {
		t.Fatal(err, got)
	}
}

func TestATailOfManyLinesKnowsWhichItShowed(t *testing.T) {
	tl := &tail{heard: map[string]*heard{}}
	base := time.Now().Add(-time.Hour).UnixNano()
	for i := range 3 * mostHeard {
		tl.hear("n", query.Cursor{Time: base + int64(i)*1000, Number: uint64(i)})
		h := tl.heard["n"]
		c, shown := h.goOn()
		if len(h.recent) > mostHeard || c.Time > h.last.Time || !shown[h.last] {
			t.Fatal(i, len(h.recent), c, len(shown))
		}
		for k := max(0, i-3000); i%1000 == 0 && k <= i; k++ {
			at := query.Cursor{Time: base + int64(k)*1000, Number: uint64(k)}
			if !query.OldestFirst.Before(at, *c) && !shown[at] {
				t.Fatalf("line %d of %d would come twice", k, i)
			}
		}
	}
	for i := range mostHeard + 1 { // all at one time
		tl.hear("m", query.Cursor{Time: base, Number: uint64(i)})
	}
	if c, shown := tl.heard["m"].goOn(); *c != (query.Cursor{Time: base, Number: mostHeard}) || len(shown) > 0 {
		t.Error(c, len(shown))
	}
}
