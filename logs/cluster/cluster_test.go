package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
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
	n.server = httptest.NewServer(query.Handler(e, query.TrustedAccess, quiet()))
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
	return fanWith(nil, nodes...)
}

func fanWith(copies func(context.Context, bool) []Copy, nodes ...*node) *Fan {
	return New(Parts{Self: "n0", Local: nodes[0].engine, Copies: copies, Peers: func() []Peer {
		var out []Peer
		for i, n := range nodes[1:] {
			out = append(out, Peer{Node: fmt.Sprintf("n%d", i+1), URL: n.server.URL, Client: http.DefaultClient})
		}
		return out
	}}, quiet())
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

// On every path, for each asks the other nodes in its own way.
func TestWhoMayReadNothingGetsNothingOfAnyNode(t *testing.T) {
	a, b := newNode(t), newNode(t)
	a.add(t, line("a", "shop", 1, "one"))
	b.add(t, line("b", "shop", 2, "two size=3"), line("b", "", 3, "of the machine"))
	var id string
	if _, err := fan(a, b).Query(t.Context(), query.Request{To: 10, Text: "two"}, func(l *query.Line) error { id = l.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	for name, access := range map[string]query.Access{"none": {}, "another": {Namespaces: []string{"bank"}}} {
		server := httptest.NewServer(query.Handler(fan(a, b), func(context.Context, *http.Request) (query.Access, error) { return access, nil }, quiet()))
		defer server.Close()
		for _, path := range []string{"query?", "histogram?", "histogram?by=pod&", "values?field=pod&", "fields?", "stats?field=size&", "patterns?",
			"context?id=" + id + "&scope=node&"} {
			resp, err := http.Get(server.URL + query.Prefix + path + "from=0&to=1")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || bytes.Contains(text, []byte("two")) || bytes.Contains(text, []byte("machine")) || regexp.MustCompile(`"(count|total)":[1-9]`).Match(text) {
				t.Errorf("%s namespaces, %s: %v\n%s", name, path, err, text)
			}
		}
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

// TestTailHasTheLinesOfANodeThatWasAwayFromTheBegin: it was not followed before.
func TestTailHasTheLinesOfANodeThatWasAwayFromTheBegin(t *testing.T) {
	a, b, gone := newNode(t), newNode(t), newNode(t)
	gone.server.Close()
	var back atomic.Bool
	f := New(Parts{Self: "n0", Local: a.engine, Peers: func() []Peer {
		url := gone.server.URL
		if back.Load() {
			url = b.server.URL
		}
		return []Peer{{Node: "n1", URL: url, Client: http.DefaultClient}}
	}}, quiet())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b.add(t, line("b", "shop", time.Now().Add(-time.Hour).UnixNano(), "tick long ago"))
	var have []string
	err := f.Tail(ctx, query.Request{Text: "tick"}, func(e query.TailEvent) error {
		switch {
		case len(e.Missing) > 0:
			b.add(t, line("b", "shop", time.Now().UnixNano(), "tick while it was away"))
			back.Store(true)
		case e.Line != nil:
			have = append(have, string(e.Line.Body))
			cancel()
		}
		return nil
	})
	if err != nil || len(have) != 1 || have[0] != "tick while it was away" {
		t.Fatal(err, have)
	}
}

// copyOf is n1's store as another node keeps it.
func copyOf(n *node, at time.Time) Copy {
	return Copy{Node: "n1", ID: "a", By: "n2", At: at, Peer: Peer{Node: "n1", URL: n.server.URL, Client: http.DefaultClient}}
}

func ask1(t *testing.T, f *Fan, to int64) (string, query.Summary) {
	t.Helper()
	var have []string
	sum, err := f.Query(t.Context(), query.Request{To: to, Order: query.OldestFirst}, func(l *query.Line) error { have = append(have, string(l.Body)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(have, ","), sum
}

func TestACopyAnswersForANodeThatIsGoneAndSaysSo(t *testing.T) {
	self, dead, follower := newNode(t), newNode(t), newNode(t)
	self.add(t, line("n0", "shop", 1, "own"))
	dead.add(t, line("n1", "shop", 2, "two"), line("n1", "shop", 3, "three"), line("n1", "shop", 40, "never shipped"))
	follower.add(t, line("n1", "shop", 2, "two"), line("n1", "shop", 3, "three"))
	broken := newNode(t)
	broken.server.Close()
	at := time.Unix(0, 20)
	copies := []Copy{copyOf(follower, at)}
	asked := 0
	f := fanWith(func(_ context.Context, now bool) []Copy {
		if now {
			asked++
		}
		return copies
	}, self, dead)
	if have, sum := ask1(t, f, 100); have != "own,two,three,never shipped" || sum.Partial || len(sum.Copies) > 0 {
		t.Fatalf("while it lives: %s %+v", have, sum)
	}
	dead.server.Close()
	have, sum := ask1(t, f, 20)
	if have != "own,two,three" || sum.Partial || len(sum.Missing) > 0 || len(sum.Copies) != 1 || asked != 1 {
		t.Fatalf("when it is gone: %s %+v", have, sum)
	}
	if c := sum.Copies[0]; c.Node != "n1" || c.By != "n2" || !c.At.Equal(at) || c.Age <= 0 {
		t.Errorf("it says %+v", c)
	}
	if _, sum := ask1(t, f, 21); !sum.Partial || len(sum.Missing) > 0 || !strings.Contains(sum.Reason, "n1 does not answer, its copy ends at") {
		t.Errorf("after the copy's end: %+v", sum)
	}
	h, err := f.Histogram(t.Context(), query.Request{To: 20})
	if err != nil || h.Total != 3 || h.Partial || len(h.Copies) != 1 {
		t.Errorf("histogram %d %+v %v", h.Total, h.Summary, err)
	}
	copies[0].From = time.Unix(0, 2)
	if _, sum := ask1(t, f, 20); !sum.Partial || !strings.Contains(sum.Reason, "begins at") {
		t.Errorf("before the copy's begin: %+v", sum)
	}
	copies = append([]Copy{copyOf(broken, at)}, copies...)
	copies[1].From = time.Time{}
	copies[0].By = "n3"
	if have, sum := ask1(t, f, 20); have != "own,two,three" || sum.Partial || sum.Copies[0].By != "n2" {
		t.Errorf("when the first copy does not answer: %s %+v", have, sum)
	}
	copies = copies[:1]
	if have, sum := ask1(t, f, 20); have != "own" || !sum.Partial || strings.Join(sum.Missing, ",") != "n1" || len(sum.Copies) > 0 {
		t.Errorf("when no copy answers: %s %+v", have, sum)
	}
}

func TestACopyOfARemovedNodeIsToldWhereItFoundSomething(t *testing.T) {
	self, follower := newNode(t), newNode(t)
	self.add(t, line("n0", "shop", 1, "own"))
	follower.add(t, line("n1", "shop", 2, "two"))
	f := fanWith(func(context.Context, bool) []Copy { return []Copy{copyOf(follower, time.Unix(0, 20))} }, self)
	for text, told := range map[string]int{"own": 0, "two": 1, "": 1, "nothing": 0} {
		r := query.Request{Text: text, To: 10, Field: "pod"}
		sum, err := f.Query(t.Context(), r, func(*query.Line) error { return nil })
		h, err1 := f.Histogram(t.Context(), r)
		v, err2 := f.Values(t.Context(), r)
		p, err3 := f.Patterns(t.Context(), r)
		s, err4 := f.Stats(t.Context(), r)
		if err := errors.Join(err, err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		for what, sum := range map[string]query.Summary{"query": sum, "histogram": h.Summary, "patterns": p.Summary, "stats": s.Summary} {
			if len(sum.Copies) != told || sum.Partial {
				t.Errorf("%s for %q tells %+v, want %d copies", what, text, sum, told)
			}
		}
		if len(v.Copies) > 1 || text == "" && len(v.Copies) != 1 {
			t.Errorf("values for %q tell %+v", text, v.Summary)
		}
	}
}

func TestACopyIsAskedWithinTheAskersNamespaces(t *testing.T) {
	self, dead, follower := newNode(t), newNode(t), newNode(t)
	dead.server.Close()
	follower.add(t, line("n1", "shop", 2, "two"), line("n1", "secret", 3, "hidden"))
	f := fanWith(func(context.Context, bool) []Copy { return []Copy{copyOf(follower, time.Unix(0, 20))} }, self, dead)
	var have []string
	sum, err := f.Query(t.Context(), query.Request{To: 10, Namespaces: []string{"shop"}}, func(l *query.Line) error { have = append(have, string(l.Body)); return nil })
	if err != nil || strings.Join(have, ",") != "two" || strings.Join(sum.Hidden, ",") != "secret" {
		t.Fatal(have, sum, err)
	}
}

func TestAnAwayNodeIsNotWaitedForAndAskedAgainWhenItIsBack(t *testing.T) {
	self, peer, follower := newNode(t), newNode(t), newNode(t)
	peer.add(t, line("n1", "shop", 2, "itself"))
	follower.add(t, line("n1", "shop", 2, "copy"))
	var silent, asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if silent.Load() == 1 { // as after its link was cut
			asked.Add(1)
			_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
			<-r.Context().Done()
			return
		}
		peer.server.Config.Handler.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	f := New(Parts{Self: "n0", Local: self.engine,
		Peers:  func() []Peer { return []Peer{{Node: "n1", URL: proxy.URL, Client: http.DefaultClient}} },
		Copies: func(context.Context, bool) []Copy { return []Copy{copyOf(follower, time.Unix(0, 20))} }}, quiet())
	if have, _ := ask1(t, f, 10); have != "itself" {
		t.Fatal(have)
	}
	silent.Store(1)
	begun := time.Now()
	if have, sum := ask1(t, f, 10); have != "copy" || sum.Partial {
		t.Fatal(have, sum)
	}
	if took := time.Since(begun); took >= query.DefaultTimeout {
		t.Errorf("the silent node was waited for %s", took)
	}
	before := asked.Load()
	for range 5 {
		if have, _ := ask1(t, f, 10); have != "copy" {
			t.Fatal(have)
		}
	}
	if looks := asked.Load() - before; looks > 2 {
		t.Errorf("it was asked %d times by five queries while it is away", looks)
	}
	silent.Store(0)
	for end := time.Now().Add(time.Minute); ; {
		if have, _ := ask1(t, f, 10); have == "itself" {
			break
		} else if time.Now().After(end) {
			t.Fatal("it is not asked again")
		}
	}
}

func TestANodeThatIsBackIsAskedThoughItsCopyAnswersLater(t *testing.T) {
	self, peer, follower := newNode(t), newNode(t), newNode(t)
	peer.add(t, line("n1", "shop", 2, "itself"))
	follower.add(t, line("n1", "shop", 2, "copy"))
	var f *Fan
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() { // the look has ended
			f.mu.Lock()
			under := f.look["n1"]
			f.mu.Unlock()
			if !under {
				break
			}
		}
		follower.server.Config.Handler.ServeHTTP(w, r)
	}))
	defer slow.Close()
	f = New(Parts{Self: "n0", Local: self.engine,
		Peers: func() []Peer { return []Peer{{Node: "n1", URL: peer.server.URL, Client: http.DefaultClient}} },
		Copies: func(context.Context, bool) []Copy {
			c := copyOf(follower, time.Unix(0, 20))
			c.Peer.URL = slow.URL
			return []Copy{c}
		}}, quiet())
	f.setAway("n1", true)
	if have, _ := ask1(t, f, 10); have != "copy" {
		t.Fatalf("while it is looked at: %s", have)
	}
	if have, _ := ask1(t, f, 10); have != "itself" {
		t.Errorf("when the look found it: %s", have)
	}
}

// A node whose store was lost has another one, of which there is no copy yet.
func TestLinesOfAFormerStoreAreThereBeforeTheNewOneHasACopy(t *testing.T) {
	self, now, before := newNode(t), newNode(t), newNode(t)
	now.add(t, line("n1", "shop", 20, "from the new store"))
	before.add(t, line("n1", "shop", 10, "from the former store"))
	c := copyOf(before, time.Unix(1, 0))
	c.Former = true
	f := fanWith(func(context.Context, bool) []Copy { return []Copy{c} }, self, now)
	read := func() (lines []string, sum query.Summary) {
		sum, err := f.Query(t.Context(), query.Request{To: 100}, func(l *query.Line) error { lines = append(lines, string(l.Body)); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return lines, sum
	}
	if lines, sum := read(); len(lines) != 2 || sum.Partial {
		t.Errorf("%q, %+v", lines, sum)
	}
	now.server.CloseClientConnections()
	now.server.Close() // nobody has the lines of its present store
	if lines, sum := read(); len(lines) != 1 || !slices.Equal(sum.Missing, []string{"n1"}) {
		t.Errorf("%q, %+v", lines, sum)
	}
}

func TestDecideCopies(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	x := func(node, id, by string, end, from int) Copy {
		c := Copy{Node: node, ID: id, By: by, At: at(end)}
		if from > 0 {
			c.From = at(from)
		}
		return c
	}
	former := func(c Copy) Copy { c.Former = true; return c }
	members := []member{{name: "n1"}, {name: "n2"}}
	for _, c := range []struct {
		name  string
		all   []Copy
		asked string // always, by
		of1   string // when n1 does not answer, by
	}{
		{"there is none", nil, "", ""},
		{"a living node's copy is not asked", []Copy{x("n1", "a", "n2", 5, 0)}, "", "n2"},
		{"nor that of this machine", []Copy{x("n0", "a", "n2", 5, 0)}, "", ""},
		{"one of a removed node is", []Copy{x("gone", "a", "n2", 5, 0)}, "n2", ""},
		{"of two of one store the newer is better", []Copy{x("n1", "a", "n2", 5, 0), x("n1", "a", "n3", 50, 0)}, "", "n3 n2"},
		{"but not when it has less and is hardly newer", []Copy{x("n1", "a", "n2", 45, 0), x("n1", "a", "n3", 50, 40)}, "", "n2 n3"},
		{"a former store's copy is asked too", []Copy{x("n1", "old", "n3", 5, 0), x("n1", "new", "n2", 50, 0)}, "n3", "n2"},
		{"also before the present one has a copy", []Copy{former(x("n1", "old", "n3", 5, 0)), former(x("n1", "older", "n2", 4, 0))}, "n2 n3", ""},
		{"and of this machine", []Copy{former(x("n0", "old", "n3", 5, 0))}, "n3", ""},
		{"and when its copy is the older one", []Copy{former(x("n1", "old", "n3", 50, 0)), x("n1", "new", "n2", 5, 0)}, "n3", "n2"},
		{"all stores of a removed node are", []Copy{x("gone", "old", "n3", 5, 0), x("gone", "new", "n2", 50, 0)}, "n2 n3", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked []string
			for _, of := range decideFormer(c.all, "n0", members) {
				asked = append(asked, of[0].By)
			}
			slices.Sort(asked)
			var of1 []string
			f := New(Parts{Copies: func(context.Context, bool) []Copy { return c.all }}, quiet())
			for _, x := range f.copiesOf(t.Context(), "n1", false) {
				of1 = append(of1, x.By)
			}
			if strings.Join(asked, " ") != c.asked || strings.Join(of1, " ") != c.of1 {
				t.Errorf("always %v, for n1 %v", asked, of1)
			}
		})
	}
}
