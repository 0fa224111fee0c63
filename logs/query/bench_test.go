package query

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/bench/lines"
	"perch/logs/record"
	"perch/logs/store"
)

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchLines is small enough for every run; PERCH_BENCH_LINES asks for more.
func benchLines() int {
	n := 200_000
	_, _ = fmt.Sscan(os.Getenv("PERCH_BENCH_LINES"), &n) // else the default
	return n
}

// needle is in one line only.
const needle = " needle48213x"

// benchStore is a sealed store of lines of services. PERCH_BENCH_STORE names a
// directory where it is kept for the next run; one that is there is used.
func benchStore(b *testing.B) (s *store.Store, from, to int64) {
	b.Helper()
	dir := os.Getenv("PERCH_BENCH_STORE")
	_, err := os.Stat(dir)
	there := dir != "" && err == nil
	if dir == "" {
		dir = b.TempDir()
	}
	if s, err = store.Open(store.Default(dir), quiet(), prometheus.NewRegistry()); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
		_ = s.Close()
	})
	n := benchLines()
	from, to = lines.Start, lines.Start+int64(n)*1e6
	if there {
		return s, from, to
	}
	g := lines.New(lines.Services, 7)
	batch := make([]record.Record, 1000)
	for i := 0; i < n; i += len(batch) {
		for k := range batch {
			batch[k], _ = g.Next()
		}
		if i == n/2/len(batch)*len(batch) {
			batch[500].Body = append(batch[500].Body, needle...)
		}
		if err := s.Append(b.Context(), batch, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Seal(b.Context()); err != nil {
		b.Fatal(err)
	}
	return s, from, to
}

// BenchmarkQuery reports CPU time of the whole process per query.
func BenchmarkQuery(b *testing.B) {
	s, from, to := benchStore(b)
	e := New(s, quiet())
	for _, c := range []struct{ name, q string }{
		{"rare id", "needle48213x"}, {"absent id", "absent999x"}, {"common word", "INFO"}, {"and", "Failed password"}, {"phrase", `"Receiving block"`},
		{"prefix", "Connec*"}, {"regex with literal", `~"Receiving block blk_-6[0-9]*7 "`}, {"regex without", `~[a-f]{3}9[0-9]z`}, {"field", "status:500"},
	} {
		for _, kind := range []string{"newest 100", "count", "over time"} {
			b.Run(c.name+"/"+kind, func(b *testing.B) {
				r := Request{Text: c.q, From: from, To: to, Limit: 100}
				if kind == "count" {
					r.Buckets = 1
				}
				start := cpu()
				hits := int64(0)
				for range b.N {
					if kind != "newest 100" {
						h, err := e.Histogram(b.Context(), r)
						if err != nil || h.Partial {
							b.Fatal(err, h.Reason)
						}
						hits = h.Total
						continue
					}
					hits = 0
					if sum, err := e.Query(b.Context(), r, func(*Line) error { hits++; return nil }); err != nil || sum.Partial {
						b.Fatal(err, sum.Reason)
					}
				}
				b.ReportMetric((cpu()-start).Seconds()/float64(b.N)*1e3, "cpu-ms")
				b.ReportMetric(float64(hits), "hits")
			})
		}
	}
	b.Run("histogram by level", func(b *testing.B) {
		start := cpu()
		for range b.N {
			if _, err := e.Histogram(b.Context(), Request{From: from, To: to}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((cpu()-start).Seconds()/float64(b.N)*1e3, "cpu-ms")
	})
}
