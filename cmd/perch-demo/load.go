package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"
)

// maxOpen bounds the customers at the counter; above it an order is not sent
// and counted as skipped.
const maxOpen = 64

// load sends orders at a steady rate, faster while burstFile exists.
func load(ctx context.Context, log *slog.Logger, target string, rate, burst float64, burstFile string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: maxOpen, DisableKeepAlives: true}}
	open := make(chan struct{}, maxOpen)
	results := make(chan bool, maxOpen)
	report := time.NewTicker(5 * time.Second)
	defer report.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	var ok, failed, skipped int
	for {
		select {
		case <-ctx.Done():
			return nil
		case good := <-results:
			if good {
				ok++
			} else {
				failed++
			}
		case <-report.C:
			log.Info("orders sent", "ok", ok, "failed", failed, "skipped", skipped)
			ok, failed, skipped = 0, 0, 0
		case <-next.C:
			now := rate
			if _, err := os.Stat(burstFile); err == nil && burst > 0 {
				now = burst
			}
			next.Reset(time.Duration(float64(time.Second) / now))
			select {
			case open <- struct{}{}:
				go func() {
					good := order(ctx, client, target)
					<-open
					select {
					case results <- good:
					case <-ctx.Done():
					}
				}()
			default:
				skipped++
			}
		}
	}
}

func order(ctx context.Context, client *http.Client, target string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode < 500
}
