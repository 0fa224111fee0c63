package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// role is one line of perch status.
type role struct {
	Role, State string
	PID         int
}

func (c cluster) roles(t *testing.T) map[string]role {
	t.Helper()
	cmd := exec.Command(c.perch, "status", "--data-dir", c.dir, "-o", "json")
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("perch status: %v", err)
	}
	var list []role
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]role{}
	for _, r := range list {
		out[r.Role] = r
	}
	return out
}

// manifest applies a text.
func (c cluster) manifest(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, c.perch, "apply", "-f", file)
}

// within asks until the answer is good and returns how long that took.
func within(t *testing.T, limit time.Duration, what string, good func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !good() {
		if time.Since(began) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// latency measures what a user waits for: from apply to a ready pod.
func (c cluster) latency(t *testing.T) {
	for i := range 5 {
		text := fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: latency-%d}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "docker.io/library/perch-demo:1", args: [count, -n, "1", -stay]}]
`, i)
		began := time.Now()
		c.manifest(t, text)
		applied := time.Since(began)
		c.run(t, c.perch, "wait", "--for=condition=Ready", "--timeout=30s", fmt.Sprintf("pod/latency-%d", i))
		t.Logf("applied after %.2f s, ready after %.2f s", applied.Seconds(), time.Since(began).Seconds())
	}
	c.run(t, c.perch, "delete", "pods", "--all", "--timeout=30s")
}

// restarts are the restart counts and ids of all containers.
func (c cluster) restarts(t *testing.T) string {
	t.Helper()
	return c.run(t, c.perch, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[*].restartCount} {.status.containerStatuses[*].containerID}{"\n"}{end}`)
}

// killed ends each role, and at last the supervisor, with SIGKILL while a
// container writes: the role comes back, nothing else is disturbed, and no line
// is lost or doubled.
func (c cluster) killed(t *testing.T) {
	c.manifest(t, `
apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  terminationGracePeriodSeconds: 3
  containers: [{name: count, image: "docker.io/library/perch-demo:1", args: [count, -rate, "2500"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: "docker.io/library/perch-demo:1", args: [web], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}, livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`)
	c.run(t, c.perch, "wait", "--for=condition=Ready", "--timeout=30s", "pod/counter", "pod/web")
	before := c.restarts(t)
	vip := strings.TrimSpace(c.run(t, c.perch, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
	answers := func() bool { return exec.Command("curl", "-sf", "-m", "1", "http://"+vip+"/healthz").Run() == nil }
	within(t, 10*time.Second, "the Service answers", answers)

	for _, name := range []string{"telemetry", "agent", "runtime", "server"} {
		t.Run(name, func(t *testing.T) {
			had := c.roles(t)
			if err := syscall.Kill(had[name].PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if !answers() {
				t.Error("the Service stopped answering")
			}
			var have map[string]role
			started := within(t, 2*time.Second, name+" is started again", func() bool {
				have = c.roles(t)
				return have[name].PID != 0 && have[name].PID != had[name].PID
			})
			ready := within(t, 15*time.Second, name+" is ready again", func() bool { have = c.roles(t); return have[name].State == "ready" })
			t.Logf("%s: started again after %.2f s, ready after %.2f s", name, started.Seconds(), (started + ready).Seconds())
			for other, r := range had {
				if other != name && have[other].PID != r.PID {
					t.Errorf("%s was disturbed: pid %d became %d", other, r.PID, have[other].PID)
				}
			}
			// It works: a new pod starts, the old ones are as they were.
			c.manifest(t, `
apiVersion: v1
kind: Pod
metadata: {name: after-`+name+`}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "docker.io/library/perch-demo:1", args: [count, -n, "1", -stay]}]
`)
			c.run(t, c.perch, "wait", "--for=condition=Ready", "--timeout=30s", "pod/after-"+name)
			c.run(t, c.perch, "delete", "pod", "after-"+name, "--timeout=30s")
			if after := c.restarts(t); after != before {
				t.Errorf("pods are not as they were:\n%s\nnow:\n%s", before, after)
			}
		})
	}
	t.Run("supervisor", func(t *testing.T) {
		had := c.roles(t)
		pid := parent(t, had["agent"].PID)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for name, r := range had {
			within(t, 30*time.Second, name+" ends with its supervisor", func() bool { return syscall.Kill(r.PID, 0) != nil })
		}
		if !answers() {
			t.Error("the Service stopped answering")
		}
		began := time.Now()
		c.run(t, c.perch, "up", "--data-dir", c.dir, "--detach")
		t.Logf("up again after %.1f s", time.Since(began).Seconds())
		if after := c.restarts(t); after != before {
			t.Errorf("pods are not as they were:\n%s\nnow:\n%s", before, after)
		}
	})
	t.Run("lines", func(t *testing.T) {
		took := within(t, 20*time.Second, "a pod finds the Service by its name", func() bool {
			cmd := exec.Command(c.perch, "exec", "web", "--", "/perch-demo", "get", "http://web.default.svc.cluster.local/healthz")
			cmd.Env = c.env()
			return cmd.Run() == nil
		})
		t.Logf("a pod finds the Service by its name after %.2f s", took.Seconds())
		files, err := filepath.Glob(c.dir + "/podlogs/default_counter_*/count/*.log*")
		if err != nil || len(files) == 0 {
			t.Fatalf("no log files: %v", err)
		}
		n := c.contiguous(t, "kubectl logs", c.run(t, filepath.Join(c.bin, "perch-kubectl"), "logs", "counter"))
		c.gaps(t, c.run(t, filepath.Join(c.bin, "perch-kubectl"), "logs", "counter", "--timestamps"))
		c.run(t, c.perch, "delete", "pod", "counter", "--timeout=30s")
		text, began := "", time.Now()
		var last error
		defer func() {
			t.Logf("the store had %d lines after %s (%v)", strings.Count(text, "\n"), time.Since(began), last)
		}()
		within(t, 20*time.Second, "the store has all lines", func() bool {
			cmd := exec.Command(c.perch, "logs", "counter", "--tail", strconv.Itoa(n+1_000_000))
			cmd.Env = c.env()
			var out []byte
			out, last = cmd.Output()
			text = string(out)
			return last == nil && strings.Count(text, "\n") >= n
		})
		c.contiguous(t, "perch logs", text)
	})
}

// hung stops the agent with a signal, as a role that hangs: the supervisor
// doubts, ends it and starts it again, and containers and the other roles do not
// notice.
func (c cluster) hung(t *testing.T) {
	had := c.roles(t)
	if err := syscall.Kill(had["agent"].PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	doubt := within(t, 60*time.Second, "the agent is called silent", func() bool { return c.roles(t)["agent"].State == "silent" })
	back := within(t, 120*time.Second, "the agent is back", func() bool {
		r := c.roles(t)["agent"]
		return r.PID != had["agent"].PID && r.State == "ready"
	})
	t.Logf("silent after %.1f s, ready again %.1f s later", doubt.Seconds(), back.Seconds())
	for name, r := range c.roles(t) {
		if name != "agent" && had[name].PID != r.PID {
			t.Errorf("%s was disturbed: pid %d became %d", name, had[name].PID, r.PID)
		}
	}
	if out := c.run(t, c.perch, "status", "--data-dir", c.dir); !strings.Contains(out, "hung: stopped by a signal for 1m30s") {
		t.Errorf("perch status does not tell why:\n%s", out)
	}
	log, err := os.ReadFile(filepath.Join(c.dir, "log", "agent.log"))
	if err != nil || !strings.Contains(string(log), "SIGABRT: abort") {
		t.Errorf("the agent's log does not tell what it did: %v", err)
	}
}

// contiguous wants "line 1", "line 2", … and returns how many there are.
func (c cluster) contiguous(t *testing.T, what, text string) int {
	t.Helper()
	n, bad := 0, 0
	for l := range strings.Lines(text) {
		n++
		if want := fmt.Sprintf("line %d\n", n); l != want {
			t.Errorf("%s: got %q, want %q", what, l, want)
			if k, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(l, "line "))); err == nil {
				n = k
			}
			if bad++; bad > 10 {
				t.Fatal("and more")
			}
		}
	}
	t.Logf("%s: %d lines", what, n)
	return n
}

// gaps logs the longest time in which the container could not write.
func (c cluster) gaps(t *testing.T, text string) {
	t.Helper()
	var last time.Time
	longest, where := time.Duration(0), ""
	for l := range strings.Lines(text) {
		stamp, rest, _ := strings.Cut(l, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			t.Fatalf("not a time: %q", l)
		}
		if gap := at.Sub(last); !last.IsZero() && gap > longest {
			longest, where = gap, strings.TrimSpace(rest)
		}
		last = at
	}
	t.Logf("longest pause between lines: %s, before %s", longest, where)
	if longest > 5*time.Second { // a busy machine pauses for more than one
		t.Errorf("the writer was blocked for %s before %s", longest, where)
	}
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	out, err := strconv.Atoi(strings.Fields(rest)[1])
	if err != nil {
		t.Fatal(err)
	}
	return out
}
