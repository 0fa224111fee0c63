package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"perch/logs/record"
)

// An answer has a size that a machine can bear, however long the lines are; the
// pages together have every line once.
func TestAnswersOfLongLinesComeInSmallerPages(t *testing.T) {
	const lines = 400
	s := testStore(t, 1<<20)
	long := bytes.Repeat([]byte("x"), 200<<10)
	streams := []*record.Stream{{Namespace: "shop", Pod: "a"}, {Namespace: "shop", Pod: "b"}}
	for i := range lines {
		body := fmt.Appendf(nil, "line %d ", i)
		if i%10 != 3 {
			body = append(body, long...)
		}
		if err := s.Append(t.Context(), []record.Record{{Time: int64(i) + 1, Stream: streams[i/7%2], Body: body}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	e := New(s, quiet())
	for _, order := range []Order{NewestFirst, OldestFirst} {
		var have []string
		pages := 0
		for r := (Request{To: 1e9, Limit: 1000, Order: order}); ; pages++ {
			size := 0
			sum, err := e.Query(t.Context(), r, func(l *Line) error {
				size += len(l.Body)
				name, _, _ := bytes.Cut(l.Body, []byte(" x"))
				have = append(have, strings.TrimSpace(string(name)))
				return nil
			})
			if err != nil || sum.Partial || size > MaxAnswer || pages > 10 {
				t.Fatal(err, sum, size, pages)
			}
			if sum.Cursor == "" {
				break
			}
			c, err := ParseCursor(sum.Cursor)
			if err != nil {
				t.Fatal(err)
			}
			r.Cursor = &c
		}
		if pages < 2 || len(have) != lines {
			t.Fatalf("%d lines in %d pages", len(have), pages+1)
		}
		for i, name := range have {
			if order == NewestFirst {
				i = lines - 1 - i
			}
			if name != fmt.Sprintf("line %d", i) {
				t.Fatalf("%s in the place of line %d", name, i)
			}
		}
	}

	// A context has no pages: it says what is missing.
	srv := serve(t, s, Access{All: true})
	_, body := get(t, srv, "query", "q", `"line 399"`, "limit", "1")
	var line struct{ ID string }
	if err := json.NewDecoder(strings.NewReader(body)).Decode(&line); err != nil {
		t.Fatal(err, body[:min(len(body), 200)])
	}
	for _, scope := range []string{"stream", "pod"} {
		_, body := get(t, srv, "context", "id", line.ID, "before", "300", "after", "10", "scope", scope)
		if len(body) > 3*MaxAnswer || !strings.Contains(body, "more than 33554432 bytes of lines") || !strings.Contains(body, `"line":"line 399 x`) {
			t.Errorf("%s: %d bytes end with %s", scope, len(body), body[max(0, len(body)-200):])
		}
	}
}

// What is counted by values is small, however long they are, and so is the part of a
// node, however many there are in however many buckets.
func TestCountsByLongValuesAreSmall(t *testing.T) {
	const lines = 300
	s := testStore(t, 1<<20)
	st := &record.Stream{Namespace: "shop", Pod: "a"}
	long := strings.Repeat("ü", 10_000)
	for i := range lines {
		body := fmt.Appendf(nil, `{"msg":"%04d %s","same":"%s %d","%s%d":1}`, i, long, long, i, long[:300], i)
		if err := s.Append(t.Context(), []record.Record{{Time: int64(i+1) * 1e6, Stream: st, Body: body}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	e := New(s, quiet())
	ask := Request{To: (lines + 1) * 1e6, Raw: true}
	all := func(what string, values []string) {
		t.Helper()
		if longest := slices.MaxFunc(values, func(a, b string) int { return len(a) - len(b) }); len(longest) > valueBytes+len("…") {
			t.Errorf("%s: a value has %d bytes", what, len(longest))
		}
		if want := map[string]int{"msg": lines, "same": 1}[what[strings.LastIndexByte(what, ' ')+1:]]; len(values) != want {
			t.Errorf("%s: %d values, want %d", what, len(values), want)
		}
	}
	for _, field := range []string{"msg", "same"} {
		r := ask
		r.Field, r.Buckets = field, 2000
		h, err := e.Histogram(t.Context(), r)
		if err != nil || h.Total != lines {
			t.Fatal(err, h.Total)
		}
		cells := 0
		for _, b := range h.Buckets {
			cells += len(b.Values)
		}
		if most := histogramCells/len(h.Buckets) + 1; len(h.Values) > most || field == "same" && len(h.Values) != 1 || cells > lines {
			t.Errorf("%s: %d values of %d, %d cells", field, len(h.Values), most, cells)
		}
		for v, n := range h.Values {
			if v != Others && (len(v) > valueBytes+len("…") || !utf8.ValidString(v) || !strings.HasSuffix(v, "…")) || field == "same" && n != lines {
				t.Errorf("%s: %d of %d bytes: %q", field, n, len(v), v)
			}
		}
		r = ask
		r.By = field
		g, err := e.Stats(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		var groups, values []string
		for _, x := range g.Groups {
			groups = append(groups, x.Group)
		}
		all("stats of "+field, groups)
		r = ask
		r.Field, r.Limit = field, lines
		v, err := e.Values(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range v.Values {
			values = append(values, x.Value)
		}
		all("values of "+field, values)
	}
}
