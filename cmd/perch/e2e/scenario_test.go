package e2e

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// cluster is where the scenarios run.
type cluster struct {
	perch string // the binary
	root  string // of the source tree
	dir   string // data directory
	bin   string // directory with perch and kubectl for PATH
	name  string
	ports []string
}

func open(t *testing.T) cluster {
	t.Helper()
	perch := os.Getenv("PERCH")
	if perch == "" || os.Geteuid() != 0 {
		t.Fatal("run `make e2e`: it needs root and PERCH=path of the binary")
	}
	alone(t)
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	c := cluster{perch: perch, root: root, dir: "/var/lib/perch-e2e", bin: t.TempDir(), name: "e2e",
		ports: []string{"--api-port=16443", "--web-port=19443", "--agent-port=20250", "--forward-port=34224", "--peer-port=12380",
			"--cluster-cidr=10.52.0.0/16", "--service-cidr=10.53.0.0/16", "--node-name=n1"}}
	c.ports = append(c.ports, "--scrape-config="+given(t))
	kubectl := filepath.Join(root, "out", "kubectl") // Debian's, years older than the API
	c.build(t, "kubectl.sh", kubectl)
	for name, program := range map[string]string{"perch": perch, "perch-kubectl": perch, "kubectl": kubectl + "/kubectl"} {
		if err := os.Symlink(program, filepath.Join(c.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// given is a prometheus.yml with one job, whose target is here.
func given(t *testing.T) string {
	t.Helper()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# TYPE given_answer gauge\ngiven_answer{of=\"a file\"} 17\n") // who asks may be gone
	}))
	t.Cleanup(target.Close)
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	text := fmt.Sprintf("scrape_configs: [{job_name: given, scrape_interval: 2s, static_configs: [{targets: ['%s']}]}]\n", target.Listener.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// alone waits for another run of these tests on this machine: names, ports and
// directories are the same.
func alone(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "perch-e2e.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
}

func (c cluster) env() []string {
	return append(os.Environ(), "KUBECONFIG="+c.dir+"/kubeconfig", "PATH="+c.bin+":"+os.Getenv("PATH"), "HOME="+c.bin)
}

func (c cluster) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	return runWith(t, c.env(), name, args...)
}

// build runs a script of ../../../build with its own environment, so that Go's
// cache is used.
func (c cluster) build(t *testing.T, script string, args ...string) {
	t.Helper()
	runWith(t, nil, filepath.Join(c.root, "build", script), args...)
}

func runWith(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// up starts the cluster and loads the images of the scenarios.
func (c cluster) up(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(c.dir + "/config.json"); err == nil { // an interrupted run
		c.run(t, c.perch, "down", "--data-dir", c.dir, "--purge")
	}
	t.Log(c.run(t, c.perch, append([]string{"up", "--data-dir", c.dir, "--name", c.name, "--detach"}, c.ports...)...))
	t.Cleanup(func() {
		if t.Failed() {
			c.tellLogs(t)
		}
	})
	images := filepath.Join(c.root, "out", "images")
	c.build(t, "images/all.sh", images)
	files, err := filepath.Glob(images + "/*.tar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no images in %s: %v", images, err)
	}
	for _, f := range files {
		t.Log(strings.TrimSpace(c.run(t, c.perch, "images", "load", "--data-dir", c.dir, f)))
	}
}

// quiet wants that a cluster's first start says nothing about what is only late.
func (c cluster) quiet(t *testing.T) {
	for _, role := range []string{"runtime", "server", "telemetry", "agent"} {
		text, err := os.ReadFile(filepath.Join(c.dir, "log", role+".log"))
		if err != nil {
			t.Error(err)
		}
		for l := range strings.Lines(string(text)) {
			if strings.Contains(l, "Failed to watch") || strings.Contains(l, "is forbidden") {
				t.Errorf("log of %s: %s", role, l)
			}
		}
	}
}

func (c cluster) tellLogs(t *testing.T) {
	logs, _ := filepath.Glob(c.dir + "/log/*.log")
	for _, f := range logs {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		lines := strings.Split(string(text), "\n")
		t.Logf("== last lines of %s\n%s", filepath.Base(f), strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// TestMain lets more scenarios run at once than there are cores: most of their
// time they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "5"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestScenarios(t *testing.T) {
	c := open(t)
	before := residue(t, c)
	c.up(t)
	down := false
	defer func() {
		if !down {
			c.run(t, c.perch, "down", "--data-dir", c.dir, "--purge")
		}
	}()
	t.Run("quiet start", c.quiet)
	t.Run("latency", c.latency)
	t.Run("refused", c.refused)
	t.Run("rights", c.rights)
	t.Run("scenario", func(t *testing.T) {
		var n atomic.Int32
		testscript.Run(t, testscript.Params{
			Dir:                 filepath.Join("..", "testdata"),
			RequireExplicitExec: true,
			Cmds:                words(c),
			Setup:               func(e *testscript.Env) error { return c.prepare(t, e, fmt.Sprintf("s%d", n.Add(1))) },
		})
	})
	t.Run("short pods", c.shortPods)
	t.Run("burst", c.burst)   // ends with a fresh supervisor, so that the next has first restarts too
	t.Run("hung", c.hung)     // from here on roles are ended
	t.Run("killed", c.killed) // with a fresh supervisor at its end,
	t.Run("names", c.names)   // so that these restarts are the first, and quick
	c.run(t, c.perch, "down", "--data-dir", c.dir, "--purge")
	down = true
	for what, lines := range c.left(t, before) {
		t.Errorf("perch down left %s:\n  %s", what, strings.Join(lines, "\n  "))
	}
}

// prepare gives a scenario its namespace and its environment.
func (c cluster) prepare(t *testing.T, e *testscript.Env, ns string) error {
	e.Vars = append(e.Vars, "KUBECONFIG="+c.dir+"/kubeconfig", "NS="+ns, "DATA="+c.dir, "PERCH="+c.perch)
	e.Setenv("PATH", c.bin+":"+os.Getenv("PATH"))
	e.Setenv("HOME", e.WorkDir)
	kubectl := func(args ...string) error {
		cmd := exec.Command(c.perch, args...)
		cmd.Env = c.env()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	e.Defer(func() {
		if err := kubectl("delete", "namespace", ns, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	return kubectl("create", "namespace", ns)
}
