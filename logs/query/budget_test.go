package query

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"perch/logs/record"
)

func TestAnswersBeyondTheBudgetSaySo(t *testing.T) {
	s := testStore(t, 4<<10)
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	var batch []record.Record
	for i := range 4000 {
		batch = append(batch, record.Record{Time: int64(i) * 1e6, Stream: st, Body: []byte("INFO served " + strings.Repeat("x", i%7) + " in 5 ms")})
	}
	if err := s.Append(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := New(s, quiet())
	for _, budget := range []struct {
		what   string
		r      Request
		reason string
	}{
		{"bytes", Request{MaxBytes: 1}, "more than 1 bytes to read"},
		{"time", Request{Timeout: time.Nanosecond}, "time is up"},
	} {
		r := budget.r
		r.Text, r.To, r.Field, r.Limit = `served ~"x+ in 5"`, 4e9, "in", 5000
		check := func(kind string, sum Summary, n int64, err error) {
			t.Helper()
			if err != nil || !sum.Partial || sum.Reason != budget.reason {
				t.Errorf("budget of %s, %s: partial is %v because of %q, want %q (%v)", budget.what, kind, sum.Partial, sum.Reason, budget.reason, err)
			}
			if n >= 3428 {
				t.Errorf("budget of %s, %s: %d lines, all of them", budget.what, kind, n)
			}
			if budget.what == "bytes" && n == 0 {
				t.Errorf("%s: what was read is not in the answer", kind)
			}
		}
		n := int64(0)
		sum, err := e.Query(t.Context(), r, func(*Line) error { n++; return nil })
		check("lines", sum, n, err)
		h, err := e.Histogram(t.Context(), r)
		check("histogram", h.Summary, h.Total, err)
		p, err := e.Patterns(t.Context(), r)
		check("patterns", p.Summary, p.Total, err)
		f, err := e.Stats(t.Context(), r)
		for _, g := range f.Groups {
			n += g.Count
		}
		check("stats", f.Summary, n/2, err)
		r.Field = "level"
		v, err := e.Values(t.Context(), r)
		n = 0
		for _, x := range v.Values {
			n += x.Count
		}
		check("values", v.Summary, n, err)
		full := r
		full.MaxBytes, full.Timeout = 0, 0
		if h, err := e.Histogram(t.Context(), full); err != nil || h.Partial || h.Total != 3428 {
			t.Fatalf("without a budget %d lines, partial is %v (%v)", h.Total, h.Partial, err)
		}
	}
	srv := serve(t, s, Access{All: true})
	_, body := get(t, srv, "query", "q", "served", "timeout", "1ns")
	var end Summary
	rows := strings.Split(strings.TrimSpace(body), "\n")
	if err := json.Unmarshal([]byte(rows[len(rows)-1]), &end); err != nil || !end.Partial || end.Reason != "time is up" {
		t.Fatal(err, body)
	}
}

func TestAnExpressionThatTakesLongEndsWithTheTime(t *testing.T) {
	s := testStore(t, 16<<20)
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	var batch []record.Record
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 3000 { // one piece
		body := make([]byte, 2000)
		for k := range body {
			body[k] = "ab"[rnd.IntN(2)]
		}
		batch = append(batch, record.Record{Time: int64(i) * 1e6, Stream: st, Body: body})
	}
	if err := s.Append(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	// Too many states for an automaton, and some 10 µs a byte for package regexp.
	r := Request{Text: `~"(a|b)*a(a|b){400}c"`, To: 4e9, Timeout: 300 * time.Millisecond}
	h, err := New(s, quiet()).Histogram(t.Context(), r)
	if err != nil || !h.Partial || h.Reason != "time is up" {
		t.Fatalf("%v: %v, %q", err, h.Partial, h.Reason)
	}
}

func TestAnExpressionThatTakesLongOnOneLineEndsWithTheTime(t *testing.T) {
	s := testStore(t, 16<<20)
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	rnd, body := rand.New(rand.NewPCG(1, 1)), []byte("k=")
	for len(body) < record.MaxBody {
		body = append(body, "ab"[rnd.IntN(2)])
	}
	if err := s.Append(t.Context(), []record.Record{{Time: 1, Stream: st, Body: body}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, sealed := range []bool{false, true} {
		if sealed {
			if err := s.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range []string{`-~"(a|b)*a(a|b){600}c"`, `-k:~"(a|b)*a(a|b){600}c"`} { // seconds
			n := 0
			sum, err := New(s, quiet()).Query(t.Context(), Request{Text: text, To: 4e9, Timeout: 100 * time.Millisecond}, func(*Line) error { n++; return nil })
			if err != nil || n > 0 || !sum.Partial || sum.Reason != "time is up" {
				t.Errorf("%s: %d lines, %v, %q, %v", text, n, sum.Partial, sum.Reason, err)
			}
		}
	}
}

func TestATextIsSearchedAsLongAsThereIsTime(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for _, expression := range []string{`é{3}x*`, `^\x{fffd}`, `(?m)b$`, `\bab\b`, `c\z`, `(?i)AB\n`, `[^a]\x{10ffff}?c`} {
		q, err := Parse("~" + phrase(expression))
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			var text []byte
			for range rnd.IntN(40) {
				text = append(text, []string{"a", "b", "c", "é", "\xff", "\n", " ", "\xf0\x9f", "\U0010ffff"}[rnd.IntN(9)]...)
			}
			if have, want := q.root.re.MatchReader(&timedText{text: text, over: t.Context().Err}), q.root.re.Match(text); have != want {
				t.Fatalf("%s in %q: %v, want %v", expression, text, have, want)
			}
		}
	}
	looks := 0
	r := timedText{text: make([]byte, 10*lookedText), over: func() error {
		if looks++; looks > 3 {
			return context.DeadlineExceeded
		}
		return nil
	}}
	n := 0
	for _, _, err := r.ReadRune(); err == nil; _, _, err = r.ReadRune() {
		n++
	}
	if n != 3*lookedText || r.late == nil || looks != 4 {
		t.Errorf("%d runes, %d looks, %v", n, looks, r.late)
	}
}
