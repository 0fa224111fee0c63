package share

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"perch/metrics/promapi"
	"perch/metrics/store"
)

// examples are the exemplars that a database has of series i, oldest first.
func examples(t *testing.T, db storage.ExemplarQueryable, i string) (out []string) {
	t.Helper()
	q, err := db.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Select(0, math.MaxInt64/2, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", i)}, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", "none")})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 1 {
		t.Fatalf("one series is there %d times", len(found))
	}
	for _, f := range found {
		for _, e := range f.Exemplars {
			out = append(out, fmt.Sprintf("%g %s @%d", e.Value, e.Labels, e.Ts))
		}
	}
	return out
}

// unanswered are the warnings of an answer with exemplars.
func unanswered(t *testing.T, db storage.ExemplarQueryable, from, to int64) string {
	t.Helper()
	q, err := db.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Select(from, to, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", "7")}); err != nil {
		t.Fatal(err)
	}
	w, ok := q.(promapi.Warned)
	if !ok {
		t.Fatal("a querier of all stores tells no warnings")
	}
	all, _ := w.Warnings().AsStrings("", 0, 0)
	return strings.Join(all, "; ")
}

func TestExemplarsHaveACopyToo(t *testing.T) {
	s := newSite(t, "b", "c")
	s.set("b", "c")
	at := time.Now().UnixMilli() - 60_000
	write := func(in *store.Inlet, at int64, v float64) {
		t.Helper()
		var batch store.Batch
		for i := range 20 {
			l := labels.FromStrings("__name__", "took_bucket", "i", fmt.Sprint(i))
			batch.Samples = append(batch.Samples, store.Sample{Labels: l, T: at, V: 1})
			batch.Exemplars = append(batch.Exemplars, store.Exemplar{Labels: l, T: at, V: v, With: labels.FromStrings("trace_id", fmt.Sprint("t", i))})
		}
		if done, err := in.AppendAll(t.Context(), batch); err != nil || done.Refused > 0 {
			t.Fatal(done, err)
		}
	}
	write(s.in, at, 1)
	write(s.in, at+1, math.Inf(1))
	want := func(i int) []string {
		return []string{fmt.Sprintf(`1 {trace_id="t%d"} @%d`, i, at), fmt.Sprintf(`+Inf {trace_id="t%d"} @%d`, i, at+1)}
	}
	until(t, "each is in one of them", func() bool {
		for i := range 20 {
			b, c := examples(t, s.kept["b"].db, fmt.Sprint(i)), examples(t, s.kept["c"].db, fmt.Sprint(i))
			if have := slices.Concat(b, c); !slices.Equal(have, want(i)) || len(b) > 0 && len(c) > 0 {
				return false
			}
		}
		return true
	})
	s.loseDisk()
	until(t, "the others are asked", func() bool { return len(s.fan.away()) == 0 })
	write(s.in, at+1, math.Inf(1)) // it was told again
	now := time.Now().UnixMilli() + 1000
	write(s.in, now, 3)
	for i := range 20 {
		if have, want := examples(t, s.fan, fmt.Sprint(i)), append(want(i), fmt.Sprintf(`3 {trace_id="t%d"} @%d`, i, now)); !slices.Equal(have, want) {
			t.Errorf("the server that lost its disk has %q, want %q", have, want)
		}
	}
	if text := unanswered(t, s.fan, 0, now); text != "" {
		t.Errorf("all answer, and it is told: %s", text)
	}
	s.kept["b"].away.Store(true)
	s.kept["c"].away.Store(true)
	if text := unanswered(t, s.fan, 0, now); !promapi.Partial([]string{text}) || !strings.HasSuffix(text, "do not answer: b, c") {
		t.Errorf("nobody answers, and it is told: %q", text)
	}
	if text := unanswered(t, s.fan, now, now); text != "" {
		t.Errorf("of what the server has itself it is told: %s", text)
	}
	if have := examples(t, s.fan, "7"); len(have) != 2 {
		t.Errorf("without the others the server has %q", have)
	}
}

func TestAStoreOfAnOlderVersionHasNoExemplarsAndIsNotAway(t *testing.T) {
	s := newSite(t, "b")
	s.set("b")
	p, err := newPeer(s.kept["b"].Store, s.kept["b"].url+"/nowhere", &http.Client{}, DefaultLimits(), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	p.now.Away = false
	if got, err := p.exemplars(t.Context(), examplesQuestion{}); err != nil || len(got) > 0 || p.view().Away {
		t.Errorf("%v, %v, away %v", got, err, p.view().Away)
	}
}
