package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"perch/cmd/perch/trial"
)

const (
	eachJob = 500
	// settle is how long what is kept of pods outlives them, and a little: counters five
	// minutes, streams of lines ten.
	settle = 12 * time.Minute
)

// shortPods runs jobs of pods that live 100 ms, one job after the other, and
// looks for the lines of each pod. The first job is what the others are
// compared with.
func shortPods(ctx context.Context, s *soak) error {
	if err := s.job(ctx, 0, min(eachJob, s.pods)); err != nil {
		return err
	}
	s.say("waiting %s for what is kept of pods to go", settle)
	if err := trial.Pause(ctx, settle); err != nil {
		return err
	}
	before, err := s.settled(ctx, "before")
	if err != nil {
		return err
	}
	began := time.Now()
	for done := eachJob; done < s.pods; {
		n := min(eachJob, s.pods-done)
		if err := s.job(ctx, done/eachJob, n); err != nil {
			return err
		}
		done += n
		now, err := s.uses(ctx, func(string) error { return nil })
		if err != nil {
			return err
		}
		s.say("%d pods, %.1f a second; telemetry %s", done, float64(done-eachJob)/time.Since(began).Seconds(), now["telemetry"])
	}
	s.say("waiting %s for what is kept of pods to go", settle)
	if err := trial.Pause(ctx, settle); err != nil {
		return err
	}
	after, err := s.settled(ctx, "after")
	if err != nil {
		return err
	}
	read, err := s.number(ctx, "sum(perch_tail_read_lines_total) - sum(perch_tail_stored_lines_total)")
	if err != nil {
		return err
	}
	more := grown(before, after)
	if read != "0" {
		more = append(more, read+" lines that were read are not stored")
	}
	if len(more) > 0 {
		return errors.New(strings.Join(more, "; "))
	}
	return nil
}

// settled says what the roles hold after a collection, and keeps profiles of their
// heaps in out/soak/ROLE-WHEN.prof, which tell of what that is.
func (s *soak) settled(ctx context.Context, when string) (map[string]use, error) {
	dir := filepath.Join(s.root, "out", "soak")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("keep profiles: %w", err)
	}
	uses, err := s.uses(ctx, func(role string) error {
		return s.keepHeap(ctx, role, filepath.Join(dir, role+"-"+when+".prof"))
	})
	if err != nil {
		return nil, err
	}
	for _, role := range slices.Sorted(maps.Keys(uses)) {
		s.say("%-10s %s", role, uses[role])
	}
	return uses, nil
}

// keepHeap has a role collect what nothing holds, and keeps the profile of the rest.
func (s *soak) keepHeap(ctx context.Context, role, path string) error {
	body, err := s.ask(ctx, role+"-debug", "/debug/pprof/heap", url.Values{"gc": {"1"}})
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("keep profile: %w", err)
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

// number is the answer to a query of one number.
func (s *soak) number(ctx context.Context, expr string) (string, error) {
	csv, err := s.run(ctx, "query", expr, "-o", "csv")
	return csv[strings.LastIndexByte(csv, ',')+1:], err
}

// job runs pods in a namespace of their own, looks for their lines and deletes
// it.
func (s *soak) job(ctx context.Context, number, pods int) error {
	ns := fmt.Sprintf("soak-%d", number)
	if err := s.apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %s}
---
apiVersion: batch/v1
kind: Job
metadata: {name: short, namespace: %s}
spec:
  completions: %d
  parallelism: 12
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers: [{name: c, image: "docker.io/library/busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "echo first; sleep 0.1; echo last >&2"]}]
`, ns, ns, pods)); err != nil {
		return err
	}
	if _, err := s.run(ctx, "-n", ns, "wait", "--for=condition=complete", "job/short", "--timeout=30m"); err != nil {
		return err
	}
	var bad []string
	for deadline := time.Now().Add(time.Minute); ; {
		var err error
		if bad, err = s.missing(ctx, ns, pods); err != nil {
			return err
		}
		if len(bad) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lines of %s: %s", ns, strings.Join(bad[:min(5, len(bad))], "; "))
		}
		if err := trial.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
	_, err := s.run(ctx, "delete", "namespace", ns, "--timeout=10m")
	return err
}

// missing names what is not as each pod wrote it: two lines, each once.
func (s *soak) missing(ctx context.Context, ns string, pods int) ([]string, error) {
	text, err := s.run(ctx, "-n", ns, "logs", "-q", "kind:log", "--tail", fmt.Sprint(10*pods), "-o", "json")
	if err != nil {
		return nil, err
	}
	seen := map[string]map[string]int{}
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("read line %s: %w", sc.Text(), err)
		}
		if seen[l.Pod] == nil {
			seen[l.Pod] = map[string]int{}
		}
		seen[l.Pod][l.Stream+" "+l.Line]++
	}
	var bad []string
	if len(seen) != pods {
		bad = append(bad, fmt.Sprintf("%d pods have lines, want %d", len(seen), pods))
	}
	for pod, lines := range seen {
		if len(lines) != 2 || lines["stdout first"] != 1 || lines["stderr last"] != 1 {
			bad = append(bad, fmt.Sprintf("%s wrote %v", pod, lines))
		}
	}
	return bad, nil
}
