package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/runtime"
)

// Subject is a runtime under test.
type Subject struct {
	Service runtime.Service
	Image   string // on the node already; has sh, echo, sleep, cat, true, false, env
	// CgroupParent and LogDir of the test's pods; LogDir must exist.
	CgroupParent, LogDir string
}

// Run checks that a runtime does what the agent counts on. open is called once;
// the pods that the tests make are removed at the end.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	s := suite{Subject: open(t)}
	for _, c := range []struct {
		does string
		test func(suite, *testing.T)
	}{
		{"says that it is ready", suite.saysReady},
		{"lists a pod until it is removed", suite.podLife},
		{"refuses a second pod of the same name", suite.podTwice},
		{"runs a container to its end", suite.containerLife},
		{"keeps the exit code and tells Error", suite.exitCode},
		{"refuses a command that does not exist", suite.noSuchCommand},
		{"refuses an image that is not there", suite.noSuchImage},
		{"lets a container end by itself when stopped", suite.stopGracefully},
		{"kills a container that does not heed", suite.stopByForce},
		{"stops and removes what is gone without complaint", suite.gone},
		{"gives a container its environment", suite.environment},
		{"runs commands in a container", suite.execSync},
		{"kills a command that takes too long", suite.execTooLong},
		{"writes lines of both streams, and long ones in parts", suite.logs},
		{"reopens a log that was renamed", suite.reopen},
		{"filters lists by label, pod and state", suite.filters},
		{"removes containers with their pod", suite.removeTogether},
		{"sends events in order", suite.events},
		{"opens a door for streams", suite.streams},
		{"tells what images it has", suite.images},
		{"tells what a container uses", suite.stats},
	} {
		t.Run(c.does, func(t *testing.T) { c.test(s, t) })
	}
}

type suite struct{ Subject }

func (s suite) pod(t *testing.T, labels map[string]string) (string, *cri.PodSandboxConfig) {
	t.Helper()
	uid := newID()[:12]
	dir := filepath.Join(s.LogDir, uid)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "pod-" + uid, Namespace: "contract", Uid: uid}, LogDirectory: dir, Labels: labels,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: s.CgroupParent, SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}}},
	}
	id, err := s.Service.RunPodSandbox(t.Context(), cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Service.RemovePodSandbox(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	return id, cfg
}

func (s suite) create(t *testing.T, pod string, cfg *cri.PodSandboxConfig, name string, cmd ...string) string {
	t.Helper()
	id, err := s.Service.CreateContainer(t.Context(), pod, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: s.Image}, Command: cmd,
		Envs: []*cri.KeyValue{{Key: "COLOUR", Value: []byte("blue")}}, LogPath: name + ".log", Labels: map[string]string{"container": name},
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: cfg.Linux.SecurityContext.NamespaceOptions}},
	}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s suite) start(t *testing.T, name string, cmd ...string) (id string, cfg *cri.PodSandboxConfig) {
	t.Helper()
	pod, cfg := s.pod(t, nil)
	id = s.create(t, pod, cfg, name, cmd...)
	if err := s.Service.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id, cfg
}

// await asks until ok or 20 s passed.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit, tick := time.NewTimer(20*time.Second), time.NewTicker(10*time.Millisecond)
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

func (s suite) exited(t *testing.T, id string) *cri.ContainerStatus {
	t.Helper()
	var st *cri.ContainerStatus
	await(t, "the container exits", func() bool {
		var err error
		if st, err = s.Service.ContainerStatus(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return st.State == cri.ContainerState_CONTAINER_EXITED
	})
	return st
}

func (s suite) saysReady(t *testing.T) {
	v, err := s.Service.Version(t.Context())
	if err != nil || v.RuntimeApiVersion != "v1" {
		t.Fatalf("have %v, %v; want API version v1", v, err)
	}
	st, err := s.Service.Status(t.Context())
	if err != nil || !slices.ContainsFunc(st.Conditions, func(c *cri.RuntimeCondition) bool { return c.Type == cri.RuntimeReady && c.Status }) {
		t.Fatalf("have %v, %v; want RuntimeReady", st, err)
	}
}

func (s suite) podLife(t *testing.T) {
	id, cfg := s.pod(t, map[string]string{"a": "b"})
	st, err := s.Service.PodSandboxStatus(t.Context(), id)
	if err != nil || st.State != cri.PodSandboxState_SANDBOX_READY || st.Metadata.Uid != cfg.Metadata.Uid || st.Labels["a"] != "b" {
		t.Fatalf("have %v, %v; want a ready pod", st, err)
	}
	for range 2 {
		if err := s.Service.StopPodSandbox(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if st, err = s.Service.PodSandboxStatus(t.Context(), id); err != nil || st.State != cri.PodSandboxState_SANDBOX_NOTREADY {
		t.Fatalf("have %v, %v; want a stopped pod", st, err)
	}
	if err := s.Service.RemovePodSandbox(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err = s.Service.PodSandboxStatus(t.Context(), id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("have %v, want ErrNotFound", err)
	}
	list, err := s.Service.ListPodSandbox(t.Context(), &cri.PodSandboxFilter{Id: id})
	if err != nil || len(list) != 0 {
		t.Errorf("have %v, %v; want no pod", list, err)
	}
}

func (s suite) podTwice(t *testing.T) {
	_, cfg := s.pod(t, nil)
	if _, err := s.Service.RunPodSandbox(t.Context(), cfg, ""); !errors.Is(err, runtime.ErrExists) {
		t.Errorf("have %v, want ErrExists", err)
	}
}

func (s suite) containerLife(t *testing.T) {
	pod, cfg := s.pod(t, nil)
	id := s.create(t, pod, cfg, "life", "echo", "hello")
	st, err := s.Service.ContainerStatus(t.Context(), id)
	if err != nil || st.State != cri.ContainerState_CONTAINER_CREATED || st.StartedAt != 0 {
		t.Fatalf("have %v, %v; want a created container", st, err)
	}
	if err := s.Service.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	st = s.exited(t, id)
	if st.ExitCode != 0 || st.Reason != "Completed" || st.CreatedAt <= 0 || st.StartedAt < st.CreatedAt || st.FinishedAt < st.CreatedAt {
		t.Errorf("have %v, want exit code 0, Completed, started and finished after it was created", st)
	}
	if err := s.Service.StartContainer(t.Context(), id); !errors.Is(err, runtime.ErrState) {
		t.Errorf("second start: have %v, want ErrState", err)
	}
	if have := s.lines(t, cfg, "life", 1); len(have) != 1 || have[0] != "stdout F hello" {
		t.Errorf("have lines %q", have)
	}
}

func (s suite) exitCode(t *testing.T) {
	id, _ := s.start(t, "code", "sh", "-c", "exit 3")
	if st := s.exited(t, id); st.ExitCode != 3 || st.Reason != "Error" {
		t.Errorf("have exit code %d, reason %q; want 3, Error", st.ExitCode, st.Reason)
	}
}

func (s suite) noSuchCommand(t *testing.T) {
	pod, cfg := s.pod(t, nil)
	id := s.create(t, pod, cfg, "absent", "/no/such/command")
	if err := s.Service.StartContainer(t.Context(), id); err == nil || !strings.Contains(err.Error(), "/no/such/command") {
		t.Errorf("have %v, want an error that names the command", err)
	}
	if st := s.exited(t, id); st.ExitCode != 128 || st.Reason != "StartError" {
		t.Errorf("have exit code %d, reason %q; want 128, StartError", st.ExitCode, st.Reason)
	}
}

func (s suite) noSuchImage(t *testing.T) {
	pod, cfg := s.pod(t, nil)
	_, err := s.Service.CreateContainer(t.Context(), pod, &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "x"},
		Image: &cri.ImageSpec{Image: "perch.internal/no/such:image"}}, cfg)
	if !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("have %v, want ErrNotFound", err)
	}
}

func (s suite) stopGracefully(t *testing.T) {
	id, cfg := s.start(t, "polite", "sh", "-c", "trap 'exit 7' TERM; echo ready; sleep 60")
	s.lines(t, cfg, "polite", 1)
	// A shell heeds a signal when its child ends, so the child is told as well.
	done := make(chan error, 1)
	go func() { done <- s.Service.StopContainer(t.Context(), id, 10*time.Second) }()
	_, _ = s.Service.ExecSync(t.Context(), id, []string{"sh", "-c", "killall sleep; true"}, 5*time.Second)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := s.exited(t, id); st.ExitCode != 7 {
		t.Errorf("have exit code %d, want 7", st.ExitCode)
	}
}

func (s suite) stopByForce(t *testing.T) {
	id, _ := s.start(t, "deaf", "sleep", "600")
	start := time.Now()
	if err := s.Service.StopContainer(t.Context(), id, time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("stopped after %v, want the grace of 1 s to be kept", took)
	}
	if st := s.exited(t, id); st.ExitCode != 137 {
		t.Errorf("have exit code %d, want 137", st.ExitCode)
	}
}

func (s suite) gone(t *testing.T) {
	ctx, id := t.Context(), strings.Repeat("0", 64)
	if err := errors.Join(s.Service.StopPodSandbox(ctx, id), s.Service.RemovePodSandbox(ctx, id), s.Service.StopContainer(ctx, id, 0),
		s.Service.RemoveContainer(ctx, id), s.Service.RemoveImage(ctx, &cri.ImageSpec{Image: "perch.internal/no/such:image"})); err != nil {
		t.Error(err)
	}
	if _, err := s.Service.ContainerStatus(ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("have %v, want ErrNotFound", err)
	}
	if err := s.Service.StartContainer(ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("have %v, want ErrNotFound", err)
	}
}

func (s suite) environment(t *testing.T) {
	id, cfg := s.start(t, "env", "env")
	s.exited(t, id)
	if have := s.lines(t, cfg, "env", 1); !slices.Contains(have, "stdout F COLOUR=blue") {
		t.Errorf("have %q, want COLOUR=blue", have)
	}
}

func (s suite) execSync(t *testing.T) {
	id, _ := s.start(t, "exec", "sleep", "600")
	r, err := s.Service.ExecSync(t.Context(), id, []string{"sh", "-c", "echo out; echo err >&2; exit 4"}, 10*time.Second)
	if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.ExitCode != 4 {
		t.Errorf("have %q, %q, %d, %v; want out, err, 4", r.Stdout, r.Stderr, r.ExitCode, err)
	}
	if err := s.Service.StopContainer(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if _, err = s.Service.ExecSync(t.Context(), id, []string{"true"}, time.Second); !errors.Is(err, runtime.ErrState) {
		t.Errorf("in an exited container: have %v, want ErrState", err)
	}
}

func (s suite) execTooLong(t *testing.T) {
	id, _ := s.start(t, "slow", "sleep", "600")
	if _, err := s.Service.ExecSync(t.Context(), id, []string{"sleep", "60"}, time.Second); !errors.Is(err, runtime.ErrTimeout) {
		t.Errorf("have %v, want ErrTimeout", err)
	}
}

func (s suite) logs(t *testing.T) {
	long := strings.Repeat("x", maxLogLine+100)
	id, cfg := s.start(t, "logs", "sh", "-c", "echo one; echo two >&2; echo "+long)
	s.exited(t, id)
	have := s.lines(t, cfg, "logs", 4)
	slices.Sort(have) // two streams have no common order
	want := []string{"stderr F two", "stdout F one", "stdout F " + long[:100], "stdout P " + long[:maxLogLine]}
	if !slices.Equal(have, want) {
		t.Errorf("have %.60q, want %.60q", have, want)
	}
}

func (s suite) reopen(t *testing.T) {
	id, cfg := s.start(t, "turn", "sh", "-c", "echo before; sleep 2; echo after; sleep 600")
	s.lines(t, cfg, "turn", 1)
	path := filepath.Join(cfg.LogDirectory, "turn.log")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Service.ReopenContainerLog(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if have := s.lines(t, cfg, "turn", 1); len(have) != 1 || have[0] != "stdout F after" {
		t.Errorf("have %q in the new file, want the line written after", have)
	}
}

func (s suite) filters(t *testing.T) {
	pod, cfg := s.pod(t, map[string]string{"filter": "yes"})
	_, _ = s.pod(t, map[string]string{"filter": "no"})
	runs, made := s.create(t, pod, cfg, "runs", "sleep", "600"), s.create(t, pod, cfg, "made", "true")
	if err := s.Service.StartContainer(t.Context(), runs); err != nil {
		t.Fatal(err)
	}
	pods, err := s.Service.ListPodSandbox(t.Context(), &cri.PodSandboxFilter{LabelSelector: map[string]string{"filter": "yes"}})
	if err != nil || len(pods) != 1 || pods[0].Id != pod {
		t.Errorf("pods by label: have %v, %v", pods, err)
	}
	for does, c := range map[string]struct {
		filter *cri.ContainerFilter
		want   []string
	}{
		"by pod":   {&cri.ContainerFilter{PodSandboxId: pod}, []string{runs, made}},
		"by state": {&cri.ContainerFilter{PodSandboxId: pod, State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}, []string{runs}},
		"by label": {&cri.ContainerFilter{PodSandboxId: pod, LabelSelector: map[string]string{"container": "made"}}, []string{made}},
	} {
		have, err := s.Service.ListContainers(t.Context(), c.filter)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, h := range have {
			ids = append(ids, h.Id)
		}
		slices.Sort(ids)
		slices.Sort(c.want)
		if !slices.Equal(ids, c.want) {
			t.Errorf("%s: have %v, want %v", does, ids, c.want)
		}
	}
}

func (s suite) removeTogether(t *testing.T) {
	pod, cfg := s.pod(t, nil)
	id := s.create(t, pod, cfg, "stays", "sleep", "600")
	if err := s.Service.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := s.Service.RemovePodSandbox(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Service.ContainerStatus(t.Context(), id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("have %v, want ErrNotFound", err)
	}
}

func (s suite) events(t *testing.T) {
	var mu sync.Mutex
	seen := map[string][]string{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Service.Events(ctx, func(e *cri.ContainerEventResponse) {
			mu.Lock()
			defer mu.Unlock()
			kind := strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT")
			seen[e.ContainerId] = append(seen[e.ContainerId], kind)
		})
	}()
	// Watching has no first answer; a pod that is seen says that it began.
	await(t, "the first event comes", func() bool {
		s.pod(t, nil)
		mu.Lock()
		defer mu.Unlock()
		return len(seen) > 0
	})
	id, _ := s.start(t, "eventful", "true")
	s.exited(t, id)
	if err := s.Service.RemoveContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	want := []string{"CREATED", "STARTED", "STOPPED", "DELETED"}
	await(t, fmt.Sprintf("the events %v come", want), func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(seen[id], want)
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("watching ended with %v, want nil when the context ends", err)
	}
}

func (s suite) streams(t *testing.T) {
	id, _ := s.start(t, "door", "sleep", "600")
	url, err := s.Service.Exec(t.Context(), &cri.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
	if err != nil || !strings.HasPrefix(url, "http") {
		t.Errorf("exec: have %q, %v", url, err)
	}
	url, err = s.Service.Attach(t.Context(), &cri.AttachRequest{ContainerId: id, Stdout: true})
	if err != nil || !strings.HasPrefix(url, "http") {
		t.Errorf("attach: have %q, %v", url, err)
	}
}

func (s suite) images(t *testing.T) {
	img, err := s.Service.ImageStatus(t.Context(), &cri.ImageSpec{Image: s.Image})
	if err != nil || img == nil || img.Id == "" || img.Size == 0 {
		t.Fatalf("have %v, %v; want %s", img, err, s.Image)
	}
	list, err := s.Service.ListImages(t.Context())
	if err != nil || !slices.ContainsFunc(list, func(i *cri.Image) bool { return i.Id == img.Id }) {
		t.Errorf("have %v, %v; want %s among them", list, err, img.Id)
	}
	if none, err := s.Service.ImageStatus(t.Context(), &cri.ImageSpec{Image: "perch.internal/no/such:image"}); err != nil || none != nil {
		t.Errorf("have %v, %v; want neither image nor error", none, err)
	}
	if _, err := s.Service.ImageFsInfo(t.Context()); err != nil {
		t.Error(err)
	}
}

func (s suite) stats(t *testing.T) {
	id, _ := s.start(t, "usage", "sleep", "600")
	st, err := s.Service.ContainerStats(t.Context(), id)
	if err != nil || st.GetAttributes().GetId() != id || st.Cpu == nil || st.Memory == nil {
		t.Errorf("have %v, %v; want CPU and memory of %s", st, err, id)
	}
	all, err := s.Service.ListContainerStats(t.Context(), &cri.ContainerStatsFilter{Id: id})
	if err != nil || len(all) != 1 {
		t.Errorf("have %v, %v; want one", all, err)
	}
}

var criLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d) ((stdout|stderr) [FP] .*)$`)

// lines waits until a log has n lines and returns all it has, without times.
func (s suite) lines(t *testing.T, cfg *cri.PodSandboxConfig, name string, n int) []string {
	t.Helper()
	var out []string
	await(t, fmt.Sprintf("%s has written %d lines", name, n), func() bool {
		text, err := os.ReadFile(filepath.Join(cfg.LogDirectory, name+".log"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		out = nil
		for line := range strings.Lines(string(text)) {
			line, whole := strings.CutSuffix(line, "\n")
			m := criLine.FindStringSubmatch(line)
			if m == nil && whole {
				t.Fatalf("not a CRI log line: %.200q", line)
			}
			if m != nil && whole {
				out = append(out, m[2])
			}
		}
		return len(out) >= n
	})
	return out
}
