package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// copyStatus is what a node tells of its copy and of those it keeps.
type copyStatus struct {
	Own struct {
		Follower, Next, Reason, Error string
		At                            time.Time
		PendingBytes                  int64
		Whole                         bool
	}
	Members []struct {
		Node    string
		Healthy bool
	}
	Kept []struct {
		Owner string
		Bytes int64
		At    time.Time
	}
}

// healthy is how many members of the ring it knows that are well. With fewer the ring
// says something else.
func (s copyStatus) healthy() (n int) {
	for _, m := range s.Members {
		if m.Healthy {
			n++
		}
	}
	return n
}

// found is an answer to a query for numbered lines.
type found struct {
	numbers map[int]bool
	last    int
	trailer struct {
		Partial         bool
		Reason          string
		Missing, Hidden []string
		Copies          []struct {
			Node, By string
			At       time.Time
			Age      int64 `json:"age_ms"`
		}
	}
}

// flock is one server and two workers that keep copies of each other's lines.
type flock struct {
	machines
	web *http.Client
}

// startServer makes three machines, ended with the test, and a server on the first.
func (f flock) startServer(t *testing.T) (address map[string]string) {
	t.Helper()
	f.run(t, f.tool, "down") // an interrupted run
	if err := os.RemoveAll(filepath.Dir(f.dir)); err != nil {
		t.Fatal(err)
	}
	address = map[string]string{"na": serverIP, "nb": workerIP, "nc": machinesNet + ".13"}
	f.run(t, f.tool, "hub")
	for _, n := range []string{"na", "nb", "nc"} {
		f.run(t, f.tool, "start", n, address[n])
	}
	t.Cleanup(func() {
		for _, n := range []string{"nc", "nb", "na"} {
			_ = exec.Command(f.tool, "start", n, address[n]).Run() // one that was lost; others run
			if t.Failed() {
				c := f.cluster
				c.dir = f.data(n)
				c.tellLogs(t)
			}
			if _, err := os.Stat(f.data(n) + "/config.json"); err == nil {
				f.at(t, n, "down", "--data-dir", f.data(n), "--purge")
			}
		}
		f.run(t, f.tool, "down")
		if err := os.RemoveAll(filepath.Dir(f.dir)); err != nil {
			t.Error(err)
		}
	})
	f.at(t, "na", "up", "--data-dir", f.dir, "--name", "na", "--node-name", "na", "--advertise-address", serverIP,
		"--cluster-cidr", "10.72.0.0/16", "--service-cidr", "10.73.0.0/16", "--detach")
	return address
}

// join makes a machine a worker of the server.
func (f flock) join(t *testing.T, node, address string, flags ...string) {
	t.Helper()
	token, err := exec.Command(f.perch, "node", "token", "--data-dir", f.dir).Output() // the rest is for people
	if err != nil {
		t.Fatal(err)
	}
	f.at(t, node, append([]string{"agent", "--server", "https://" + serverIP + ":6443", "--data-dir", f.data(node), "--name", node, "--node-name", node,
		"--advertise-address", address, "--token", strings.TrimSpace(string(token)), "--detach"}, flags...)...)
}

func (f flock) data(node string) string { return filepath.Join(filepath.Dir(f.dir), node) }

func (f flock) copy(t *testing.T, node string) copyStatus {
	t.Helper()
	var s copyStatus
	out := f.run(t, "curl", "-s", "-m", "20", "--unix-socket", f.data(node)+"/run/telemetry.sock", "http://telemetry/perch/v1/logs/copy")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("copy of %s: %v\n%s", node, err, out)
	}
	return s
}

// wait asks again and again until good says so.
func (f flock) wait(t *testing.T, limit time.Duration, what string, good func() (bool, string)) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, last := good()
		took := time.Since(began)
		if ok {
			t.Logf("%s after %.1f s", what, took.Seconds())
			return took
		}
		if took > limit {
			t.Fatalf("not within %s: %s; last %s", limit, what, last)
		}
		<-tick.C
	}
}

func (f flock) whole(t *testing.T, node, by string) {
	t.Helper()
	f.wait(t, 3*time.Minute, "the copy of "+node+" is whole", func() (bool, string) {
		s := f.copy(t, node)
		return s.Own.Whole && s.Own.Next == "" && s.Own.Follower != "" && (by == "" || s.Own.Follower == by), fmt.Sprintf("%+v", s)
	})
}

// find reads the numbered lines of a pod, as whom token says.
func (f flock) find(t *testing.T, token, query string, to time.Time) found {
	t.Helper()
	var out found
	out.numbers = map[int]bool{}
	form := url.Values{"q": {query}, "from": {"now-1h"}, "limit": {"50000"}, "order": {"asc"}}
	if !to.IsZero() {
		form.Set("to", to.Format(time.RFC3339Nano))
	}
	status, text := caller{"https://" + serverIP + ":9443", token, f.web}.ask(t, "POST", "/logs/api/v1/query", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if status != http.StatusOK {
		t.Fatalf("query %s: %d %s", query, status, text)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, l := range lines[:len(lines)-1] {
		var line struct{ Line string }
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		n, err := strconv.Atoi(strings.TrimPrefix(line.Line, "line "))
		if err != nil || out.numbers[n] {
			t.Fatalf("line %q, twice: %v (%v)", line.Line, out.numbers[n], err)
		}
		out.numbers[n] = true
		out.last = max(out.last, n)
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &out.trailer); err != nil {
		t.Fatalf("%v: %s", err, lines[len(lines)-1])
	}
	return out
}

// unbroken wants all numbers up to the last.
func (g found) unbroken(t *testing.T) {
	t.Helper()
	for n := 1; n <= g.last; n++ {
		if !g.numbers[n] {
			t.Fatalf("line %d of %d is not there; %d are", n, g.last, len(g.numbers))
		}
	}
}

const countRate = 50 // lines a second

func counter(namespace, node string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: counter, namespace: %s}
spec:
  nodeName: %s
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {name: count, image: "docker.io/library/perch-demo:1", args: [count, -rate, "%d"]}
---
`, namespace, node, countRate)
}

// TestCopies takes a server and two workers through the loss of one: its lines
// are read from its follower, and what it followed goes elsewhere.
func TestCopies(t *testing.T) {
	m := openMachines(t)
	f := flock{m, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}}
	images := filepath.Join(m.root, "out", "images")
	m.build(t, "images/static.sh", images+"/perch-demo.tar", "docker.io/library/perch-demo:1", "./cmd/perch-demo")
	address := f.startServer(t)
	if s := f.copy(t, "na"); len(s.Members) != 0 || s.Own.Reason != "there is no other node" {
		t.Errorf("alone the server's copy is %+v", s)
	}
	for _, n := range []string{"nb", "nc"} {
		f.join(t, n, address[n])
	}
	for n := range address {
		m.run(t, m.perch, "images", "load", "--data-dir", f.data(n), images+"/perch-demo.tar")
	}
	for n := range address {
		f.whole(t, n, "")
		// One that came before all were there may be elsewhere for a minute.
		f.wait(t, 3*time.Minute, "the copy of "+n+" is in its place", func() (bool, string) {
			s := f.copy(t, n)
			return s.Own.Whole && s.Own.Reason == "it is where the ring says" && s.healthy() == len(address), fmt.Sprintf("%+v", s)
		})
	}

	// lost is the worker that follows the server, other the third node.
	lost, other := f.copy(t, "na").Own.Follower, "nb"
	if lost == "nb" {
		other = "nc"
	}
	keeper := f.copy(t, lost).Own.Follower
	t.Logf("%s follows the server and will be lost; %s follows it", lost, keeper)
	if by := f.copy(t, keeper); len(by.Kept) == 0 {
		t.Fatalf("%s keeps nothing: %+v", keeper, by)
	}
	file := filepath.Join(t.TempDir(), "counters.yaml")
	m.kube(t, "create", "namespace", "theirs")
	if err := os.WriteFile(file, []byte(counter("default", lost)+counter("theirs", lost)), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kube(t, "apply", "-f", file)
	admin := m.kube(t, "token", "--data-dir", m.dir)
	m.kube(t, "create", "serviceaccount", "reader")
	m.kube(t, "create", "role", "reader", "--verb=get,list", "--resource=pods,pods/log")
	m.kube(t, "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")
	reader := m.kube(t, "create", "token", "reader")
	m.kube(t, "create", "serviceaccount", "nobody")
	nobody := m.kube(t, "create", "token", "nobody")

	const mine = "namespace:default container:count kind:log"
	ask := func() found { return f.find(t, admin, mine, time.Time{}) }
	f.wait(t, time.Minute, "500 lines are stored", func() (bool, string) {
		g := ask()
		if len(g.trailer.Copies) > 0 || g.trailer.Partial {
			t.Fatalf("while all are well: %+v", g.trailer)
		}
		return g.last >= 500, fmt.Sprint(g.last)
	})

	if g := f.find(t, nobody, "container:count", time.Time{}); g.last > 0 {
		t.Errorf("who may read nothing gets %d lines of another node", g.last)
	}

	// Its link is cut, then mended.
	m.run(t, "ip", "link", "set", machinesHub+"-"+lost, "down")
	cut := time.Now()
	f.wait(t, 30*time.Second, "its copy answers though nobody refuses a connection", func() (bool, string) {
		g := ask()
		return len(g.trailer.Copies) == 1, fmt.Sprintf("%d %+v", g.last, g.trailer)
	})
	g := f.find(t, admin, mine, cut.Add(-5*time.Second))
	if g.unbroken(t); g.trailer.Partial || len(g.trailer.Missing) > 0 || g.trailer.Copies[0].Node != lost || g.trailer.Copies[0].By != keeper {
		t.Errorf("up to 5 s before its link was cut: %+v", g.trailer)
	}
	if g := ask(); !g.trailer.Partial || !strings.Contains(g.trailer.Reason, "its copy ends at") {
		t.Errorf("up to now: %+v", g.trailer)
	}
	m.run(t, "ip", "link", "set", machinesHub+"-"+lost, "up")
	f.wait(t, time.Minute, "it answers itself again", func() (bool, string) {
		g := ask()
		g.unbroken(t)
		return len(g.trailer.Copies) == 0 && !g.trailer.Partial, fmt.Sprintf("%+v", g.trailer)
	})
	f.whole(t, "na", lost)
	f.whole(t, lost, keeper)

	// It loses power.
	before := ask()
	m.run(t, m.tool, "crash", lost)
	died := time.Now()
	var after found
	f.wait(t, 30*time.Second, "the lines of the lost node are read", func() (bool, string) {
		after = ask()
		return len(after.trailer.Copies) == 1, fmt.Sprintf("%+v", after.trailer)
	})
	after.unbroken(t)
	c := after.trailer.Copies[0]
	t.Logf("before its end %d lines were read, after it %d from %s as of %.1f s before its end", before.last, after.last, c.By, died.Sub(c.At).Seconds())
	if c.Node != lost || c.By != keeper || c.Age <= 0 || died.Sub(c.At) > 5*time.Second || after.last < before.last-5*countRate {
		t.Errorf("more than its last 5 s are lost: %d lines, %+v", after.last, c)
	}
	limited := f.find(t, reader, "container:count kind:log", time.Time{})
	if limited.unbroken(t); len(limited.trailer.Copies) != 1 || limited.last < before.last-5*countRate || !slices.Contains(limited.trailer.Hidden, "theirs") {
		t.Errorf("who may read one namespace gets %d lines: %+v", limited.last, limited.trailer)
	}
	if g := f.find(t, nobody, "container:count", time.Time{}); g.last > 0 {
		t.Errorf("who may read nothing gets %d lines of a copy", g.last)
	}

	// What it kept goes to the third node.
	f.whole(t, "na", other)
	if s := f.copy(t, other); !keeps(s, "na") {
		t.Errorf("%s keeps %+v", other, s.Kept)
	}

	// It comes back: it answers itself, and the server's copy moves to it.
	m.run(t, m.tool, "start", lost, address[lost])
	m.at(t, lost, "agent", "--data-dir", f.data(lost), "--detach")
	f.wait(t, 30*time.Second, "it answers itself again", func() (bool, string) {
		g := ask()
		return len(g.trailer.Copies) == 0 && !g.trailer.Partial && g.last >= before.last, fmt.Sprintf("%d %+v", g.last, g.trailer)
	})
	ask().unbroken(t)
	f.whole(t, "na", lost)
	f.wait(t, time.Minute, "the copy in between is dropped", func() (bool, string) {
		s := f.copy(t, other)
		return !keeps(s, "na"), fmt.Sprintf("%+v", s.Kept)
	})

	// A node that is taken out of the cluster leaves its lines.
	f.whole(t, lost, keeper)
	m.at(t, lost, "down", "--data-dir", f.data(lost))
	m.kube(t, "delete", "node", lost)
	f.wait(t, time.Minute, "lines of a removed node are read", func() (bool, string) {
		g := ask()
		return len(g.trailer.Copies) == 1 && !g.trailer.Partial && g.last >= before.last, fmt.Sprintf("%d %+v", g.last, g.trailer)
	})

	// Set up anew it has another store, of which there is no copy yet.
	m.at(t, lost, "down", "--data-dir", f.data(lost), "--purge")
	f.join(t, lost, address[lost])
	f.wait(t, 3*time.Minute, "its new store has a copy, and its former lines are there all the time", func() (bool, string) {
		g := ask()
		if g.unbroken(t); g.last < before.last {
			t.Fatalf("%d lines of %d, %+v", g.last, before.last, g.trailer)
		}
		s := f.copy(t, lost)
		return s.Own.Whole, fmt.Sprintf("%+v", s.Own)
	})
}

func keeps(s copyStatus, owner string) bool {
	for _, k := range s.Kept {
		if k.Owner == owner {
			return true
		}
	}
	return false
}
