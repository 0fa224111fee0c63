package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/cmd/perch/trial"
)

// settle is how long pods that just started keep the machine busy.
const settle = 30 * time.Second

// idleCost measures what the pods of podLatency cost when nothing happens.
func idleCost(ctx context.Context, b *bench) error {
	if err := trial.Pause(ctx, settle); err != nil {
		return err
	}
	procs, err := b.processes(ctx)
	if err != nil {
		return err
	}
	before, err := b.usage(ctx)
	if err != nil {
		return err
	}
	samples, err := b.metric(ctx, "telemetry", "perch_store_samples_appended_total")
	if err != nil {
		return err
	}
	began := time.Now()
	if err := trial.Pause(ctx, b.idle); err != nil {
		return err
	}
	after, err := b.usage(ctx)
	if err != nil {
		return err
	}
	took := time.Since(began)
	more, err := b.metric(ctx, "telemetry", "perch_store_samples_appended_total")
	if err != nil {
		return err
	}
	used := after.since(before)
	var names []string
	for name := range procs {
		names = append(names, name)
	}
	slices.Sort(names)
	var memory int64
	var cpu time.Duration
	percent := func(d time.Duration) string { return fmt.Sprintf("%.1f %% of a core", 100*d.Seconds()/took.Seconds()) }
	for _, name := range names {
		pss, err := pssOf(procs[name])
		if err != nil {
			return err
		}
		memory, cpu = memory+pss, cpu+used[name]
		b.table.add("idle: "+name, mib(pss)+" PSS, "+percent(used[name]), "")
	}
	b.table.add("idle: together", mib(memory)+" PSS, "+percent(cpu), "450 MB, 6 %")
	var each []int64
	var sum int64
	for _, pid := range shims(b.cluster.dir) {
		if pss, err := pssOf(pid); err == nil { // else it ended meanwhile
			each, sum = append(each, pss), sum+pss
		}
	}
	if len(each) > 0 {
		b.table.add(fmt.Sprintf("idle: %d shims", len(each)), fmt.Sprintf("%s PSS together, %s each, %s", mib(sum), mib(sum/int64(len(each))), percent(used["shims"])), "5 MB each")
	}
	rate := (more - samples) / took.Seconds()
	b.table.add("idle: samples stored", fmt.Sprintf("%.0f /s", rate), "")
	if more > samples {
		b.table.add("idle: agent and telemetry, everything they do", fmt.Sprintf("%.1f cpu-s/M samples", (used["agent"]+used["telemetry"]).Seconds()/(more-samples)*1e6), "")
	}
	return nil
}

// lineCost lets one container write as fast as it may, and measures what each
// process uses until all lines are durable and the rest of the work is done.
func lineCost(ctx context.Context, b *bench) (err error) {
	client, err := b.client()
	if err != nil {
		return err
	}
	const name = "perch_tail_stored_lines_total"
	stored, err := b.metric(ctx, "telemetry", name)
	if err != nil {
		return err
	}
	before, err := b.usage(ctx)
	if err != nil {
		return err
	}
	pods := client.CoreV1().Pods("default")
	began := time.Now()
	if _, err := pods.Create(ctx, pod("lines", "count", "-n", strconv.Itoa(b.lines), "-stay"), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create pod: %w", err)
	}
	defer func() { err = errors.Join(err, pods.Delete(ctx, "lines", metav1.DeleteOptions{})) }()
	if _, err := within(ctx, 4*time.Minute, 100*time.Millisecond, "all lines are stored", func() bool {
		have, err := b.metric(ctx, "telemetry", name)
		return err == nil && have-stored >= float64(b.lines)
	}); err != nil {
		return err
	}
	took := time.Since(began)
	if err := trial.Pause(ctx, settle); err != nil { // blocks are cut and indexed behind the writes
		return err
	}
	after, err := b.usage(ctx)
	if err != nil {
		return err
	}
	used := after.since(before)
	million := float64(b.lines) / 1e6
	for _, who := range []string{"telemetry", "shims", "runtime", "agent"} {
		b.table.add("lines: "+who, fmt.Sprintf("%.2f cpu-s/M lines", used[who].Seconds()/million), "")
	}
	b.table.add("lines: container to durable", fmt.Sprintf("%.0f lines/s", float64(b.lines)/took.Seconds()), "")
	return nil
}

// killRoles ends each role with SIGKILL and waits until it is ready again.
func killRoles(ctx context.Context, b *bench) error {
	for _, name := range []string{"telemetry", "agent", "runtime", "server"} {
		procs, err := b.processes(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := kill(procs[name]); err != nil {
			return fmt.Errorf("kill %s: %w", name, err)
		}
		var again time.Duration
		if _, err := within(ctx, time.Minute, 5*time.Millisecond, name+" is ready again", func() bool {
			roles, err := trial.Roles(ctx, b.cluster.dir)
			if err != nil {
				return false
			}
			for _, r := range roles {
				if r.Role == name && r.PID != 0 && r.PID != procs[name] {
					if again == 0 {
						again = time.Since(began)
					}
					return r.State == "ready"
				}
			}
			return false
		}); err != nil {
			return err
		}
		b.table.add("kill -9: "+name, fmt.Sprintf("ready after %s (started after %s)", ms(time.Since(began)), ms(again)), "restarted within 2 s")
		if err := trial.Pause(ctx, 3*time.Second); err != nil { // one trouble at a time
			return err
		}
	}
	return nil
}

// benchmarks are the in-process ones whose figures are part of the table.
func benchmarks() map[string][]string {
	return map[string][]string{
		"samples": {"./agent/stats", "./metrics/stream", "./metrics/store"},
		"lines":   {"./logs/query"},
	}
}

// sampleCost runs the benchmarks of the packages on the way of a sample and of
// a line: what each step costs alone.
func sampleCost(ctx context.Context, b *bench) error {
	for _, kind := range []string{"samples", "lines"} {
		args := []string{"test", "-run", "^$", "-bench", map[string]string{"samples": ".", "lines": "Ingest"}[kind], "-benchtime", "3s"}
		if kind == "lines" {
			args[len(args)-1] = "1x"
		}
		cmd := exec.CommandContext(ctx, "go", append(args, benchmarks()[kind]...)...)
		cmd.Dir = b.root
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("go test -bench: %w: %s%s", err, errs.Bytes(), out)
		}
		pkg := ""
		for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
			if rest, ok := strings.CutPrefix(s.Text(), "pkg: perch/"); ok {
				pkg = rest
				continue
			}
			f := strings.Fields(s.Text())
			for i, unit := range f {
				if strings.HasPrefix(unit, "cpu-s/M") && i > 0 {
					b.table.add("in process: "+pkg+" "+strings.TrimPrefix(f[0], "Benchmark"), f[i-1]+" "+unit, "")
				}
			}
		}
	}
	return nil
}
