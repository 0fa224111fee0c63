package rule

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/rules"
)

// pendingSince runs the rules over a store until SlowDown is pending and tells
// since when.
func pendingSince(t *testing.T, d Data, dir string, ok func(time.Time) bool) time.Time {
	t.Helper()
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Interval: 100 * time.Millisecond, Dir: dir, ExternalURL: page}, d, func() []Source { return nil },
		func(context.Context, ...Alert) error { return nil }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); <-time.After(20 * time.Millisecond) {
		for _, a := range r.manager.AlertingRules() {
			for _, x := range a.ActiveAlerts() {
				if a.Name() == "SlowDown" && x.State == rules.StatePending && ok(x.ActiveAt) {
					return x.ActiveAt
				}
			}
		}
	}
	t.Fatal("SlowDown is not pending as it should be")
	return time.Time{}
}

func TestHowLongAnAlertHasBeenPendingSurvivesARestart(t *testing.T) {
	d, dir := data(t), t.TempDir()
	write(t, filepath.Join(dir, "r.yaml"), `groups: [{name: g, rules: [{alert: SlowDown, expr: vector(1), for: 1h}]}]`)
	stored := func(at time.Time) bool {
		if time.Since(at) < 3*time.Second { // long enough to tell the two apart
			return false
		}
		v, err := d.Query(t.Context(), `ALERTS_FOR_STATE{alertname="SlowDown"}`, time.Now())
		return err == nil && len(v) == 1
	}
	first := pendingSince(t, d, dir, stored)
	restarted := time.Now()
	second := pendingSince(t, d, dir, func(at time.Time) bool { return at.Before(restarted.Add(-time.Second)) })
	if moved := second.Sub(first); moved > restarted.Sub(first) || moved < -2*time.Second {
		t.Errorf("pending since %s, after the restart since %s", first, second)
	}
}
