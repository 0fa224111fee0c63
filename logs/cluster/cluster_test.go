package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/query"
	"perch/logs/record"
	"perch/logs/store"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

type node struct {
	store  *store.Store
	engine *query.Engine
	server *httptest.Server
}

func newNode(t *testing.T) *node {
	t.Helper()
	s, err := store.Open(store.Default(t.TempDir()), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	e := query.New(s, quiet())
	n := &node{store: s, engine: e}
	n.server = httptest.NewServer(query.Handler(e, func(_ context.Context, r *http.Request) (query.Access, error) {
		return query.AccessFromHeader(r.Header.Get(query.NamespacesHeader)), nil
	}, quiet()))
	t.Cleanup(func() {
		n.server.CloseClientConnections()
		n.server.Close()
		_ = s.Close()
	})
	return n
}

func (n *node) add(t *testing.T, records ...record.Record) {
	t.Helper()
	if err := n.store.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
}

func line(node, namespace string, at int64, body string) record.Record {
	return record.Record{Time: at, Stream: &record.Stream{Namespace: namespace, Pod: "p", Node: node, Output: "stdout", Kind: "log"}, Body: []byte(body)}
}

func fan(nodes ...*node) *Fan {
	return New(nodes[0].engine, func() []Peer {
		var out []Peer
		for i, n := range nodes[1:] {
			out = append(out, Peer{Node: fmt.Sprintf("n%d", i+1), URL: n.server.URL, Client: http.DefaultClient})
		}
		return out
	}, quiet())
}

func TestLinesOfAllNodesComeInOrderPageByPage(t *testing.T) {
	nodes := []*node{newNode(t), newNode(t), newNode(t)}
	f := fan(nodes...)
	rnd := rand.New(rand.NewPCG(1, 1))
	var want []string
	for i := range 500 {
		body := fmt.Sprintf("line %d", i)
		want = append(want, body)
		k := rnd.IntN(3)
		r := line(fmt.Sprint(k), "shop", int64(i)*1000+1, body)
		nodes[k].add(t, r)
		if i%50 == 0 { // a follower holds the same line
			nodes[(k+1)%3].add(t, r)
		}
	}
	for _, order := range []query.Order{query.OldestFirst, query.NewestFirst} {
		r := query.Request{Text: "line", To: 1e9, Limit: 70, Order: order}
		var have []string
		for pages := 0; ; pages++ {
			sum, err := f.Query(t.Context(), r, func(l *query.Line) error { have = append(have, string(l.Body)); return nil })
			if err != nil || sum.Partial || pages > 20 {
				t.Fatal(err, sum, pages)
			}
			if sum.Cursor == "" {
				break
			}
			c, err := query.ParseCursor(sum.Cursor)
			if err != nil {
				t.Fatal(err)
			}
			r.Cursor = &c
		}
		if order == query.NewestFirst {
			slices.Reverse(have)
		}
		// The copies have other numbers where the streams differ, so only the set counts.
		if have = slices.Compact(have); !slices.Equal(have, want) {
			t.Fatalf("have %d lines, want %d", len(have), len(want))
		}
	}
	h, err := f.Histogram(t.Context(), query.Request{To: 1e9, Buckets: 10})
	if err != nil || h.Total != 510 {
		t.Fatal(err, h.Total)
	}
	v, err := f.Values(t.Context(), query.Request{To: 1e9, Field: "node"})
	if err != nil || len(v.Values) != 3 {
		t.Fatal(err, v)
	}
}

func TestMissingNodesAreNamedAndNamespacesStayRestricted(t *testing.T) {
	a, b, c := newNode(t), newNode(t), newNode(t)
	f := fan(a, b, c)
	a.add(t, line("a", "shop", 1, "one"))
	b.add(t, line("b", "shop", 2, "two"), line("b", "secret", 3, "hidden"))
	c.server.Close()
	var have []string
	sum, err := f.Query(t.Context(), query.Request{To: 10, Namespaces: []string{"shop"}}, func(l *query.Line) error { have = append(have, string(l.Body)); return nil })
	if err != nil || !sum.Partial || strings.Join(sum.Missing, ",") != "n2" || strings.Join(sum.Hidden, ",") != "secret" || strings.Join(have, ",") != "two,one" {
		t.Fatal(err, sum, have)
	}
	h, err := f.Histogram(t.Context(), query.Request{To: 10})
	if err != nil || !h.Partial || h.Total != 3 {
		t.Fatal(err, h)
	}
	if _, err := f.Query(t.Context(), query.Request{Text: "pod:"}, nil); err == nil {
		t.Fatal("a bad query was taken")
	}
}

func TestContextIsFoundWhereverTheLineIs(t *testing.T) {
	a, b := newNode(t), newNode(t)
	f := fan(a, b)
	st := &record.Stream{Namespace: "shop", Pod: "p"}
	for i := range 10 {
		b.add(t, record.Record{Time: int64(i), Stream: st, Body: fmt.Appendf(nil, "line %d", i)})
	}
	var have []string
	_, err := f.Query(t.Context(), query.Request{Around: &query.Around{Hash: st.Hash(), Number: 5, Before: 1, After: 2}}, func(l *query.Line) error { have = append(have, string(l.Body)); return nil })
	if err != nil || strings.Join(have, ",") != "line 4,line 5,line 6,line 7" {
		t.Fatal(err, have)
	}
}

func TestTailFollowsAllNodesAndNamesThoseThatLeave(t *testing.T) {
	a, b := newNode(t), newNode(t)
	f := fan(a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events := make(chan query.TailEvent, 1000)
	done := make(chan error, 1)
	go func() {
		done <- f.Tail(ctx, query.Request{Text: "tick"}, func(e query.TailEvent) error { events <- e; return nil })
	}()
	seen := map[string]bool{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := int64(0); !seen["a"] || !seen["b"] || !seen["missing"]; n++ {
		select {
		case e := <-events:
			if e.Line != nil {
				seen[e.Line.Stream.Node] = true
			}
			if len(e.Missing) > 0 {
				seen["missing"] = e.Missing[0] == "n1"
			}
		case <-tick.C:
			a.add(t, line("a", "shop", n, "tick"))
			b.add(t, line("b", "shop", n, "tick"))
			if seen["b"] {
				b.server.CloseClientConnections()
			}
		case <-ctx.Done():
			t.Fatal(seen)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
