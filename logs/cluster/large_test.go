package cluster

import (
	"fmt"
	"strings"
	"testing"

	"perch/logs/query"
	"perch/logs/record"
)

// A line with the largest fields that a store keeps fits into the answer of a
// peer: else the node would be missing for everybody who asks for that time.
func TestALineWithLargeFieldsDoesNotMakeItsNodeMissing(t *testing.T) {
	a, b := newNode(t), newNode(t)
	large := line("b", "shop", 2, strings.Repeat("\xff", record.MaxBody))
	large.Fields = []record.Field{{Key: "dump", Value: strings.Repeat("\x01", 3<<20)}, {Key: "user", Value: "42"}}
	b.add(t, line("b", "shop", 1, "small"), large)
	var have []*query.Line
	sum, err := fan(a, b).Query(t.Context(), query.Request{To: 10}, func(l *query.Line) error { have = append(have, l); return nil })
	if err != nil || sum.Partial || len(sum.Missing) > 0 || len(have) != 2 {
		t.Fatal(err, sum, len(have))
	}
	if fields := string(have[0].Fields); !strings.Contains(fields, `[cut: 2097152 bytes more]"`) || !strings.Contains(fields, `"user":" …[cut: 2 bytes more]"`) {
		t.Errorf("%d bytes of fields end with %s", len(fields), fields[max(0, len(fields)-200):])
	}
}

// A part of an answer may end sooner than others because its lines are long: the
// page ends there, and none of its lines is left out.
func TestAPageEndsWhereAPartStops(t *testing.T) {
	const lines = 300
	a, b := newNode(t), newNode(t)
	for i := range lines {
		if i%2 == 0 {
			a.add(t, line("a", "shop", int64(i)+1, fmt.Sprintf("line %d", i)))
		} else {
			b.add(t, line("b", "shop", int64(i)+1, fmt.Sprintf("line %d ", i)+strings.Repeat("x", record.MaxBody-20)))
		}
	}
	wantPages(t, fan(a, b), lines)
}

// Many nodes have less room each, so that all together have what two have.
func TestAPartOfManyHasLessRoom(t *testing.T) {
	const lines, each = 330, record.MaxBody - 20
	nodes := []*node{newNode(t), newNode(t), newNode(t), newNode(t), newNode(t), newNode(t)}
	for i := range lines { // five in six are of one node
		at := nodes[0]
		if i%6 == 5 {
			at = nodes[1+i/6%5]
		}
		at.add(t, line("n", "shop", int64(i)+1, fmt.Sprintf("line %d ", i)+strings.Repeat("x", each)))
	}
	wantPages(t, fan(nodes...), lines)
	var p part
	for range lines {
		p.add(&query.Line{Body: make([]byte, each)}, allParts/6)
	}
	if n := len(p.lines) * each; n > allParts/6 || n < allParts/6-2*each || !p.goesOn() {
		t.Errorf("a part of six has %d bytes", n)
	}
}

// wantPages reads that many numbered lines page by page, in both orders.
func wantPages(t *testing.T, f *Fan, lines int) {
	t.Helper()
	for _, order := range []query.Order{query.NewestFirst, query.OldestFirst} {
		next, pages := 0, 0
		for r := (query.Request{To: 1e9, Limit: 1000, Order: order}); ; pages++ {
			sum, err := f.Query(t.Context(), r, func(l *query.Line) error {
				want := next
				if order == query.NewestFirst {
					want = lines - 1 - next
				}
				if name := fmt.Sprintf("line %d ", want); !strings.HasPrefix(string(l.Body)+" ", name) {
					t.Fatalf("%.20s in the place of %s", l.Body, name)
				}
				next++
				return nil
			})
			if err != nil || sum.Partial || pages > 10 {
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
		if next != lines || pages == 0 {
			t.Fatalf("%d lines in %d pages", next, pages+1)
		}
	}
}
