package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/runtime"
)

// run starts one container in an own pod on the host's network.
func (n *node) run(t testing.TB, logs, image string, change func(*cri.ContainerConfig), cmd ...string) (pod, id, log string) {
	t.Helper()
	uid := fmt.Sprintf("u%d", time.Now().UnixNano())
	cfg := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: uid, Namespace: "life", Uid: uid}, LogDirectory: filepath.Join(logs, uid),
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: testCgroup + "/burstable/pod" + uid, SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}}},
	}
	if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	pod, err := n.client.RunPodSandbox(t.Context(), cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	cc := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: image}, Command: cmd, LogPath: "main.log",
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: cfg.Linux.SecurityContext.NamespaceOptions}}}
	if change != nil {
		change(cc)
	}
	if id, err = n.client.CreateContainer(t.Context(), pod, cc, cfg); err != nil {
		t.Fatal(err)
	}
	if err = n.client.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return pod, id, filepath.Join(cfg.LogDirectory, "main.log")
}

// until asks until ok or 20 s passed.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit, tick := time.NewTimer(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit.C:
			t.Fatalf("waited 20 s until %s", what)
		case <-tick.C:
		}
	}
}

func (n *node) ended(t testing.TB, id string) *cri.ContainerStatus {
	t.Helper()
	var st *cri.ContainerStatus
	until(t, "the container ends", func() bool {
		var err error
		st, err = n.client.ContainerStatus(t.Context(), id)
		return err == nil && st.State == cri.ContainerState_CONTAINER_EXITED
	})
	return st
}

func countLines(t testing.TB, path string) int {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func TestKilledRuntimeLosesNoLine(t *testing.T) {
	n := newNode(t)
	const lines = 100_000
	_, id, log := n.run(t, t.TempDir(), busybox, nil, "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; done; sleep 2", lines))
	for kill := range 3 {
		until(t, "the container has written more", func() bool { return countLines(t, log) > kill*lines/6 })
		n.kill(t)
		n.start(t)
	}
	if st := n.ended(t, id); st.ExitCode != 0 {
		t.Errorf("have exit code %d, want 0: the container must not notice", st.ExitCode)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log has %d of %d lines", countLines(t, log), lines)
		}
	})
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := 0
	for in := bufio.NewScanner(f); in.Scan(); {
		_, text, ok := strings.Cut(in.Text(), " stdout F ")
		want++
		if !ok || text != strconv.Itoa(want) {
			t.Fatalf("line %d is %q: lines were lost, doubled or broken", want, in.Text())
		}
	}
	if want != lines {
		t.Errorf("have %d lines, want %d", want, lines)
	}
}

func TestContainerThatEndsWhileTheRuntimeIsAwayKeepsCodeAndLines(t *testing.T) {
	n := newNode(t)
	const lines = 5_000
	_, id, log := n.run(t, t.TempDir(), busybox, nil, "sh", "-c",
		fmt.Sprintf("echo 0; sleep 1; i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; done; exit 3", lines))
	until(t, "the container runs", func() bool { return countLines(t, log) == 1 })
	shims := n.shims(t)
	n.kill(t)
	// Only pause is left below the shim.
	until(t, "the container ended", func() bool { return countChildren(t, shims[0]) == 1 })
	n.start(t)
	if st := n.ended(t, id); st.ExitCode != 3 || st.Reason != "Error" || st.StartedAt == 0 {
		t.Errorf("have %v, want exit code 3, Error, and when it started", st)
	}
	until(t, "the log is complete", func() bool { return countLines(t, log) == lines+1 })
}

// countChildren counts the processes that a process started, by any thread.
func countChildren(t testing.TB, pid string) int {
	n := 0
	files, err := filepath.Glob("/proc/" + pid + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil { // a thread may have ended
			n += len(strings.Fields(string(text)))
		}
	}
	return n
}

func TestContainerWithATerminalIsLoggedToo(t *testing.T) {
	n := newNode(t)
	_, id, log := n.run(t, t.TempDir(), busybox, func(c *cri.ContainerConfig) { c.Tty, c.Stdin = true, true }, "sh", "-c", "test -t 0 && echo on a terminal; exit 4")
	if st := n.ended(t, id); st.ExitCode != 4 || st.LogPath != log {
		t.Errorf("have exit code %d, log %s; want 4, %s", st.ExitCode, st.LogPath, log)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.HasSuffix(string(text), " stdout F on a terminal\r\n") {
		t.Errorf("have %q, %v; want the line, complete when the container is", text, err)
	}
}

func TestStoppedRuntimeEndsCleanlyAndContainersLiveOn(t *testing.T) {
	n := newNode(t)
	_, id, log := n.run(t, t.TempDir(), busybox, nil, "sh", "-c", "while true; do echo on; sleep 0.02; done")
	until(t, "lines are written", func() bool { return countLines(t, log) > 3 })
	if err := n.stop(t); err != nil {
		t.Errorf("the runtime ended with %v, want exit code 0", err)
	}
	n.start(t)
	st, err := n.client.ContainerStatus(t.Context(), id)
	if err != nil || st.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("have %v, %v; want a running container", st, err)
	}
	before := countLines(t, log)
	until(t, "more lines are written", func() bool { return countLines(t, log) > before+3 })
	start := time.Now()
	if err := n.client.StopContainer(t.Context(), id, 0); err != nil || time.Since(start) > 25*time.Second {
		t.Errorf("stopping an adopted container took %v: %v", time.Since(start), err)
	}
}

func TestShimsJoinTheirCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers are made of namespaces, mounts and cgroups")
	}
	tops, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range append(tops, "/sys/fs/cgroup/cgroup.procs") {
		if _, err := os.Stat(top); err != nil || filepath.Base(filepath.Dir(top)) == "cpuset" {
			continue // cpuset takes no process before it has cpus
		}
		if err := os.MkdirAll(filepath.Join(filepath.Dir(top), testCgroup, "system"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PERCH_TEST_SHIM_CGROUP", testCgroup+"/system")
	n := newNode(t)
	n.run(t, t.TempDir(), busybox, nil, "sleep", "1000")
	for _, pid := range n.shims(t) {
		text, err := os.ReadFile("/proc/" + pid + "/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "memory:"+testCgroup+"/system\n") && !strings.Contains(string(text), "0::"+testCgroup+"/system\n") {
			t.Errorf("shim %s is in %s, want %s/system", pid, text, testCgroup)
		}
	}
}

// shims are the pids of this node's shims.
func (n *node) shims(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		exe, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if strings.HasPrefix(exe, filepath.Join(n.dir, "bin")) && strings.HasSuffix(exe, "containerd-shim-runc-v2") {
			out = append(out, e.Name())
		}
	}
	if len(out) == 0 {
		t.Fatal("no shim runs")
	}
	return out
}

func TestContainerOverItsMemoryIsOOMKilled(t *testing.T) {
	n := newNode(t)
	_, id, _ := n.run(t, t.TempDir(), busybox, func(c *cri.ContainerConfig) {
		c.Linux.Resources = &cri.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
	}, "sh", "-c", "exec tail -c 64m /dev/zero")
	if st := n.ended(t, id); st.Reason != "OOMKilled" || st.ExitCode != 137 {
		t.Errorf("have reason %q, exit code %d; want OOMKilled, 137", st.Reason, st.ExitCode)
	}
}

func TestSecurityContextIsInForce(t *testing.T) {
	n := newNode(t)
	_, id, log := n.run(t, t.TempDir(), busybox, func(c *cri.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
		c.Linux.SecurityContext.NoNewPrivs = true
		c.Linux.SecurityContext.ReadonlyRootfs = true
		c.Linux.SecurityContext.Capabilities = &cri.Capability{DropCapabilities: []string{"ALL"}}
		c.Linux.SecurityContext.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	}, "sh", "-c", "grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '; touch /x 2>&1; true")
	n.ended(t, id)
	until(t, "five lines are written", func() bool { return countLines(t, log) >= 5 })
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid: 1000 1000 1000 1000", "CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2", "Read-only file system"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("want %q in %s", want, text)
		}
	}
}

func TestCleanupWithoutRuntimeLeavesNothing(t *testing.T) {
	n := newNode(t)
	for range 2 {
		_, _, log := n.run(t, t.TempDir(), busybox, nil, "sh", "-c", "sleep 1000 & echo two; sleep 1000")
		until(t, "both processes run", func() bool { return countLines(t, log) >= 1 })
	}
	n.kill(t)
	done, err := runtime.Cleanup(context.Background(), n.cleanupConfig(), discard())
	if err != nil || done.Processes < 2*4 || done.Mounts < 4 || done.Cgroups == 0 {
		t.Errorf("have %+v, %v; want at least 8 processes (2 x shim, pause, two sleeps), 4 mounts and some cgroups", done, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), n.dir) {
		t.Error("mounts are left")
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + testCgroup); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	if _, err := os.Stat(SocketDir(n.dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of sockets is left: %v", err)
	}
	if done, err = runtime.Cleanup(context.Background(), n.cleanupConfig(), discard()); err != nil || done.Processes != 0 || done.Mounts != 0 {
		t.Errorf("again: have %+v, %v; want nothing to do", done, err)
	}
	// The images are still there and a new runtime starts on them.
	n.start(t)
	img, err := n.client.ImageStatus(t.Context(), &cri.ImageSpec{Image: busybox})
	if err != nil || img == nil {
		t.Errorf("have %v, %v; want busybox still on the node", img, err)
	}
	_, id, _ := n.run(t, t.TempDir(), busybox, nil, "true")
	n.ended(t, id)
}

func TestPullFromARegistryOnThisMachine(t *testing.T) {
	n := newNode(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inner := registry.New(registry.Logger(stdlog.New(io.Discard, "", 0)))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if strings.Contains(r.URL.Path, "/private") && (user != "me" || password != "secret") {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}), ErrorLog: nil}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	img, err := tarball.ImageFromPath(busyboxArchive(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"open", "private"} {
		ref, err := name.ParseReference(l.Addr().String()+"/"+repo+":v1", name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		push := []remote.Option{}
		if repo == "private" { // fill the store behind the login
			plain, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			fill := &http.Server{Handler: inner}
			go func() { _ = fill.Serve(plain) }()
			defer fill.Close()
			if ref, err = name.ParseReference(plain.Addr().String()+"/private:v1", name.Insecure); err != nil {
				t.Fatal(err)
			}
		}
		if err := remote.Write(ref, img, push...); err != nil {
			t.Fatal(err)
		}
	}
	public := l.Addr().String() + "/open:v1"
	ref, err := n.client.PullImage(t.Context(), &cri.ImageSpec{Image: public}, nil, nil)
	if err != nil || ref == "" {
		t.Fatalf("have %q, %v", ref, err)
	}
	_, id, _ := n.run(t, t.TempDir(), public, nil, "true")
	n.ended(t, id)
	private := &cri.ImageSpec{Image: l.Addr().String() + "/private:v1"}
	if _, err := n.client.PullImage(t.Context(), private, nil, nil); !errors.Is(err, runtime.ErrUnauthorized) {
		t.Errorf("without login: have %v, want ErrUnauthorized", err)
	}
	if _, err := n.client.PullImage(t.Context(), private, &cri.AuthConfig{Username: "me", Password: "secret"}, nil); err != nil {
		t.Errorf("with login: %v", err)
	}
	if _, err := n.client.PullImage(t.Context(), &cri.ImageSpec{Image: l.Addr().String() + "/none:v1"}, nil, nil); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("unknown image: have %v, want ErrNotFound", err)
	}
}

// BenchmarkPod measures create to running, whole pods on the host's network,
// and what the runtime and the shims cost when idle with 20 pods.
func BenchmarkPod(b *testing.B) {
	n := newNode(b)
	logs := b.TempDir()
	var took []time.Duration
	var pods []string
	for b.Loop() {
		start := time.Now()
		pod, _, _ := n.run(b, logs, busybox, nil, "sleep", "10000")
		took = append(took, time.Since(start))
		pods = append(pods, pod)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	shims, pss := n.shims(b), 0
	for _, pid := range shims {
		pss += memory(b, pid)
	}
	b.ReportMetric(float64(pss)/float64(len(shims)), "kB-PSS/shim")
	b.ReportMetric(float64(memory(b, strconv.Itoa(n.cmd.Process.Pid))), "kB-PSS-runtime")
	b.ReportMetric(float64(len(pods)), "pods")
	before := ticks(b, n.cmd.Process.Pid)
	const idle = 5 * time.Second
	<-time.After(idle)
	b.ReportMetric(float64(ticks(b, n.cmd.Process.Pid)-before)/100/idle.Seconds()*100, "%CPU-idle")
}

// memory reads a process' proportional set size in kB.
func memory(t testing.TB, pid string) int {
	f, err := os.Open("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			kb, _ := strconv.Atoi(f[1])
			return kb
		}
	}
	return 0
}

// ticks reads a process' CPU time in hundredths of a second.
func ticks(t testing.TB, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndex(string(text), ")")+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}
