package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// try runs perch and returns what it wrote, or nothing when it fails.
func (c cluster) try(args ...string) string {
	cmd := exec.Command(c.perch, args...)
	cmd.Env = c.env()
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// count is the value of a metric of the telemetry role that has these labels,
// summed up over others; 0 while the role does not answer.
func (c cluster) count(metric string, labels ...string) int {
	out, err := exec.Command("curl", "-s", "-m", "5", "--unix-socket", c.dir+"/run/telemetry.sock", "http://perch/metrics").Output()
	if err != nil {
		return 0
	}
	sum := 0.0
next:
	for l := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), " ")
		if base, _, _ := strings.Cut(name, "{"); base != metric {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(name, label) {
				continue next
			}
		}
		n, err := strconv.ParseFloat(value, 64)
		if err == nil {
			sum += n
		}
	}
	return int(sum)
}

// balanced wants the ledger to say that every line read is stored.
func (c cluster) balanced(t *testing.T) {
	t.Helper()
	read, stored, dropped := c.count("perch_tail_read_lines_total"), c.count("perch_tail_stored_lines_total"), c.count("perch_tail_dropped_lines_total")
	t.Logf("ledger: %d lines read, %d stored, %d dropped", read, stored, dropped)
	if read != stored || dropped != 0 || read == 0 {
		t.Errorf("ledger: %d lines read, %d stored, %d dropped", read, stored, dropped)
	}
}

// shortPods runs a job of many pods that live 100 ms: each of their lines is
// stored once.
func (c cluster) shortPods(t *testing.T) {
	const pods, ns = 300, "short"
	c.run(t, c.perch, "create", "namespace", ns)
	began := time.Now()
	c.manifest(t, fmt.Sprintf(`
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
`, ns, pods))
	c.run(t, c.perch, "-n", ns, "wait", "--for=condition=complete", "job/short", "--timeout=10m")
	t.Logf("%d pods lived after %.0f s", pods, time.Since(began).Seconds())

	seen := map[string]map[string]int{} // by pod and line
	within(t, time.Minute, "all lines are stored", func() bool {
		clear(seen)
		n := 0
		for s := bufio.NewScanner(strings.NewReader(c.try("-n", ns, "logs", "-q", "kind:log", "--tail", "10000", "-o", "json"))); s.Scan(); n++ {
			var l struct{ Pod, Stream, Line string }
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			if seen[l.Pod] == nil {
				seen[l.Pod] = map[string]int{}
			}
			seen[l.Pod][l.Stream+" "+l.Line]++
		}
		return n >= 2*pods
	})
	for pod, lines := range seen {
		if len(lines) != 2 || lines["stdout first"] != 1 || lines["stderr last"] != 1 {
			t.Errorf("lines of %s: %v", pod, lines)
		}
	}
	if len(seen) != pods {
		t.Errorf("lines of %d pods, want %d", len(seen), pods)
	}
	c.balanced(t)
	c.run(t, c.perch, "delete", "namespace", ns, "--timeout=5m")
	t.Logf("gone after %.0f s", time.Since(began).Seconds())
}

// burst writes a million lines in 35 s. When the file has been rotated three
// roles are killed, and perch as a whole when it has been rotated again; what
// could not be written meanwhile comes at once.
func (c cluster) burst(t *testing.T) {
	const lines = 1_000_000
	before := c.count("perch_tail_stored_lines_total")
	c.manifest(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: burst}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: count, image: "docker.io/library/perch-demo:1", args: [count, -n, "%d", -rate, "30000", -stay]}]
`, lines))
	read := func() int { return c.count("perch_tail_container_read_lines_total", `pod="burst"`) }
	rotated := func(n int) {
		t.Helper()
		within(t, 3*time.Minute, fmt.Sprintf("the file was rotated %d times", n), func() bool {
			files, err := filepath.Glob(c.dir + "/podlogs/default_burst_*/count/0.log.*")
			return err == nil && len(files) >= n
		})
	}
	began := time.Now()
	rotated(1)
	had := c.roles(t)
	for _, name := range []string{"telemetry", "runtime", "agent"} {
		if err := syscall.Kill(had[name].PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("killed three roles after %.1f s", time.Since(began).Seconds())
	rotated(2)
	t.Logf("killed perch after %.1f s", time.Since(began).Seconds())
	had = c.roles(t)
	if err := syscall.Kill(parent(t, had["agent"].PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for name, r := range had {
		within(t, 30*time.Second, name+" ends with its supervisor", func() bool { return syscall.Kill(r.PID, 0) != nil })
	}
	c.run(t, c.perch, "up", "--data-dir", c.dir, "--detach")
	within(t, 3*time.Minute, "all lines are read", func() bool { return read() >= lines })
	t.Logf("all lines are read after %.1f s", time.Since(began).Seconds())
	if n := read(); n != lines {
		t.Errorf("the ledger says that %d lines of the container were read", n)
	}
	if n := c.count("perch_tail_container_stored_lines_total", `pod="burst"`); n != lines {
		t.Errorf("the ledger says that %d lines of the container were stored", n)
	}
	if n := c.count("perch_tail_stored_lines_total"); n < before+lines {
		t.Errorf("the node had stored %d lines before, and has %d now", before, n)
	}
	c.balanced(t)
	if n := c.contiguous(t, "perch logs", c.run(t, c.perch, "logs", "burst", "-q", "kind:log", "--tail", strconv.Itoa(2*lines))); n != lines {
		t.Errorf("%d lines are stored", n)
	}
	t.Logf("looked through after %.1f s", time.Since(began).Seconds())
	c.run(t, c.perch, "delete", "pod", "burst", "--timeout=60s")
}
