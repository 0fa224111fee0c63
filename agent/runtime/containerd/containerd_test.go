package containerd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/agent/image/load"
	"perch/agent/runtime"
	"perch/agent/runtime/bundle"
	"perch/agent/runtime/runtimetest"
)

const (
	testCgroup = "/perch-runtimetest"
	busybox    = "docker.io/library/busybox:latest"
)

// TestMain lets the test binary be the runtime process too, so that tests can
// kill it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PERCH_TEST_RUNTIME_DIR"); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h, err := bundle.Open(filepath.Join(dir, "bin"), log)
	if err != nil {
		return err
	}
	s, err := New(Config{Dir: dir, Helpers: h, NoSync: true, ShimCgroup: os.Getenv("PERCH_TEST_SHIM_CGROUP")}, log)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// node is a runtime process with its data dir.
type node struct {
	dir    string
	log    *os.File
	cmd    *exec.Cmd
	client *runtime.Client
}

// newNode starts a runtime in an own process and removes everything it made at
// the end of the test.
func newNode(t testing.TB) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers are made of namespaces, mounts and cgroups")
	}
	n := &node{dir: t.TempDir()}
	log, err := os.Create(filepath.Join(n.dir, "runtime.log"))
	if err != nil {
		t.Fatal(err)
	}
	n.log = log
	t.Cleanup(func() {
		n.kill(t)
		if _, err := runtime.Cleanup(context.Background(), n.cleanupConfig(), discard()); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("log of the runtime:\n%s", text)
		}
	})
	n.start(t)
	l, err := load.Open(t.Context(), n.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := os.Open(busyboxArchive(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := l.Import(t.Context(), f)
	if err != nil || len(got) != 1 || got[0].Name != busybox {
		t.Fatalf("import: have %v, %v; want %s", got, err, busybox)
	}
	return n
}

func (n *node) cleanupConfig() runtime.CleanupConfig {
	return runtime.CleanupConfig{Dir: n.dir, Endpoint: n.socket(), StateDirs: StateDirs(n.dir), SocketDir: SocketDir(n.dir), CgroupRoot: testCgroup}
}

func (n *node) socket() string { return filepath.Join(n.dir, "run", "runtime.sock") }

func (n *node) start(t testing.TB) {
	t.Helper()
	n.cmd = exec.Command(os.Args[0], "-test.run=^$")
	n.cmd.Env = append(os.Environ(), "PERCH_TEST_RUNTIME_DIR="+n.dir)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if n.client == nil {
		c, err := runtime.New(runtime.Config{Endpoint: n.socket()}, discard(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		n.client = c
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.client.WaitReady(ctx); err != nil {
		text, _ := os.ReadFile(n.log.Name())
		t.Fatalf("%v\n%s", err, text)
	}
}

// stop asks the runtime to end and returns how it did.
func (n *node) stop(t testing.TB) error {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := n.cmd.Wait()
	n.cmd = nil
	return err
}

func (n *node) kill(t testing.TB) {
	t.Helper()
	if n.cmd == nil {
		return
	}
	if err := n.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = n.cmd.Wait()
	n.cmd = nil
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// busyboxArchive packs this machine's busybox.
func busyboxArchive(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "busybox.tar")
	if text, err := exec.Command("../../../build/images/busybox.sh", out, busybox).CombinedOutput(); err != nil {
		t.Fatalf("make busybox image: %v\n%s", err, text)
	}
	return out
}

func TestContainerdKeepsTheContract(t *testing.T) {
	n := newNode(t)
	runtimetest.Run(t, func(t *testing.T) runtimetest.Subject {
		return runtimetest.Subject{Service: n.client, Image: busybox, CgroupParent: testCgroup + "/besteffort", LogDir: t.TempDir()}
	})
}

func TestCapable(t *testing.T) {
	status := "Name:\tx\nCapEff:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\n"
	if capable(status, 24) {
		t.Error("bit 24 (CAP_SYS_RESOURCE) is not in the effective set")
	}
	if !capable(status, 21) {
		t.Error("bit 21 (CAP_SYS_ADMIN) is in the effective set")
	}
	if capable("CapEff: strange", 1) {
		t.Error("what cannot be read is no capability")
	}
}

func TestPathsOfTwoClustersDiffer(t *testing.T) {
	h := bundle.Helpers{Dir: "/b", Shim: "/b/perch-shim", Runc: "/b/runc", PauseImage: "/b/pause.tar", PauseSum: "0"}
	a, b := Config{Dir: "/data/a", Helpers: h}, Config{Dir: "/data/b", Helpers: h}
	if err := a.complete(); err != nil {
		t.Fatal(err)
	}
	if err := b.complete(); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(generate(a, facts{}))
	for _, path := range []string{"/run/containerd", "/var/run", "/etc/", "/opt/", "/data/b"} {
		if strings.Contains(text, path) {
			t.Errorf("the configuration of /data/a names %s", path)
		}
	}
	if SocketDir(a.Dir) == SocketDir(b.Dir) || len(SocketDir(a.Dir)) > 42 {
		t.Errorf("have socket folders %s and %s, want two of at most 42 bytes", SocketDir(a.Dir), SocketDir(b.Dir))
	}
	long := Config{Dir: "/" + strings.Repeat("x", 100), Helpers: h}
	if err := long.complete(); err == nil || !strings.Contains(err.Error(), "shorter data dir") {
		t.Errorf("have %v, want an error that says to choose a shorter data dir", err)
	}
}
