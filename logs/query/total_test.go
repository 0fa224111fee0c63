package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/record"
)

func TestStoredLinesAreCountedByPodAndLevelUpToACap(t *testing.T) {
	s := testStore(t, 1<<20)
	reg := prometheus.NewRegistry()
	full := errors.New("full")
	var refuse error
	total := NewTotal(func(ctx context.Context, r []record.Record, p []record.Position) error {
		if refuse != nil {
			return refuse
		}
		return s.Append(ctx, r, p)
	}, func(string, string) bool { return true }, reg)
	web := &record.Stream{Namespace: "shop", Pod: "web-1"}
	lines := func() []record.Record {
		return []record.Record{{Stream: web, Body: []byte("ERROR a")}, {Stream: web, Body: []byte("b")}, {Stream: web, Body: []byte("ERROR c")}}
	}
	if err := total.Append(t.Context(), lines(), nil); err != nil {
		t.Fatal(err)
	}
	refuse = full
	if err := total.Append(t.Context(), lines(), nil); !errors.Is(err, full) {
		t.Fatal(err)
	}
	refuse = nil
	first := `# HELP perch_log_lines_total Log lines stored, by the namespace and pod that wrote them and by level.
# TYPE perch_log_lines_total counter
perch_log_lines_total{level="error",namespace="shop",pod="web-1"} 0
perch_log_lines_total{level="unknown",namespace="shop",pod="web-1"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(first)); err != nil { // so that increase() has the first lines
		t.Fatal(err)
	}
	want := `# HELP perch_log_lines_total Log lines stored, by the namespace and pod that wrote them and by level.
# TYPE perch_log_lines_total counter
perch_log_lines_total{level="error",namespace="shop",pod="web-1"} 2
perch_log_lines_total{level="unknown",namespace="shop",pod="web-1"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	var many []record.Record
	for i := range maxCounted + 10 {
		many = append(many, record.Record{Stream: &record.Stream{Namespace: "n", Pod: fmt.Sprint("p", i)}, Body: []byte("x")})
	}
	if err := total.Append(t.Context(), many, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n := testutil.CollectAndCount(total); n > maxCounted+2 {
			t.Fatalf("%d series", n)
		}
	}
	if err := total.Append(t.Context(), lines()[1:2], nil); err != nil { // its counter was sampled
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(total.lines.WithLabelValues("shop", "web-1", "unknown")); n != 2 {
		t.Fatalf("%v lines", n)
	}
	if n := testutil.ToFloat64(total.lines.WithLabelValues(Others, Others, "unknown")); n != 11 {
		t.Fatalf("%v lines of others", n)
	}
}

func TestCountersOfAPodThatIsGoneAreLetGoAfterASample(t *testing.T) {
	reg := prometheus.NewRegistry()
	here := map[string]bool{"stays": true, "goes": true}
	total := NewTotal(func(context.Context, []record.Record, []record.Position) error { return nil },
		func(_, pod string) bool { return here[pod] }, reg)
	now := time.Now()
	total.now = func() time.Time { return now }
	write := func(streams ...*record.Stream) {
		for _, s := range streams {
			if err := total.Append(t.Context(), []record.Record{{Stream: s, Level: record.Error}, {Stream: s}}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone, stays := &record.Stream{Namespace: "shop", Pod: "goes"}, &record.Stream{Namespace: "shop", Pod: "stays"}
	write(gone, stays, &record.Stream{Namespace: record.HostNamespace, Pod: "sender"})
	sample := func(want int) {
		t.Helper()
		if n, err := testutil.GatherAndCount(reg); err != nil || n != want {
			t.Fatalf("%d series, %v, want %d", n, err, want)
		}
	}
	now = now.Add(time.Hour)
	sample(6)
	delete(here, "goes")
	write(gone) // its last event
	now = now.Add(quietAfter - 1)
	sample(6)
	now = now.Add(1)
	sample(6)
	sample(4)
	if len(total.pods) != 2 {
		t.Fatalf("%d pods are remembered", len(total.pods))
	}
	write(gone)
	sample(6)
}
