package onward

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/record"
)

func TestLinesThatComeBackAreLeftOut(t *testing.T) {
	var have []string
	g := NewGate("abc", func(_ context.Context, records []record.Record, positions []record.Position) error {
		for _, r := range records {
			have = append(have, string(r.Body))
		}
		if len(positions) != 1 {
			t.Errorf("%d positions", len(positions))
		}
		return nil
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	line := func(body string, fields ...string) record.Record {
		r := record.Record{Stream: &record.Stream{}, Body: []byte(body)}
		for i := 0; i < len(fields); i += 2 {
			r.Fields = append(r.Fields, record.Field{Key: fields[i], Value: fields[i+1]})
		}
		return r
	}
	for _, c := range []struct {
		what    string
		records []record.Record
		want    string
	}{
		{"lines of others", []record.Record{line("a"), line("b", "perch_cluster", "xyz"), line("c", "note", "abc")}, "a b c"},
		{"one came back between others", []record.Record{line("a"), line("b", "k", "v", "perch_cluster", "abc"), line("c")}, "a c"},
		{"the first and the last", []record.Record{line("a", "perch_cluster", "abc"), line("b"), line("c", "perch_cluster", "abc")}, "b"},
		{"through two other clusters", []record.Record{line("a", "perch_cluster", "xyz", "field.field.perch_cluster", "abc"), line("b", "my.perch_cluster", "abc")}, "b"},
		{"all of them", []record.Record{line("a", "perch_cluster", "abc"), line("b", "perch_cluster", "abc")}, ""},
	} {
		have = nil
		first := string(c.records[0].Body)
		if err := g.Append(t.Context(), c.records, []record.Position{{}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(have, " "); got != c.want || string(c.records[0].Body) != first {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	if n := testutil.ToFloat64(g.looped); n != 6 {
		t.Errorf("%v lines counted, want 6", n)
	}
}

// What is sent on carries the mark, so that this cluster knows it again.
func TestWhatIsSentOnIsKnownAgain(t *testing.T) {
	r := &receiver{got: map[string]int{}}
	addr, stopFar := r.open(t, "127.0.0.1:0")
	defer stopFar()
	s := openStore(t, t.TempDir())
	put(t, s, 0, 10)
	stop := sender(t, s, addr, func(c *Config) { c.Mark = "abc" })
	defer stop()
	r.until(t, 10)
	r.mu.Lock()
	last := r.last
	r.mu.Unlock()
	g := NewGate("abc", func(_ context.Context, records []record.Record, _ []record.Position) error {
		if len(records) != 0 {
			t.Errorf("%+v", records)
		}
		return nil
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := g.Append(t.Context(), []record.Record{last}, nil); err != nil {
		t.Fatal(err)
	}
}
