package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

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
