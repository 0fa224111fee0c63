package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// machines are several nodes on this machine, made by build/nodes.sh: one server
// (na) and one worker (nb), each in namespaces of its own.
type machines struct {
	cluster
	tool string
}

const (
	machinesHub = "pe2e"
	machinesNet = "10.99.7"
	serverIP    = machinesNet + ".11"
	workerIP    = machinesNet + ".12"
)

func openMachines(t *testing.T) machines {
	t.Helper()
	c := open(t)
	c.dir, c.name = "/var/lib/perch-nodes/na", "na"
	m := machines{c, filepath.Join(c.root, "build", "nodes.sh")}
	t.Setenv("NODES_HUB", machinesHub)
	t.Setenv("NODES_NET", machinesNet)
	return m
}

func workerDir() string { return "/var/lib/perch-nodes/nb" }

// left is what remains of the machines outside their own namespaces, which the
// kernel removes whole.
func (m machines) left(t *testing.T) (out []string) {
	t.Helper()
	for _, node := range []string{"na", "nb"} {
		c := m.cluster
		c.name, c.dir = node, filepath.Dir(m.dir)
		have := residue(t, c)
		out = append(append(append(out, have["cgroups"]...), have["processes"]...), have["files"]...)
		for _, l := range append(have["links"], have["mounts"]...) {
			if strings.Contains(l, machinesHub) || strings.Contains(l, c.dir) {
				out = append(out, l)
			}
		}
	}
	return out
}

// at runs perch on one of the machines.
func (m machines) at(t *testing.T, node string, args ...string) string {
	t.Helper()
	return m.run(t, m.tool, append([]string{"in", node, m.perch}, args...)...)
}

// refuses runs perch on a machine and wants exit code 2 and a sentence.
func (m machines) refuses(t *testing.T, node, sentence string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.tool, append([]string{"in", node, m.perch}, args...)...)
	cmd.Env = m.env()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), sentence) || strings.Count(strings.TrimSpace(string(out)), "\n") > 0 {
		t.Errorf("perch %s: %v: want exit code 2 and one line with %q, got\n%s", strings.Join(args, " "), err, sentence, out)
	}
}

// kube runs perch's kubectl and returns what it wrote.
func (m machines) kube(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(m.run(t, m.perch, args...))
}

// until asks again and again until the answer is good.
func (m machines) until(t *testing.T, limit time.Duration, what string, good func(string) bool, name string, args ...string) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = m.env()
		var out, complaint bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaint
		err := cmd.Run()
		cancel()
		if err == nil && good(strings.TrimSpace(out.String())) {
			took := time.Since(began)
			t.Logf("%s after %.1f s", what, took.Seconds())
			return took
		}
		if time.Since(began) > limit {
			t.Fatalf("not within %s: %s; last (%v):\n%s%s", limit, what, err, out.String(), complaint.String())
		}
		<-tick.C
	}
}

// answer is what the Prometheus HTTP API says.
type answer struct {
	Status, Error string
	Warnings      []string
	Data          struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
			Values [][2]any
		}
	}
}

func (m machines) query(t *testing.T, expr string) answer {
	t.Helper()
	token := m.kube(t, "token", "--data-dir", m.dir)
	out := m.run(t, "curl", "-sk", "-H", "Authorization: Bearer "+token, "--data-urlencode", "query="+expr, "https://"+serverIP+":9443/prometheus/api/v1/query")
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Status != "success" {
		t.Fatalf("query %s: %v\n%s", expr, err, out)
	}
	return a
}

// podsOn maps nodes to the names and addresses of the running pods of an app.
func (m machines) podsOn(t *testing.T, app string) map[string][][2]string {
	t.Helper()
	out := map[string][][2]string{}
	for _, l := range strings.Split(m.kube(t, "get", "pods", "-l", "app="+app, "-o", `jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name} {.status.podIP} {.metadata.deletionTimestamp}{"\n"}{end}`), "\n") {
		if f := strings.Fields(l); len(f) == 3 {
			out[f[0]] = append(out[f[0]], [2]string{f[1], f[2]})
		}
	}
	return out
}

func contains(part string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, part) }
}

func equals(want string) func(string) bool { return func(s string) bool { return s == want } }

// TestNodes takes one server and one worker through a life: join, work, an
// outage of the server's store, loss of the worker, and its return.
func TestNodes(t *testing.T) {
	m := openMachines(t)
	m.run(t, m.tool, "down") // an interrupted run
	if err := os.RemoveAll(filepath.Dir(m.dir)); err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(m.root, "out", "images")
	m.build(t, "images/static.sh", images+"/perch-demo.tar", "docker.io/library/perch-demo:1", "./cmd/perch-demo")
	m.run(t, m.tool, "hub")
	m.run(t, m.tool, "start", "na", serverIP)
	m.run(t, m.tool, "start", "nb", workerIP)
	t.Cleanup(func() {
		if t.Failed() {
			m.tellLogs(t)
			worker := m.cluster
			worker.dir = workerDir()
			worker.tellLogs(t)
		}
		for _, n := range []struct{ node, dir string }{{"nb", workerDir()}, {"na", m.dir}} {
			if _, err := os.Stat(n.dir + "/config.json"); err == nil {
				m.at(t, n.node, "down", "--data-dir", n.dir, "--purge")
			}
		}
		m.run(t, m.tool, "down")
		if err := os.Remove(filepath.Dir(m.dir)); err != nil {
			t.Error(err)
		}
		if left := m.left(t); len(left) > 0 {
			t.Errorf("two nodes left:\n  %s", strings.Join(left, "\n  "))
		}
	})
	m.at(t, "na", "up", "--data-dir", m.dir, "--name", "na", "--node-name", "na", "--advertise-address", serverIP,
		"--cluster-cidr", "10.72.0.0/16", "--service-cidr", "10.73.0.0/16", "--cluster-domain", "flock.test", "--detach")
	t.Run("join", m.join)
	if t.Failed() {
		return
	}
	for _, dir := range []string{m.dir, workerDir()} {
		m.run(t, m.perch, "images", "load", "--data-dir", dir, images+"/perch-demo.tar")
	}
	for _, s := range []struct {
		name string
		run  func(*testing.T)
	}{{"reach", m.reach}, {"numbers", m.numbers}, {"targets", m.targets}, {"outage of the store", m.outage}, {"loss and return", m.loss}, {"loss of the server", m.alarm}} {
		if !t.Run(s.name, s.run) {
			return
		}
	}
}

func (m machines) join(t *testing.T) {
	token := func(args ...string) string {
		cmd := exec.Command(m.perch, append([]string{"node", "token", "--data-dir", m.dir}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	good, old := token(), token("--duration", "1s")
	made := time.Now()
	agent := func(more ...string) []string {
		return append([]string{"agent", "--server", "https://" + serverIP + ":6443", "--data-dir", workerDir(), "--name", "nb", "--node-name", "nb", "--advertise-address", workerIP}, more...)
	}
	m.refuses(t, "nb", "another cluster", agent("--token", strings.Replace(good, good[7:10], "000", 1))...)
	m.refuses(t, "nb", "admin bearer token", agent("--token", m.kube(t, "token", "--data-dir", m.dir))...)
	m.refuses(t, "nb", "has not joined yet", agent()...)
	<-time.After(time.Until(made.Add(1500 * time.Millisecond))) // until it has expired
	m.refuses(t, "nb", "expired", agent("--token", old)...)
	if _, err := os.Stat(workerDir()); err == nil {
		t.Errorf("a refused join left %s", workerDir())
	}
	t.Log(m.at(t, "nb", agent("--token", good, "--detach")...))
	m.refuses(t, "na", "used before", "agent", "--server", "https://"+serverIP+":6443", "--data-dir", "/var/lib/perch-nodes/nc", "--node-name", "nc",
		"--agent-port", "20250", "--forward-port", "34224", "--token", good)
	if got := m.kube(t, "get", "node", "nb", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`); got != "True" {
		t.Errorf("node nb is ready: %s", got)
	}
	m.at(t, "nb", "down", "--data-dir", workerDir())
	t.Log(m.at(t, "nb", "agent", "--data-dir", workerDir(), "--detach")) // it remembers all the rest
}

const nodesManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}]
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      containers:
      - name: web
        image: docker.io/library/perch-demo:1
        args: [web]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 8080, targetPort: http}]
`

// reach: every pod reaches every other pod, the Service and its name; logs and
// exec work on both nodes.
func (m machines) reach(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(file, []byte(nodesManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kube(t, "apply", "-f", file)
	m.kube(t, "rollout", "status", "deploy/web", "--timeout=60s")
	on := m.podsOn(t, "web")
	if len(on["na"]) != 2 || len(on["nb"]) != 2 {
		t.Fatalf("pods are not spread: %v", on)
	}
	vip := m.kube(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	for node, pods := range on {
		from := pods[0][0]
		targets := []string{vip, "web", "web.default.svc.flock.test"}
		for _, others := range on {
			for _, p := range others {
				targets = append(targets, p[1])
			}
		}
		for _, host := range targets {
			m.until(t, 15*time.Second, fmt.Sprintf("a pod of %s reaches %s", node, host), contains("order"),
				m.perch, "exec", from, "--", "/perch-demo", "get", "http://"+host+":8080/order")
		}
		m.until(t, 10*time.Second, "logs of a pod of "+node, contains("order"), "kubectl", "logs", from, "--tail", "5")
		m.until(t, 10*time.Second, "stored lines of a pod of "+node, contains("order"), m.perch, "logs", from, "--tail", "5")
	}
	for _, node := range []string{"na", "nb"} { // the node itself reaches Services too
		m.until(t, 10*time.Second, node+" reaches the Service", contains("order"), m.tool, "in", node, "curl", "-sf", "-m", "3", "http://"+vip+":8080/order")
	}
}

func (m machines) numbers(t *testing.T) {
	m.until(t, 40*time.Second, "top nodes covers both", func(s string) bool {
		return strings.Contains(s, "\nna ") && strings.Contains(s, "\nnb ") && !strings.Contains(s, "<unknown>")
	}, m.perch, "top", "nodes")
	m.until(t, 40*time.Second, "top pods covers all", func(s string) bool { return strings.Count(s, "web-") == 4 }, m.perch, "top", "pods")
	a := m.query(t, `count by (node) (container_memory_working_set_bytes{container="web"})`)
	if len(a.Data.Result) != 2 || len(a.Warnings) != 0 {
		t.Errorf("want the numbers of two nodes and no warning, got %+v", a)
	}
}

// outage holds the server's telemetry for a minute; the worker's samples wait
// on its own disk and arrive.
func (m machines) outage(t *testing.T) {
	var roles []struct {
		Role string
		PID  int
	}
	if err := json.Unmarshal([]byte(m.at(t, "na", "status", "--data-dir", m.dir, "-o", "json")), &roles); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for _, r := range roles {
		if r.Role == "telemetry" {
			pid = r.PID
		}
	}
	if pid == 0 {
		t.Fatalf("no telemetry among %v", roles)
	}
	pod := m.podsOn(t, "web")["nb"][0][0]
	began := time.Now()
	m.run(t, m.tool, "in", "na", "kill", "-STOP", strconv.Itoa(pid))
	<-time.After(time.Minute) // the outage itself
	m.run(t, m.tool, "in", "na", "kill", "-CONT", strconv.Itoa(pid))
	series := fmt.Sprintf(`container_memory_working_set_bytes{node="nb",pod=%q,container="web"}`, pod)
	last := time.Time{}
	var stamps []float64
	for deadline := time.Now().Add(40 * time.Second); last.Before(began.Add(70*time.Second)) && time.Now().Before(deadline); {
		stamps = nil
		a := m.query(t, fmt.Sprintf("%s[%ds]", series, int(time.Since(began).Seconds())+10))
		for _, s := range a.Data.Result {
			for _, v := range s.Values {
				at, ok := v[0].(float64)
				if !ok {
					t.Fatalf("not a time: %v", v)
				}
				stamps = append(stamps, at)
			}
		}
		if n := len(stamps); n > 0 {
			last = time.UnixMilli(int64(stamps[n-1] * 1000))
		}
		<-time.After(500 * time.Millisecond)
	}
	slices.Sort(stamps)
	if len(stamps) < 2 || last.Before(began.Add(70*time.Second)) {
		t.Fatalf("samples end at %s; the outage began at %s", last, began)
	}
	for i := 1; i < len(stamps); i++ {
		if gap := stamps[i] - stamps[i-1]; gap > 7.5 {
			t.Errorf("a gap of %.1f s, %.1f s after the outage began", gap, stamps[i-1]-float64(began.UnixMilli())/1000)
		}
	}
	want := int((stamps[len(stamps)-1]-stamps[0])/5+0.5) + 1
	t.Logf("%d samples where %d are expected", len(stamps), want)
	if len(stamps) < want-1 || len(stamps) > want+1 {
		t.Errorf("%d samples, want %d", len(stamps), want)
	}
}

// loss lets the worker lose power, and come back.
func (m machines) loss(t *testing.T) {
	m.run(t, m.tool, "crash", "nb")
	ready := []string{"get", "node", "nb", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`}
	m.until(t, 55*time.Second, "the lost node is NotReady", equals("Unknown"), m.perch, ready...)
	m.until(t, 10*time.Second, "the lost node is tainted", contains("node.kubernetes.io/unreachable"), m.perch, "get", "node", "nb", "-o", "jsonpath={.spec.taints[*].key}")
	m.until(t, 40*time.Second, "its pods run elsewhere", func(string) bool {
		return len(m.podsOn(t, "web")["na"]) == 4
	}, m.perch, "rollout", "status", "deploy/web", "--timeout=30s")
	missing := func() string { return strings.Join(m.query(t, `up`).Warnings, "\n") }
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(missing(), "nb"); {
		if time.Now().After(deadline) {
			t.Fatalf("answers do not say that nb is missing: %q", missing())
		}
		<-time.After(500 * time.Millisecond)
	}
	t.Logf("answers warn: %s", missing())
	m.until(t, 10*time.Second, "searches say whose copy answers", contains("lines of node nb come from its copy at na"), "sh", "-c", m.perch+" logs deploy/web --tail 1 2>&1")

	m.run(t, m.tool, "start", "nb", workerIP)
	t.Log(m.at(t, "nb", "agent", "--data-dir", workerDir(), "--detach"))
	m.until(t, 10*time.Second, "the node is ready again", equals("True"), m.perch, ready...)
	m.until(t, 20*time.Second, "its taints are gone", equals(""), m.perch, "get", "node", "nb", "-o", "jsonpath={.spec.taints[*].key}")
	m.until(t, 40*time.Second, "its old pods are gone", func(s string) bool { return strings.Count(s, "web-") == 4 }, m.perch, "get", "pods", "-o", "name")
	m.kube(t, "scale", "deploy/web", "--replicas=6")
	m.kube(t, "rollout", "status", "deploy/web", "--timeout=60s")
	if on := m.podsOn(t, "web"); len(on["nb"]) == 0 {
		t.Errorf("no new pod went to the node that came back: %v", on)
	} else {
		m.until(t, 15*time.Second, "pods of both nodes reach each other again", contains("order"),
			m.perch, "exec", on["nb"][0][0], "--", "/perch-demo", "get", "http://"+on["na"][0][1]+":8080/order")
	}
	for deadline := time.Now().Add(20 * time.Second); missing() != ""; {
		if time.Now().After(deadline) {
			t.Fatalf("answers still warn: %q", missing())
		}
		<-time.After(500 * time.Millisecond)
	}
}
