package scrape

import (
	"log/slog"
	"testing"
)

func TestWhatComesFromThisMachineIsNotCompressed(t *testing.T) {
	cfg := Default()
	cfg.Own = []Own{{Name: "agent", Socket: "/run/agent.sock"}}
	full, err := cfg.prometheus(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range full.ScrapeConfigs {
		if p.EnableCompression != (p.JobName == podPool) {
			t.Errorf("%s: compression is %v", p.JobName, p.EnableCompression)
		}
	}
}
