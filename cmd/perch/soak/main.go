package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"perch/cmd/perch/trial"
)

// limit bounds the whole run.
const limit = 5 * time.Hour

func main() {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type soak struct {
	cluster
	root  string
	pods  int
	quiet time.Duration
	out   io.Writer
	began time.Time
}

// say prints progress.
func (s *soak) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%7.0f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

type part struct {
	name string
	own  bool // it has a cluster of its own
	run  func(context.Context, *soak) error
}

func parts() []part {
	return []part{{"latency", false, latency}, {"pods", false, shortPods}, {"quiet", true, silence}}
}

func start() error {
	s := &soak{out: os.Stdout, began: time.Now()}
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	chosen := ""
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.StringVar(&s.perch, "perch", "bin/perch", "the program to run")
	fs.StringVar(&s.root, "root", ".", "root of the source tree")
	fs.StringVar(&s.dir, "data-dir", "/var/lib/perch-soak", "data directory of the cluster; removed at the end")
	fs.StringVar(&chosen, "parts", strings.Join(names, ","), "what to run")
	fs.IntVar(&s.pods, "pods", 10_000, "how many pods live a moment")
	fs.DurationVar(&s.quiet, "quiet", 30*time.Minute, "how long nothing must fire")
	if err := fs.Parse(os.Args[1:]); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	want := strings.Split(chosen, ",")
	for _, name := range want {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-parts %s: choose from %s", name, strings.Join(names, ","))
		}
	}
	ctx, stop, err := trial.Begin("make soak", limit, &s.perch, &s.root)
	if err != nil {
		return err
	}
	defer stop()
	return run(ctx, s, want)
}

// run runs the parts that are wanted, each even when one before failed.
func run(ctx context.Context, s *soak, want []string) (err error) {
	for _, p := range parts() {
		if !slices.Contains(want, p.name) || ctx.Err() != nil {
			continue
		}
		s.say("%s", p.name)
		if perr := s.with(ctx, p); perr != nil {
			s.say("%s failed: %v", p.name, perr)
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, perr))
		}
	}
	return errors.Join(err, ctx.Err())
}

// with runs a part on a fresh cluster.
func (s *soak) with(ctx context.Context, p part) (err error) {
	if p.own {
		return p.run(ctx, s)
	}
	if err := s.removeOld(ctx); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
		defer cancel()
		err = errors.Join(err, s.removeOld(ctx))
	}()
	if err := s.up(ctx); err != nil {
		return err
	}
	for _, image := range []string{"busybox", "perch-demo"} {
		if _, err := s.run(ctx, "images", "load", "--data-dir", s.dir, filepath.Join(s.root, "out", "images", image+".tar")); err != nil {
			return err
		}
	}
	return p.run(ctx, s)
}

// silence is the test of the first minutes of a healthy cluster, made longer.
func silence(ctx context.Context, s *soak) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout", (s.quiet + 30*time.Minute).String(), "./cmd/perch/e2e/quiet")
	cmd.Dir = s.root
	cmd.Env = append(os.Environ(), "PERCH="+s.perch, "QUIET="+s.quiet.String())
	cmd.Stdout, cmd.Stderr = s.out, s.out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("test of %s of silence: %w", s.quiet, err)
	}
	return nil
}
