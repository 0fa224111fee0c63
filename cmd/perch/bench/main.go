package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"perch/cmd/perch/trial"
)

type options struct {
	perch, root, dir string
	only             []string
	idle, collect    time.Duration
	lines            int
}

// limit bounds the whole run.
const limit = 30 * time.Minute

func main() {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start() error {
	var o options
	only := ""
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.perch, "perch", "bin/perch", "the program to measure")
	fs.StringVar(&o.root, "root", ".", "root of the source tree, for images and in-process benchmarks")
	fs.StringVar(&o.dir, "data-dir", "/var/lib/perch-bench", "data directory of the cluster; removed at the end")
	fs.StringVar(&only, "only", "", "parts to run, by comma: "+partNames())
	fs.DurationVar(&o.idle, "idle", time.Minute, "how long idle cost is measured")
	fs.DurationVar(&o.collect, "collect", 3*time.Minute, "how long the cost of collection is measured")
	fs.IntVar(&o.lines, "lines", 1_000_000, "log lines one container writes")
	if err := fs.Parse(os.Args[1:]); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(parts(), func(p part) bool { return p.name == name }) {
			return fmt.Errorf("-only %s: choose from %s", name, partNames())
		}
	}
	ctx, stop, err := trial.Begin("make bench", limit, &o.perch, &o.root)
	if err != nil {
		return err
	}
	defer stop()
	return run(ctx, o)
}

// part measures one thing. Parts run in this order on one cluster.
type part struct {
	name string
	run  func(context.Context, *bench) error
}

func parts() []part {
	return []part{
		{"startup", startup},
		{"pods", podLatency},
		{"idle", idleCost},
		{"lines", lineCost},
		{"api", writesAndLists},
		{"kill", killRoles},
		{"samples", sampleCost},
		{"collect", collectCost},
		{"crash", crashToWebhook},
		{"short", shortLives},
	}
}

func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ",")
}

// bench is one run: a cluster and what was measured so far.
type bench struct {
	options
	cluster
	table table
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o, cluster: cluster{perch: o.perch, dir: o.dir, home: os.TempDir()}}
	if err := b.removeOld(ctx); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, b.removeOld(ctx))
	}()
	if err := b.makeImages(ctx, o.root); err != nil {
		return err
	}
	busy := load()
	for _, p := range parts() {
		if len(o.only) > 0 && p.name != "startup" && !slices.Contains(o.only, p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", p.name)
		if perr := p.run(ctx, b); perr != nil {
			err = errors.Join(err, fmt.Errorf("measure %s: %w", p.name, perr))
			if p.name == "startup" || ctx.Err() != nil {
				break
			}
		}
	}
	b.table.print(os.Stdout, busy, load())
	return err
}
