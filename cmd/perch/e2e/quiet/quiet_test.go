package quiet

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"perch/metrics/dashboard"
)

const (
	patience = 45 * time.Second
	web      = "20643"
)

type cluster struct {
	perch, root, dir, token string
	quietFor                time.Duration
	door                    *http.Client
}

func (c cluster) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(c.perch, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.dir+"/kubeconfig")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("perch %s: %v\n%s%s", strings.Join(args, " "), err, out, err.(*exec.ExitError).Stderr)
	}
	return strings.TrimSpace(string(out))
}

// TestAHealthyClusterIsQuiet starts a cluster and an application, looks for
// three minutes whether an alert fires, and then asks what the dashboards ask.
func TestAHealthyClusterIsQuiet(t *testing.T) {
	c := cluster{perch: os.Getenv("PERCH"), dir: "/var/lib/perch-quiettest"}
	if c.perch == "" || os.Geteuid() != 0 {
		t.Fatal("run `make e2e`: it needs root and PERCH=path of the binary")
	}
	var err error
	if c.quietFor, err = time.ParseDuration(cmp.Or(os.Getenv("QUIET"), "3m")); err != nil { // `make soak` asks for longer
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "perch-quiettest.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // a second run waits
		t.Fatal(err)
	}
	if c.root, err = filepath.Abs("../../../.."); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.dir + "/config.json"); err == nil { // an interrupted run
		c.run(t, "down", "--data-dir", c.dir, "--purge")
	}
	t.Cleanup(func() { c.run(t, "down", "--data-dir", c.dir, "--purge") })
	began := time.Now()
	c.run(t, "up", "--data-dir", c.dir, "--name", "quiettest", "--node-name", "wren", "--detach", "--api-port=18643", "--web-port="+web, "--agent-port=20550",
		"--forward-port=34524", "--peer-port=12680", "--cluster-cidr=10.68.0.0/16", "--service-cidr=10.69.0.0/16")
	image := filepath.Join(c.root, "out", "images", "quiet", "perch-demo.tar")
	if out, err := exec.Command(filepath.Join(c.root, "build", "images", "static.sh"), image, "docker.io/library/perch-demo:1", "./cmd/perch-demo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.run(t, "images", "load", "--data-dir", c.dir, image)
	c.run(t, "create", "namespace", "shop")
	c.run(t, "-n", "shop", "apply", "-f", "testdata/shop.yaml")

	text, err := os.ReadFile(c.dir + "/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	c.door = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	c.token = c.run(t, "token", "--data-dir", c.dir)

	t.Run("nothing fires but the dead-man switch", func(t *testing.T) { c.silent(t, began) })
	t.Run("every rule is evaluated without error", c.rules)
	t.Run("every panel of every dashboard has data", c.panels)
	t.Run("promtool takes every text", c.texts)
	t.Run("what other rules and dashboards ask for is there", c.known)
	t.Run("amtool works", c.amtool)
}

// silent looks every few seconds at what fires, and at the end at what fired at
// any moment since the cluster was started.
func (c cluster) silent(t *testing.T, began time.Time) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	told := map[string]bool{}
	for time.Since(began) < c.quietFor+5*time.Second {
		for _, s := range c.query(t, `ALERTS{alertstate="firing", alertname!="Watchdog"}`) {
			if what := fmt.Sprint(s.Metric); !told[what] {
				told[what] = true
				t.Errorf("%.0f s after the start: %s", time.Since(began).Seconds(), what)
			}
		}
		<-tick.C
	}
	all := fmt.Sprintf("[%ds:1s]", int(time.Since(began).Seconds()))
	for _, s := range c.query(t, `count_over_time(ALERTS{alertstate="firing", alertname!="Watchdog"}`+all+`)`) {
		t.Errorf("fired for %v s: %v", s.Value[1], s.Metric)
	}
	for _, s := range c.query(t, `count_over_time(ALERTS{alertstate="pending"}`+all+`)`) {
		t.Logf("was pending for %v s: %v", s.Value[1], s.Metric) // what comes near
	}
	var known []struct{ Labels map[string]string }
	c.ask(t, "/alertmanager/api/v2/alerts", nil, &known)
	if len(known) != 1 || known[0].Labels["alertname"] != "Watchdog" {
		t.Errorf("alerts on their way to receivers: %v", known)
	}
	if v := c.query(t, `max(count_over_time(ALERTS{alertname="Watchdog",alertstate="firing"}`+all+`))`); len(v) != 1 || v[0].number() < c.quietFor.Seconds()-30 {
		t.Errorf("the dead-man switch did not fire all the time: %v", v)
	}
}

// rules wants every rule to have been evaluated: a rule that cannot be is
// silent too.
func (c cluster) rules(t *testing.T) {
	var a struct {
		Data struct {
			Groups []struct {
				Name  string
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	c.ask(t, "/prometheus/api/v1/rules", nil, &a)
	n := 0
	for _, g := range a.Data.Groups {
		for _, r := range g.Rules {
			if n++; r.Health != "ok" {
				t.Errorf("%s: %s: %s %s", g.Name, r.Name, r.Health, r.LastError)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d rules", n)
	}
	t.Logf("%d groups, %d rules", len(a.Data.Groups), n)
	if bad := c.query(t, "perch_rule_problems > 0"); len(bad) > 0 {
		t.Errorf("rules that cannot be read: %v", bad)
	}
}

// panels asks each query of each dashboard, as the cluster has them, as a
// reader's page would: over the last minute or, for tables, now.
func (c cluster) panels(t *testing.T) {
	var boards struct {
		Items []struct{ Data map[string]string }
	}
	if err := json.Unmarshal([]byte(c.run(t, "-n", "kube-system", "get", "configmaps", "-l", "grafana_dashboard=1", "-o", "json")), &boards); err != nil {
		t.Fatal(err)
	}
	shipped, err := dashboard.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	if len(boards.Items) != len(shipped) {
		t.Errorf("%d dashboards are objects, %d are shipped", len(boards.Items), len(shipped))
	}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	asked, seen := 0, map[string]bool{}
	for _, b := range boards.Items {
		for file, text := range b.Data {
			all, err := dashboard.Questions(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range all {
				asked++
				name := strings.TrimSuffix(file, ".json") + ": " + q.Panel
				seen[name] = true
				for end := time.Now().Add(patience); !c.has(t, q); <-again.C {
					if time.Now().After(end) {
						t.Errorf("%s has no data:\n%s", name, q.Expr)
						break
					}
				}
			}
		}
	}
	t.Logf("%d dashboards, %d panels, %d queries", len(boards.Items), len(seen), asked)
}

type series struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

func (s series) number() float64 { return number(s.Value) }

func number(v [2]any) float64 {
	text, _ := v[1].(string)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

// has answers whether a query has at least one number.
func (c cluster) has(t *testing.T, q dashboard.Question) bool {
	t.Helper()
	if q.Instant {
		return slices.ContainsFunc(c.query(t, q.Expr), func(s series) bool { return !math.IsNaN(s.number()) })
	}
	now := time.Now().Unix()
	return slices.ContainsFunc(c.prometheus(t, "query_range", url.Values{"query": {q.Expr}, "start": {fmt.Sprint(now - 60)}, "end": {fmt.Sprint(now)}, "step": {"15"}}), func(s series) bool {
		return slices.ContainsFunc(s.Values, func(v [2]any) bool { return !math.IsNaN(number(v)) })
	})
}

func (c cluster) query(t *testing.T, expr string) []series {
	t.Helper()
	return c.prometheus(t, "query", url.Values{"query": {expr}})
}

func (c cluster) prometheus(t *testing.T, what string, form url.Values) []series {
	t.Helper()
	var a struct {
		Status, Error string
		Data          struct{ Result []series }
	}
	c.ask(t, "/prometheus/api/v1/"+what, form, &a)
	if a.Status != "success" {
		t.Fatalf("%v: %s", form, a.Error)
	}
	return a.Data.Result
}

// ask reads from the web door with the administrator's token.
func (c cluster) ask(t *testing.T, path string, form url.Values, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://127.0.0.1:"+web+path+"?"+form.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.door.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", path, resp.Status, err, text)
	}
}
