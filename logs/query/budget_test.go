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
	if err := s.Append(t.Context(), []record.Record{{Time: 1, Stream: st, Body: longBody()}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, sealed := range []bool{false, true} {
		if sealed {
			if err := s.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range []string{`-~` + longExpression, `-k:~` + longExpression} { // seconds
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

// longBody is one that expressions like longExpression take seconds for.
func longBody() []byte {
	rnd, body := rand.New(rand.NewPCG(1, 1)), []byte("k=")
	for len(body) < record.MaxBody {
		body = append(body, "ab"[rnd.IntN(2)])
	}
	return body
}

const longExpression = `"(a|b)*a(a|b){600}c"`

func TestExpressionsOnLinesThatComeHaveAnAllowance(t *testing.T) {
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	slow := record.Record{Stream: st, Body: longBody()}
	short := record.Record{Stream: st, Body: []byte("k=abba")}
	prefixed := record.Record{Stream: st, Body: []byte("k=" + strings.Repeat("no ", 80_000))}
	for _, text := range []string{"~" + longExpression, "k:~" + longExpression, "-~" + longExpression} {
		q, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var a Allowance
		a.left(time.Now())
		a.take(allowanceMost - 50*time.Millisecond)
		var l Live
		l.Look(&slow)
		if _, known := q.Finds(&l, &a); known {
			t.Errorf("%s: it is said whether it finds what takes seconds", text)
		}
		if have := a.left(time.Now()); have > allowanceMost/10 {
			t.Errorf("%s: %s are left", text, have)
		}
		l.Look(&short)
		if is, known := q.Finds(&l, &a); !known || is != strings.HasPrefix(text, "-") {
			t.Errorf("%s in a short line: %v, %v", text, is, known)
		}
	}
	q, err := Parse(`~"quick(a|b)*a(a|b){600}c"`)
	if err != nil {
		t.Fatal(err)
	}
	var spent Allowance
	spent.left(time.Now())
	spent.take(time.Hour)
	var l Live
	l.Look(&prefixed)
	if is, known := q.Finds(&l, &spent); is || !known {
		t.Errorf("without the text that begins each match: %v, %v", is, known)
	}
}

func TestAllowanceComesBack(t *testing.T) {
	var a Allowance
	at := time.Unix(1e9, 0)
	if have := a.left(at); have != allowanceMost {
		t.Fatal(have)
	}
	a.take(3 * allowanceMost)
	for _, step := range []struct{ after, want time.Duration }{{0, -2 * allowanceMost}, {20 * allowanceMost, 0}, {5 * allowanceMost, allowanceMost / 2}, {time.Hour, allowanceMost}} {
		at = at.Add(step.after)
		if have := a.left(at); have != step.want {
			t.Errorf("after %s: have %s, want %s", step.after, have, step.want)
		}
	}
}

func TestALiveTailLeavesOutLinesItHasNoTimeFor(t *testing.T) {
	s := testStore(t, 16<<20)
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began, dropped, line := time.Time{}, int64(0), ""
	r := Request{Text: `-~` + longExpression, Cursor: &Cursor{}}
	if err := s.Append(ctx, []record.Record{{Time: 1, Stream: st, Body: []byte("begin")}}, nil); err != nil {
		t.Fatal(err)
	}
	err := New(s, quiet()).Tail(ctx, r, func(e TailEvent) error {
		dropped += e.Dropped
		switch {
		case e.Line != nil && string(e.Line.Body) == "begin": // it is followed now
			began = time.Now()
			return s.Append(ctx, []record.Record{{Time: 2, Stream: st, Body: longBody()}, {Time: 3, Stream: st, Body: []byte("end")}}, nil)
		case e.Line != nil:
			line = string(e.Line.Body)
		}
		if dropped > 0 && line != "" {
			cancel()
		}
		return nil
	})
	if took := time.Since(began); err != nil || dropped != 1 || line != "end" || took > 5*time.Second {
		t.Errorf("%d dropped, %q after %s: %v", dropped, line, took, err)
	}
}
