package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// helpRuns is how often `perch --help` is timed.
const helpRuns = 15

// startup measures the way to a ready node and leaves the cluster running.
func startup(ctx context.Context, b *bench) error {
	var wall []time.Duration
	var used time.Duration
	for range helpRuns {
		cmd := exec.CommandContext(ctx, b.cluster.perch, "--help")
		began := time.Now()
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("perch --help: %w", err)
		}
		wall = append(wall, time.Since(began))
		used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	b.table.add("start: perch --help", spread(wall), "150 ms")
	b.table.add("start: perch --help, CPU", ms(used/helpRuns), "")

	for _, kind := range []string{"new data directory", "existing data directory"} {
		began := time.Now()
		if err := b.up(ctx); err != nil {
			return err
		}
		b.table.add("start: perch up to node Ready, "+kind, seconds(time.Since(began)), "5 s")
		used, err := b.usage(ctx)
		if err != nil {
			return err
		}
		b.table.add("start: CPU until then, "+kind, fmt.Sprintf("%.2f cpu-s (%s)", used.total().Seconds(), used.names()), "")
		if kind == "new data directory" {
			began = time.Now()
			if err := b.down(ctx); err != nil {
				return err
			}
			b.table.add("start: perch down", seconds(time.Since(began)), "")
		}
	}
	_, err := b.cluster.run(ctx, "images", "load", "--data-dir", b.cluster.dir, filepath.Join(b.images(b.root), "perch-demo.tar"))
	return err
}
