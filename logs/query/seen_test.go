package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"perch/logs/index"
	"perch/logs/record"
)

func TestPatternsTellWhenTheyWereFirstSeenAndByWhichImage(t *testing.T) {
	s := testStore(t, 1<<20)
	pod := func(namespace, name string, kind string) *record.Stream {
		return &record.Stream{Namespace: namespace, Pod: name, Container: "app", Output: record.Stdout, Kind: kind}
	}
	pulled := func(at int64, pod *record.Stream, image string) record.Record {
		return record.Record{Time: at * 1e9, Stream: pod, Body: fmt.Appendf(nil, "Pulled: Successfully pulled image %q in 3s", image)}
	}
	line := func(at int64, pod *record.Stream, text string) record.Record {
		return record.Record{Time: at * 1e9, Stream: pod, Body: []byte(text)}
	}
	old, web := pod("shop", "web-1", record.KindLog), pod("shop", "web-2", record.KindLog)
	again := pod("shop", "web-1", record.KindLog) // its image was changed in place
	again.Instance = "1"
	oldEvents, webEvents := pod("shop", "web-1", record.KindEvent), pod("shop", "web-2", record.KindEvent)
	if err := s.Append(t.Context(), []record.Record{
		line(1, pod("bank", "b", record.KindLog), "INFO request 1 took 3 ms"), // nobody may read it
		pulled(2, oldEvents, "shop/web:1"), line(3, old, "INFO request 4 took 12 ms"), line(3, old, "ERROR no route to host 7"), line(4, old, "ERROR no route to host 8"),
		pulled(6, oldEvents, "shop/web:1b"), line(7, again, "INFO cache warmed with 12 entries"),
		pulled(50, webEvents, "shop/web:2"), line(61, web, "INFO request 8 took 1 ms"), line(62, web, "INFO no route to host 9"), line(63, web, "ERROR panic: index 3"), line(64, web, "INFO cache warmed with 3 entries"), line(65, web, "<>"),
	}, nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{Namespaces: []string{"shop"}})
	for _, step := range []struct {
		state string
		do    func() error
	}{{"heads", func() error { return nil }}, {"blocks", func() error { return s.Flush(t.Context()) }}, {"sealed", func() error { return s.Seal(t.Context()) }}} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		_, body := get(t, srv, "patterns", "q", "-kind:event -cannot", "from", "60", "to", "70")
		var p Patterns
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatal(err, body)
		}
		var have []string
		for _, x := range p.Patterns {
			if x.Seen == nil || x.Seen.MaybeEarlier {
				t.Fatalf("%s: %s", step.state, body)
			}
			have = append(have, fmt.Sprintf("%s: %d, %s since %d by %s", x.Pattern, x.First.Unix(), x.Seen.Pod, x.Seen.Time.Unix(), x.Image))
		}
		want := []string{
			"<>: 65, web-2 since 65 by shop/web:2",
			"ERROR panic: index <*>: 63, web-2 since 63 by shop/web:2",
			"INFO cache warmed with <*> entries: 64, web-1 since 7 by shop/web:1b",
			"INFO no route to host <*>: 62, web-2 since 62 by shop/web:2",
			"INFO request <*> took <*> ms: 61, web-1 since 3 by shop/web:1",
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s:\nhave %s\nwant %s", step.state, strings.Join(have, "\n     "), strings.Join(want, "\n     "))
		}
		// The rest of the query counts for the older lines too.
		_, body = get(t, srv, "patterns", "q", "pod:web-2 took", "from", "60", "to", "70")
		if err := json.Unmarshal([]byte(body), &p); err != nil || p.Patterns[0].Seen.Pod != "web-2" {
			t.Errorf("%s: %v %s", step.state, err, body)
		}
	}
}

// lineOfKind is one of some kinds, most of which are rare, of few words or none.
func lineOfKind(rnd *rand.Rand, n int) []byte {
	switch kind := rnd.IntN(3000); {
	case kind < 1000:
		return fmt.Appendf(nil, "served r%d took=%d %s", n, rnd.IntN(200), []string{"GET", "POST"}[rnd.IntN(2)])
	case kind < 1030:
		return fmt.Appendf(nil, "{%d}%s", n, strings.Repeat(" -", kind%30))
	case kind < 1060:
		return fmt.Appendf(nil, "caf\xe9 %s %d", strings.Repeat("é", kind%30), n)
	case kind < 1070:
		return append([]byte(strings.Repeat("a long one ", 60)), fmt.Sprint("cut ", kind)...)
	default:
		return fmt.Appendf(nil, "rare %s happened at %d", strings.Repeat(string(rune('a'+kind%26)), 1+kind%20), n)
	}
}

func TestFirstLinesOfPatternsAreThoseOfAScan(t *testing.T) {
	c := newTrial(t, 8<<10, lineOfKind)
	for _, step := range []func() error{
		func() error { return c.s.Flush(t.Context()) },
		func() error { return nil },
		func() error { return errors.Join(c.s.Flush(t.Context()), c.s.Seal(t.Context())) },
		func() error { err := c.s.Close(); c.open(t); return err },
	} {
		c.add(t, 1200)
		if err := step(); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"", "rare", "-level:error", "took=1*"} {
			q, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]int64{}
			for i, r := range c.lines {
				var l candidate
				if l.reset(r.Stream, c.levels[i], r.Body, nil, nil); !q.root.match(&l) {
					continue
				}
				p := string(appendPattern(nil, r.Body))
				if at, ok := want[p]; !ok || r.Time < at {
					want[p] = r.Time
				}
			}
			all := int64(len(c.lines)) * 1e9
			r := Request{Query: q, From: all * 3 / 4, To: all, Limit: 1000, Timeout: time.Minute}
			if r, err = r.Normal(); err != nil {
				t.Fatal(err)
			}
			p, err := New(c.s, quiet()).Patterns(t.Context(), r)
			if err != nil || p.Partial || len(p.Patterns) < 2 {
				t.Fatalf("%q: %d patterns, %+v (%v)", text, len(p.Patterns), p.Summary, err)
			}
			e, older := New(c.s, quiet()), 0
			tellSeen(t.Context(), e, r, &p)
			for _, x := range p.Patterns {
				if x.Seen == nil || x.Seen.MaybeEarlier || x.Seen.Time.UnixNano() != want[x.Pattern] {
					t.Fatalf("%q: %s: have %+v, want %v", text, x.Pattern, x.Seen, time.Unix(0, want[x.Pattern]).UTC())
				}
				if x.Seen.Time.Before(x.First) {
					older++
				}
			}
			if older == 0 {
				t.Errorf("%q: nothing was first seen before", text)
			}
		}
	}
}

func TestWhatWasNotLookedAtForFirstLinesIsTold(t *testing.T) {
	s := testStore(t, 4<<10)
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	var batch []record.Record
	for i := range 4000 {
		text := fmt.Sprintf("INFO served %d with %s", i, strings.Repeat("x", i%7))
		if i == 3000 {
			text = "WARN a late one"
		}
		batch = append(batch, record.Record{Time: int64(i) * 1e6, Stream: st, Body: []byte(text)})
	}
	batch = append(batch, record.Record{Time: 10e9, Stream: st, Body: []byte("INFO served 1 with xx")}, record.Record{Time: 10e9, Stream: st, Body: []byte("WARN a late one")})
	if err := s.Append(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := New(s, quiet())
	ask := func(ctx context.Context, by Searcher) map[string]Seen {
		r, err := Request{From: 9e9, To: 11e9}.Normal()
		if err != nil {
			t.Fatal(err)
		}
		p, err := e.Patterns(t.Context(), r)
		if err != nil || len(p.Patterns) != 2 {
			t.Fatal(p, err)
		}
		tellSeen(ctx, by, r, &p)
		out := map[string]Seen{}
		for _, x := range p.Patterns {
			out[x.Pattern] = *x.Seen
		}
		return out
	}
	if have := ask(t.Context(), e); have["WARN a late one"].MaybeEarlier || have["WARN a late one"].Time.UnixNano() != 3e9 {
		t.Fatalf("%+v", have)
	}
	// With little to read only what is found at the begin is certain.
	have := ask(t.Context(), limited{e, Request{MaxBytes: 1, Timeout: time.Minute}})
	if x := have["INFO served <*> with xx"]; x.MaybeEarlier || x.Time.UnixNano() != 2e6 {
		t.Errorf("%+v", x)
	}
	if x := have["WARN a late one"]; !x.MaybeEarlier || x.Time.UnixNano() != 10e9 {
		t.Errorf("%+v", x)
	}
	for _, x := range ask(t.Context(), limited{e, Request{MaxBytes: 1 << 30, Timeout: time.Nanosecond}}) {
		if !x.MaybeEarlier || x.Time.UnixNano() != 10e9 {
			t.Errorf("%+v", x)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, x := range ask(gone, e) {
		if !x.MaybeEarlier {
			t.Errorf("%+v", x)
		}
	}
}

// limited asks with limits of its own.
type limited struct {
	*Engine
	of Request
}

func (l limited) Patterns(ctx context.Context, r Request) (Patterns, error) {
	r.MaxBytes, r.Timeout = l.of.MaxBytes, l.of.Timeout
	return l.Engine.Patterns(ctx, r)
}

func TestNeedOfAPatternHasWholeWordsOnly(t *testing.T) {
	long := strings.Repeat("word ", 101) + "cut off here"
	for text, want := range map[string][]string{
		"served <*> in <*> ms with great effort": {"served", "effort", "great", "with"},
		"<*>, <*>":                               nil,
		"Caf\ufffd opened ok":                    {"opened"},
		string(appendPattern(nil, []byte(long))): {"word", "word", "word", "word"},
		"tail caf\ufffd":                         {"tail"},
	} {
		var have []string
		need := patternNeed(text)
		for _, kid := range append(need.Kids, need) {
			if kid.Op == index.Word {
				have = append(have, kid.Text)
			}
		}
		if !slices.Equal(have, want) {
			t.Errorf("%q: have %q, want %q", text, have, want)
		}
	}
}

// What was not looked for, not listed or not counted whole is told as that.
func TestFiguresTellWhatTheyLeaveOut(t *testing.T) {
	s := testStore(t, 1<<20)
	const pods = imageLookups + 5
	var records []record.Record
	for i := range pods {
		st := &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("p-%c", 'a'+i), Container: "app", Kind: "log"}
		event := &record.Stream{Namespace: "shop", Pod: st.Pod, Container: "app", Kind: "event"}
		records = append(records,
			record.Record{Time: 1, Stream: event, Body: fmt.Appendf(nil, `Pulled: image "img/%c" was there`, 'a'+i)},
			record.Record{Time: int64(10 + i), Stream: st, Body: fmt.Appendf(nil, "kind %c size=%d", 'a'+i, i)})
	}
	records = append(records, record.Record{Time: 2, Stream: &record.Stream{Namespace: "shop", Kind: "log"}, Body: []byte("kind of no container")})
	if err := s.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
	e := New(s, quiet())
	r := Request{Text: "kind:log kind", From: 0, To: 1000}
	p, err := e.Patterns(t.Context(), r)
	if err != nil || len(p.Patterns) != pods+1 {
		t.Fatal(err, len(p.Patterns))
	}
	n, err := r.Normal()
	if err != nil {
		t.Fatal(err)
	}
	tellSeen(t.Context(), e, n, &p)
	images, unsought := 0, 0
	for _, x := range p.Patterns {
		if x.Image != "" {
			images++
		}
		if x.Unsought {
			unsought++
		}
		if x.Pod == "" && x.Unsought {
			t.Error("no container wrote it, but its image is to be looked for")
		}
	}
	if images != imageLookups || unsought != pods-imageLookups {
		t.Errorf("%d images, %d were not looked for", images, unsought)
	}
	for limit, other := range map[int]int64{10: pods + 1 - 10, 100: 0} {
		f, err := e.Stats(t.Context(), Request{Text: r.Text, To: 1000, Field: "size", By: "pod", Limit: limit})
		if err != nil || f.Other != other {
			t.Errorf("of %d groups: %d lines are of others, want %d (%v)", limit, f.Other, other, err)
		}
	}
	v, err := e.Values(t.Context(), Request{Text: r.Text, To: 1000, Field: "size"})
	if err != nil || v.Sampled || len(v.Values) != pods {
		t.Errorf("%d values, sampled %v (%v)", len(v.Values), v.Sampled, err)
	}
	for i := range records {
		records[i].Time += 1000
	}
	for len(records) <= sampleLines {
		records = append(records, records...)
	}
	if err := s.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
	if v, err = e.Values(t.Context(), Request{To: 1e6, Field: "size"}); err != nil || !v.Sampled {
		t.Errorf("of %d lines: sampled %v (%v)", len(records), v.Sampled, err)
	}
}
