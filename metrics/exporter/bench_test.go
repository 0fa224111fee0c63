package exporter

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// BenchmarkNode is one scrape of this machine: what it costs each node every 15 s.
func BenchmarkNode(b *testing.B) {
	n, err := NewNode(DefaultNode(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(n)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
