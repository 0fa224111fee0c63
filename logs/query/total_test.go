package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

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
	}, reg)
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
	if n := testutil.CollectAndCount(total.lines); n > maxCounted+2 {
		t.Fatalf("%d series", n)
	}
	if n := testutil.ToFloat64(total.lines.WithLabelValues(Others, Others, "unknown")); n != 11 {
		t.Fatalf("%v lines of others", n)
	}
}
