package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// count prints "line 1", "line 2", … so that a missing or doubled one shows.
func count(ctx context.Context, w io.Writer, n int, rate float64, stay bool) error {
	out := bufio.NewWriterSize(w, 4096)
	began := time.Now()
	for i := 1; n == 0 || i <= n; i++ {
		if rate > 0 {
			due := began.Add(time.Duration(float64(i-1) / rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				if err := out.Flush(); err != nil {
					return fmt.Errorf("print line %d: %w", i, err)
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(wait):
				}
			}
		} else if ctx.Err() != nil {
			return nil
		}
		if _, err := fmt.Fprintf(out, "line %d\n", i); err != nil {
			return fmt.Errorf("print line %d: %w", i, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print last line: %w", err)
	}
	if stay {
		<-ctx.Done()
	}
	return nil
}

// eat takes memory and touches every page of it.
func eat(ctx context.Context, log *slog.Logger, mb int) {
	var kept [][]byte
	for i := range mb {
		b := make([]byte, 1<<20)
		for j := 0; j < len(b); j += 4096 {
			b[j] = 1
		}
		kept = append(kept, b)
		if i%16 == 15 {
			log.Info("memory taken", "megabytes", i+1)
		}
	}
	<-ctx.Done()
	log.Info("memory given back", "megabytes", len(kept))
}

// burn keeps one core busy.
func burn(ctx context.Context) {
	x := 1
	for ctx.Err() == nil {
		for range 1 << 20 {
			x = x*3 + 1
		}
	}
}

// ask prints what a URL answers.
func ask(ctx context.Context, w io.Writer, method, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	return nil
}
