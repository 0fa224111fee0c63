package rule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

func TestAlertsFromOutsideAreSeriesAsLongAsTheyFire(t *testing.T) {
	d := data(t)
	var now []map[string]string
	o := NewOutside(time.Hour, func() []map[string]string { return now }, d.Append, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	at := time.Now().Truncate(time.Second)
	step := func(fire ...map[string]string) string {
		t.Helper()
		now, at = fire, at.Add(5*time.Second)
		if err := o.write(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		v, err := d.Query(t.Context(), `ALERTS{alertstate="firing", severity!="none"}`, at)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range v {
			out = append(out, s.Metric.Get("alertname")+s.Metric.Get("pod"))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	slow, full := map[string]string{"alertname": "Slow", "pod": "a"}, map[string]string{"alertname": "Full", "alertstate": "odd"}
	for i, tc := range []struct {
		fire []map[string]string
		want string
	}{{nil, ""}, {[]map[string]string{slow, full}, "Full Slowa"}, {[]map[string]string{slow, slow}, "Slowa"}, {nil, ""}, {[]map[string]string{slow}, "Slowa"}} {
		if got := step(tc.fire...); got != tc.want {
			t.Errorf("step %d: %q, want %q", i, got, tc.want)
		}
	}
	var many []map[string]string
	for i := range mostOutside + 3 {
		many = append(many, map[string]string{"alertname": fmt.Sprint("A", i)})
	}
	now, at = many, at.Add(time.Second)
	if err := o.write(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if left := testutil.ToFloat64(o.without); left != 3 || len(o.last) != mostOutside {
		t.Errorf("left out %v, written %d", left, len(o.last))
	}
	before := maps.Clone(o.last)
	slices.Reverse(many) // they come in no order
	if err := o.write(t.Context(), at.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(o.last, before, labels.Equal) {
		t.Error("others have series now: each round ends some and begins some")
	}
}

func TestARuleTakesNoAlertFromOutsideForItsOwn(t *testing.T) {
	d := data(t)
	o := NewOutside(time.Hour, func() []map[string]string {
		return []map[string]string{{"alertname": "Slow", "pod": "outside"}}
	}, d.Append, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	at := time.Now()
	if err := o.write(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	to := d.Append.Appender(t.Context())
	if _, err := to.Append(0, labels.FromStrings(labels.MetricName, "ALERTS", "alertname", "Slow", "alertstate", "firing", "pod", "own"), at.UnixMilli(), 1); err != nil {
		t.Fatal(err)
	}
	if err := to.Commit(); err != nil {
		t.Fatal(err)
	}
	expr, err := parser.NewParser(parser.Options{}).ParseExpr("up")
	if err != nil {
		t.Fatal(err)
	}
	rs := &Rules{stored: d.Queryable}
	before, err := rs.firedBefore(t.Context(), rules.NewAlertingRule("Slow", expr, 0, 0, labels.EmptyLabels(), labels.EmptyLabels(), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler)), at.Add(time.Second))
	if err != nil || len(before) != 1 || before[0].Labels.Get("pod") != "own" {
		t.Errorf("%v, %v", before, err)
	}
}

// choosy is a store that refuses series of one namespace.
type choosy struct {
	storage.Appendable
	refuse string
}

func (c choosy) Appender(ctx context.Context) storage.Appender {
	return choosyAppender{c.Appendable.Appender(ctx), c.refuse}
}

type choosyAppender struct {
	storage.Appender
	refuse string
}

func (c choosyAppender) Append(ref storage.SeriesRef, l labels.Labels, at int64, v float64) (storage.SeriesRef, error) {
	if l.Get("namespace") == c.refuse {
		return 0, errors.New("series limit reached")
	}
	return c.Appender.Append(ref, l, at, v)
}

func TestAnAlertThatHasNoRoomCostsNoOtherItsSeries(t *testing.T) {
	d := data(t)
	fire := []map[string]string{}
	for _, ns := range []string{"red", "full", "blue"} {
		for i := range 5 { // they are written in any order
			fire = append(fire, map[string]string{"alertname": fmt.Sprint("A", i), "namespace": ns})
		}
	}
	var lines strings.Builder
	o := NewOutside(time.Hour, func() []map[string]string { return fire }, choosy{d.Append, "full"}, slog.New(slog.NewTextHandler(&lines, nil)), prometheus.NewRegistry())
	at := time.Now().Truncate(time.Second)
	count := func(want int) {
		t.Helper()
		at = at.Add(5 * time.Second)
		if err := o.write(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if v, err := d.Query(t.Context(), `ALERTS{alertsource="outside"}`, at); err != nil || len(v) != want {
			t.Errorf("%d series, %v, want %d", len(v), err, want)
		}
	}
	count(10)
	count(10)
	if n, told := testutil.ToFloat64(o.refused), strings.Count(lines.String(), "not written"); n != 10 || told != 1 {
		t.Errorf("%v were counted, told %d times: %s", n, told, lines.String())
	}
	o.store = choosy{d.Append, "red"} // known ones that are refused once still end
	count(15)
	o.store, fire = d.Append, fire[:1]
	count(1)
}
