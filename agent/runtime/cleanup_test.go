package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestProcessesOfACluster(t *testing.T) {
	shim := func(pid, parent int, exe, socket string) process {
		return process{pid: pid, parent: parent, exe: exe, args: []string{exe, "-namespace", "k8s.io", "-id", "x", "-address", socket}}
	}
	table := []process{
		{pid: 1, exe: "/sbin/init", args: []string{"init"}},
		shim(10, 1, "/data/a/bin/abc/containerd-shim-runc-v2", "/data/a/run/runtime.sock"),
		{pid: 11, parent: 10, exe: "/pause", args: []string{"/pause"}},
		{pid: 12, parent: 10, exe: "/bin/sh", args: []string{"sh"}},
		{pid: 13, parent: 12, exe: "/bin/sleep", args: []string{"sleep", "9"}},
		{pid: 14, parent: 12, zombie: true},
		shim(20, 1, "/data/b/bin/abc/containerd-shim-runc-v2", "/data/b/run/runtime.sock"),
		{pid: 21, parent: 20, exe: "/pause", args: []string{"/pause"}},
		shim(30, 1, "/data/a/bin/old/perch-shim (deleted)", "/data/a/run/runtime.sock"),
		shim(40, 1, "/usr/bin/containerd-shim-runc-v2", "/run/containerd/containerd.sock"),
		{pid: 50, parent: 1, exe: "/data/a/bin/perch", args: []string{"perch", "up"}},
		{pid: 60, parent: 1, exe: "/bin/grep", args: []string{"grep", "-address", "/data/a/run/runtime.sock"}},
	}
	for dir, want := range map[string]string{"/data/a": "[11 13 12 10 30]", "/data/b": "[21 20]", "/data": "[]"} {
		if have := fmt.Sprint(processesOf(table, dir, dir+"/run/runtime.sock")); have != want {
			t.Errorf("%s: have %s, want %s: only its shims and what they started, children first", dir, have, want)
		}
	}
}

func TestMountsBelow(t *testing.T) {
	text := `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:30 / /data/a rw - ext4 /dev/vdb rw
31 30 0:31 / /data/a/containerd/state/x/rootfs rw - overlay overlay rw
32 30 0:32 / /data/a/pods/1/volumes/my\040disk rw - tmpfs tmpfs rw
33 32 0:33 / /data/a/pods/1/volumes/my\040disk/in rw - tmpfs tmpfs rw
34 22 0:34 / /data/ab rw - tmpfs tmpfs rw
`
	want := "[/data/a/pods/1/volumes/my disk/in /data/a/pods/1/volumes/my disk /data/a/containerd/state/x/rootfs]"
	if have := fmt.Sprint(mountsBelow(text, "/data/a/")); have != want {
		t.Errorf("have %s, want %s", have, want)
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]string{
		"12 (sh) S 3 12 12 0":      "3 false true",
		"12 (a) b (c) Z 7 12 12 0": "7 true true",
		"12 (sh":                   "0 false false",
		"12 (sh) S":                "0 false false",
		"12 (sh) S x":              "0 false false",
	} {
		p, ok := parseStat(text)
		if have := fmt.Sprint(p.parent, p.zombie, ok); have != want {
			t.Errorf("%q: have %s, want %s", text, have, want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (sh) S 3 12")
	f.Fuzz(func(_ *testing.T, text string) { parseStat(text) })
}

func FuzzMountsBelow(f *testing.F) {
	f.Add("31 30 0:31 / /data/a/x rw - overlay overlay rw\n", "/data/a")
	f.Fuzz(func(t *testing.T, text, dir string) {
		for _, m := range mountsBelow(text, dir) {
			if len(m) == 0 {
				t.Error("a mount has no name")
			}
		}
	})
}

func TestCleanupRefusesTheWholeMachine(t *testing.T) {
	for _, dir := range []string{"", "/", "relative", "//"} {
		if _, err := Cleanup(context.Background(), CleanupConfig{Dir: dir}, quiet()); err == nil {
			t.Errorf("data dir %q was accepted", dir)
		}
	}
	if _, err := removeCgroups(context.Background(), "/..", true); err == nil {
		t.Error("the root of all cgroups was accepted")
	}
}

func TestKindOfErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error
	}{
		{status.Error(codes.NotFound, "no"), ErrNotFound},
		{status.Error(codes.Unavailable, "no"), ErrUnavailable},
		{status.Error(codes.DeadlineExceeded, "no"), ErrTimeout},
		{status.Error(codes.FailedPrecondition, `name "a" is reserved for "b"`), ErrExists},
		{status.Error(codes.Unknown, "container is in CONTAINER_EXITED state"), ErrState},
		{status.Error(codes.Unknown, "unexpected status from HEAD request: 401 Unauthorized"), ErrUnauthorized},
		{status.Error(codes.Unknown, "strange"), nil},
	} {
		have := wrap("act on", "id", c.err)
		if c.want != nil && !errors.Is(have, c.want) || c.want == nil && kindOf(c.err) != nil {
			t.Errorf("%v: have %v, want %v", c.err, have, c.want)
		}
	}
	if wrap("act on", "id", nil) != nil {
		t.Error("success became an error")
	}
}

func TestRuntimeThatIsAway(t *testing.T) {
	c, err := New(Config{Endpoint: t.TempDir() + "/no.sock"}, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.RunPodSandbox(t.Context(), &cri.PodSandboxConfig{}, ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a change: have %v, want ErrUnavailable at once", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.WaitReady(ctx); err == nil {
		t.Error("waiting for a runtime that is away succeeded")
	}
	if _, err := New(Config{Endpoint: "tcp://x"}, quiet(), prometheus.NewRegistry()); err == nil {
		t.Error("an endpoint that is no socket was accepted")
	}
}

func TestWhoWritesTheLog(t *testing.T) {
	config := `{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"ContainerAnnotations":["perch.internal/log"]},"other":{}}}}`
	for text, want := range map[string]bool{config: true, `{"containerd":{"defaultRuntimeName":"other","runtimes":{"runc":{"ContainerAnnotations":["perch.internal/log"]}}}}`: false, `{}`: false, "not JSON": false, "": false} {
		if have := handsOn(text, LogAnnotation); have != want {
			t.Errorf("%s: have %v, want %v", text, have, want)
		}
	}
	for _, c := range []struct {
		does          string
		dir, path     string
		annotation    string
		shim          bool
		wantPath, log string
	}{
		{"our shim gets the whole path", "/logs", "a/0.log", "", true, "", "/logs/a/0.log"},
		{"another shim leaves it to the runtime", "/logs", "a/0.log", "", false, "a/0.log", ""},
		{"without a folder there is no log", "", "a/0.log", "", true, "a/0.log", ""},
		{"a forged path is taken away", "/logs", "a/0.log", "/etc/shadow", true, "", "/logs/a/0.log"},
		{"also with another shim", "/logs", "a/0.log", "/etc/shadow", false, "a/0.log", ""},
		{"also without a log", "", "", "/etc/shadow", true, "", ""},
	} {
		t.Run(c.does, func(t *testing.T) {
			in := &cri.ContainerConfig{LogPath: c.path}
			if c.annotation != "" {
				in.Annotations = map[string]string{LogAnnotation: c.annotation}
			}
			out := withLog(in, c.dir, c.shim)
			if out.LogPath != c.wantPath || out.Annotations[LogAnnotation] != c.log || in.LogPath != c.path {
				t.Errorf("have %q, %q; want %q, %q", out.LogPath, out.Annotations[LogAnnotation], c.wantPath, c.log)
			}
		})
	}
}

func TestCleanupEndsWhatIsLeftInItsCgroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for cgroups")
	}
	const root = "/perch-test-cleanup"
	tree := "/sys/fs/cgroup/pids"
	if _, err := os.Stat(tree); err != nil {
		tree = "/sys/fs/cgroup"
	}
	dir := tree + root + "/besteffort/podx/c"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	done, err := Cleanup(t.Context(), CleanupConfig{Dir: t.TempDir(), CgroupRoot: root}, quiet())
	if err != nil || done.Cgroups != 4 {
		t.Errorf("%+v, %v", done, err)
	}
	if err := <-ended; err == nil {
		t.Error("the process was not killed")
	}
}
