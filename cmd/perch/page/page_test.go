package page

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type cluster struct {
	perch, root, dir string
	env              []string
}

func (c cluster) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// until retries a command until it succeeds and prints something.
func (c cluster) until(t *testing.T, limit time.Duration, what string, args ...string) {
	t.Helper()
	wait := time.NewTicker(500 * time.Millisecond)
	defer wait.Stop()
	for end := time.Now().Add(limit); ; <-wait.C {
		cmd := exec.Command(c.perch, args...)
		cmd.Env = c.env
		out, err := cmd.CombinedOutput()
		if err == nil && len(strings.TrimSpace(string(out))) > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s: %v\n%s", limit, what, err, out)
		}
	}
}

func TestPage(t *testing.T) {
	c := cluster{perch: os.Getenv("PERCH")}
	if c.perch == "" || os.Geteuid() != 0 {
		t.Fatal("run `make page`: it needs root and PERCH=path of the binary")
	}
	var err error
	if c.root, err = filepath.Abs("../../.."); err != nil {
		t.Fatal(err)
	}
	given := os.Getenv("PERCH_PAGE_KUBECONFIG")
	if c.dir = "/var/lib/perch-pagetest"; given != "" {
		c.dir = filepath.Dir(given)
	}
	pictures := filepath.Join(c.root, "out", "page")
	c.env = append(os.Environ(), "KUBECONFIG="+c.dir+"/kubeconfig", "PERCH_DIR="+c.dir, "PERCH_PAGE_OUT="+pictures)
	if given == "" {
		c.up(t)
	} else {
		t.Cleanup(func() { c.run(t, c.perch, "delete", "namespace", "pagetest", "--wait=false") })
	}
	c.run(t, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	c.load(t)

	cmd := exec.Command("node", "--test", "--test-concurrency=1", "--test-reporter=spec", "page.test.mjs")
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the page: %v; pictures are in %s", err, pictures)
	}
}

// up starts a cluster of its own, which goes when the test ends.
func (c cluster) up(t *testing.T) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "perch-pagetest.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // a second run waits instead of taking the first for interrupted
		t.Fatal(err)
	}
	if _, err := os.Stat(c.dir + "/config.json"); err == nil { // an interrupted run
		c.run(t, c.perch, "down", "--data-dir", c.dir, "--purge")
	}
	t.Cleanup(func() { c.run(t, c.perch, "down", "--data-dir", c.dir, "--purge") })
	t.Log(c.run(t, c.perch, "up", "--data-dir", c.dir, "--name", "pagetest", "--detach", "--node-name=heron", "--api-port=17643", "--web-port=19643", "--agent-port=20450",
		"--forward-port=34424", "--peer-port=12580", "--cluster-cidr=10.66.0.0/16", "--service-cidr=10.67.0.0/16"))
}

// load starts the application and waits until it has something to show.
func (c cluster) load(t *testing.T) {
	t.Helper()
	images := filepath.Join(c.root, "out", "images")
	c.run(t, filepath.Join(c.root, "build", "images", "static.sh"), filepath.Join(images, "perch-demo.tar"), "docker.io/library/perch-demo:1", "./cmd/perch-demo")
	c.run(t, c.perch, "images", "load", "--data-dir", c.dir, filepath.Join(images, "perch-demo.tar"))
	c.run(t, c.perch, "apply", "-f", "testdata/shop.yaml")
	c.run(t, c.perch, "-n", "pagetest", "rollout", "status", "deploy/web", "--timeout=90s")
	recorded := `container_memory_working_set_bytes{namespace="pagetest",pod="bygone",container="count"}`
	c.until(t, 90*time.Second, "half a minute of bygone", "query", recorded+` and `+recorded+` offset 30s`, "-o", "csv")
	c.run(t, c.perch, "-n", "pagetest", "delete", "pod", "bygone")
	c.until(t, 90*time.Second, "orders", "query", `sum(rate(shop_orders_total{namespace="pagetest"}[30s])) > 0`, "-o", "csv")
	c.until(t, 90*time.Second, "the alert about hungry", "query", `ALERTS{namespace="pagetest",pod="hungry",alertstate="firing"}`, "-o", "csv")
}
