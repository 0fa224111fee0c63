package cluster

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
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

// A tail is live when all nodes have told what they have from before, or cannot.
func TestATailIsLiveWhenAllNodesAre(t *testing.T) {
	a, b, gone := newNode(t), newNode(t), newNode(t)
	a.add(t, line("a", "shop", 1, "own"))
	b.add(t, line("b", "shop", 2, "other"))
	gone.server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := map[string]bool{}
	err := fan(a, b, gone).Tail(ctx, query.Request{Cursor: &query.Cursor{}}, func(e query.TailEvent) error {
		switch {
		case e.Line != nil:
			told[string(e.Line.Body)] = true
		case len(e.Missing) > 0:
			told[e.Missing[0]] = true
		case e.Live:
			cancel()
		}
		return nil
	})
	if err != nil || !told["own"] || !told["other"] || !told["n2"] || ctx.Err() != context.Canceled {
		t.Error(told, err, ctx.Err())
	}
}

// A node that joins while lines are followed is followed from the begin of the tail.
func TestATailHasTheFirstLinesOfANodeThatJoins(t *testing.T) {
	a, b := newNode(t), newNode(t)
	var joined atomic.Bool
	f := New(Parts{Self: "n0", Local: a.engine, Peers: func() []Peer {
		if !joined.Load() {
			return nil
		}
		return []Peer{{Node: "n1", URL: b.server.URL, Client: http.DefaultClient}}
	}}, quiet())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b.add(t, line("b", "shop", time.Now().Add(-time.Hour).UnixNano(), "long ago"))
	var have []string
	err := f.Tail(ctx, query.Request{}, func(e query.TailEvent) error {
		if e.Live {
			b.add(t, line("b", "shop", time.Now().UnixNano(), "when it joined"))
			joined.Store(true)
		}
		if e.Line != nil {
			have = append(have, string(e.Line.Body))
			cancel()
		}
		return nil
	})
	if err != nil || strings.Join(have, ",") != "when it joined" {
		t.Error(err, have)
	}
}
