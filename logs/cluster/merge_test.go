package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"perch/logs/query"
	"perch/logs/record"
)

// spread writes lines to two nodes, one of which has cut them into blocks, and
// all of them to a third.
func spread(t *testing.T, seed uint64) (f *Fan, all *query.Engine) {
	a, b, whole := newNode(t), newNode(t), newNode(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var lines [2][]record.Record
	for i := range 6000 {
		k := rnd.IntN(2)
		body := ""
		switch n := rnd.IntN(20); {
		case n < 5: // most on the first node
			k = min(k, rnd.IntN(3)/2)
			body = fmt.Sprintf("INFO served request req%d status=%d took=%d", rnd.IntN(4000), 200+rnd.IntN(4)*100, rnd.IntN(900)-100)
		case n < 10: // on the second
			k = 1
			body = fmt.Sprintf("ERROR payment %d refused by bank-%d took=%d.5", i, rnd.IntN(3), rnd.IntN(9000))
		case n < 14:
			body = fmt.Sprintf("WARN slow query on table orders, took=%d", rnd.IntN(50)*100)
		case n < 16:
			body = strings.Repeat(fmt.Sprintf("a long line %d é ", rnd.IntN(9)), 60) + []string{"left", "right"}[rnd.IntN(2)]
		default:
			body = []string{"DEBUG nothing to do", "INFO started", "INFO stopped status=none"}[n%3]
		}
		r := record.Record{Time: int64(i)*1e6 + 1, Body: []byte(body),
			Stream: &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("web-%d", rnd.IntN(3)), Node: fmt.Sprint(k), Output: "stdout", Kind: "log"}}
		lines[k] = append(lines[k], r)
	}
	a.add(t, lines[0]...)
	b.add(t, lines[1]...)
	both := slices.Concat(lines[0], lines[1])
	slices.SortFunc(both, func(a, b record.Record) int { return cmp.Compare(a.Time, b.Time) })
	whole.add(t, both...)
	if err := a.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return fan(a, b), whole.engine
}

func TestPatternsOfTwoNodesAreThoseOfAllTheirLines(t *testing.T) {
	f, all := spread(t, 7)
	for _, q := range []string{"", "took", "req1* or level:error", "pod:web-1 -status:200"} {
		for _, limit := range []int{2, 100} {
			r := query.Request{Text: q, To: 10e9, Limit: limit, Buckets: 24}
			have, err := f.Patterns(t.Context(), r)
			if err != nil || have.Partial {
				t.Fatal(err, have.Summary)
			}
			want, err := all.Patterns(t.Context(), r)
			if err != nil || len(want.Patterns) < 2 || want.Patterns[0].Count < 20 {
				t.Fatalf("%s: %d patterns (%v)", q, len(want.Patterns), err)
			}
			if have.Total != want.Total || have.Other != want.Other || have.Step != want.Step || len(have.Patterns) != len(want.Patterns) {
				t.Fatalf("%s: %d lines, %d of other patterns, %d patterns; want %d, %d, %d", q, have.Total, have.Other, len(have.Patterns), want.Total, want.Other, len(want.Patterns))
			}
			for i := range want.Patterns {
				w := want.Patterns[i]
				w.ID = have.Patterns[i].ID // numbers of lines differ
				if !reflect.DeepEqual(have.Patterns[i], w) {
					t.Errorf("%s:\nhave %+v\nwant %+v", q, have.Patterns[i], w)
				}
			}
		}
	}
}

func TestFiguresOfAFieldOnTwoNodesAreThoseOfAllTheirLines(t *testing.T) {
	f, all := spread(t, 8)
	for _, x := range []struct {
		q, field, by string
		unique       [2]int64 // of the largest group, at least and at most
	}{
		{"", "took", "", [2]int64{2000, 4000}}, // more than are counted exactly
		{"", "status", "pod", [2]int64{5, 5}},
		{"level:>=warn", "took", "level", [2]int64{1, 4000}},
		{"served", "took", "status", [2]int64{200, 400}},
		{"", "", "node", [2]int64{0, 0}},
	} {
		r := query.Request{Text: x.q, To: 10e9, Field: x.field, By: x.by}
		have, err := f.Stats(t.Context(), r)
		if err != nil || have.Partial {
			t.Fatal(err, have.Summary)
		}
		want, err := all.Stats(t.Context(), r)
		if err != nil || len(want.Groups) == 0 {
			t.Fatal(err, want)
		}
		if !reflect.DeepEqual(have.Groups, want.Groups) {
			t.Errorf("%s by %s of %q:\nhave %+v\nwant %+v", x.field, x.by, x.q, have.Groups, want.Groups)
		}
		if u := want.Groups[0].Unique; u < x.unique[0] || u > x.unique[1] {
			t.Errorf("%s by %s of %q: %d values, want %v", x.field, x.by, x.q, u, x.unique)
		}
	}
}

func TestPatternsWereFirstSeenOnWhicheverNode(t *testing.T) {
	a, b := newNode(t), newNode(t)
	a.add(t, line("0", "shop", 50e9, "request 7 refused"), line("0", "shop", 51e9, "never before 3"))
	b.add(t, line("1", "shop", 20e9, "request 8 refused"), line("1", "bank", 10e9, "request 9 refused"))
	for _, away := range []bool{false, true} {
		if away {
			b.server.CloseClientConnections()
			b.server.Close()
		}
		srv := httptest.NewServer(query.Handler(fan(a, b), func(context.Context, *http.Request) (query.Access, error) {
			return query.Access{Namespaces: []string{"shop"}}, nil
		}, quiet()))
		defer srv.Close()
		resp, err := http.Get(srv.URL + query.Prefix + "patterns?from=40&to=60")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() // read only
		var p query.Patterns
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || len(p.Patterns) != 2 {
			t.Fatal(p, err)
		}
		var have []string
		for _, x := range p.Patterns {
			have = append(have, fmt.Sprint(x.Pattern, " ", x.Seen.Time.Unix(), " ", x.Seen.MaybeEarlier))
		}
		want := []string{"never before <*> 51 false", "request <*> refused 20 false"}
		if away {
			want = []string{"never before <*> 51 true", "request <*> refused 50 true"}
		}
		if !slices.Equal(have, want) {
			t.Errorf("away %v: have %q, want %q", away, have, want)
		}
	}
}
