package whole

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"perch/agent"
	"perch/agent/cgrouptree"
	"perch/agent/image"
	"perch/agent/image/load"
	"perch/agent/probe"
	"perch/agent/runtime"
	"perch/agent/runtime/bundle"
	"perch/agent/runtime/containerd"
	"perch/controlplane/event"
)

const (
	cgroup  = "/perch-agenttest"
	busybox = "docker.io/library/busybox:latest"
)

// TestMain lets the test binary be the runtime process too.
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
	s, err := containerd.New(containerd.Config{Dir: dir, Helpers: h, NoSync: true}, log)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// node is a machine with a runtime process and an agent in this one.
type node struct {
	t    *testing.T
	dir  string
	rt   *runtime.Client
	api  *fake.Clientset
	tree *cgrouptree.Tree
	stop func()

	mu     sync.Mutex
	events []string
}

func newNode(t *testing.T) *node {
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers are made of namespaces, mounts and cgroups")
	}
	n := &node{t: t, dir: t.TempDir(), api: fake.NewClientset()}
	n.api.PrependReactor("create", "serviceaccounts", func(a k8stesting.Action) (bool, kruntime.Object, error) {
		return a.GetSubresource() == "token", &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: "tok", ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))}}, nil
	})
	log, err := os.Create(filepath.Join(n.dir, "runtime.log"))
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(n.dir, "run", "runtime.sock")
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "PERCH_TEST_RUNTIME_DIR="+n.dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cfg := runtime.CleanupConfig{Dir: n.dir, Endpoint: socket, StateDirs: containerd.StateDirs(n.dir), SocketDir: containerd.SocketDir(n.dir), CgroupRoot: cgroup}
		if _, err := runtime.Cleanup(context.Background(), cfg, quiet); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("log of the runtime:\n%s", text)
		}
	})
	if n.rt, err = runtime.New(runtime.Config{Endpoint: socket}, quiet, prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.rt.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.rt.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	n.load(socket)
	if n.tree, err = cgrouptree.Open("/sys/fs/cgroup", cgroup); err != nil {
		t.Fatal(err)
	}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

// load imports this machine's busybox.
func (n *node) load(socket string) {
	out := filepath.Join(n.t.TempDir(), "busybox.tar")
	if text, err := exec.Command("../../build/images/busybox.sh", out, busybox).CombinedOutput(); err != nil {
		n.t.Fatalf("make busybox image: %v\n%s", err, text)
	}
	l, err := load.Open(n.t.Context(), socket)
	if err != nil {
		n.t.Fatal(err)
	}
	defer l.Close()
	f, err := os.Open(out)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	if _, err := l.Import(n.t.Context(), f); err != nil {
		n.t.Fatal(err)
	}
}

// start runs an agent. Its end leaves containers as a crash would.
func (n *node) start() {
	cfg := agent.Default()
	cfg.Node, cfg.IPs, cfg.Data, cfg.ClusterDNS = "n1", []string{"127.0.0.1"}, n.dir, []string{"10.43.0.10"}
	log := slog.New(slog.NewTextHandler(n.t.Output(), nil))
	a, err := agent.New(cfg, agent.Parts{
		API: n.api, Runtime: n.rt, Cgroups: n.tree,
		Images: image.New(image.Config{}, n.rt, log, prometheus.NewRegistry()),
		Tell: func(r event.Record) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.events = append(n.events, r.Object.Name+" "+r.Reason+": "+r.Message)
		},
		Services:   func(string) []*corev1.Service { return nil },
		Conditions: func() []corev1.NodeCondition { return nil },
		Drained:    func(context.Context, string) bool { return true },
		Leaving:    func(context.Context, string) {},
		Observe:    func(probe.Result) {},
	}, log, prometheus.NewRegistry())
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
		n.stop = func() {}
	}
}

func (n *node) create(p *corev1.Pod) {
	n.t.Helper()
	p.Namespace, p.UID, p.Spec.NodeName, p.Spec.HostNetwork = "default", types.UID("uid-"+p.Name), "n1", true
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			list[i].Image, list[i].ImagePullPolicy = busybox, corev1.PullIfNotPresent
		}
	}
	if _, err := n.api.CoreV1().Pods("default").Create(n.t.Context(), p, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) get(name string) *corev1.Pod {
	n.t.Helper()
	p, err := n.api.CoreV1().Pods("default").Get(n.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

func (n *node) delete(name string, grace int64) {
	n.t.Helper()
	p := n.get(name)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now().Add(time.Duration(grace) * time.Second)}, &grace
	if _, err := n.api.CoreV1().Pods("default").Update(n.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// sh runs a script in a container.
func (n *node) sh(name, script string) string {
	n.t.Helper()
	_, id, _ := strings.Cut(n.get(name).Status.ContainerStatuses[0].ContainerID, "://")
	r, err := n.rt.ExecSync(n.t.Context(), id, []string{"sh", "-c", script}, 10*time.Second)
	if err != nil {
		n.t.Fatalf("%s in %s: %v", script, name, err)
	}
	return string(r.Stdout) + string(r.Stderr)
}

func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	limit, tick := time.NewTimer(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit.C:
			n.mu.Lock()
			defer n.mu.Unlock()
			pods, _ := n.api.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})
			n.t.Fatalf("waited 30 s until %s; events:\n%s\npods: %+v", what, strings.Join(n.events, "\n"), pods.Items)
		case <-tick.C:
		}
	}
}

func (n *node) gone(name string) bool {
	_, err := n.api.CoreV1().Pods("default").Get(n.t.Context(), name, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func rich() *corev1.Pod {
	yes, uid, no, size := true, int64(1000), false, resource.MustParse("1Mi")
	seconds := int64(3600)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "rich", Labels: map[string]string{"app": "rich"}},
		Spec: corev1.PodSpec{
			Volumes: []corev1.Volume{
				{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "fast", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}},
				{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
				{Name: "proj", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
					{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
				}}}},
			},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &uid, FSGroup: &uid},
			InitContainers:  []corev1.Container{{Name: "init", Command: []string{"sh", "-c", "echo from-init > /shared/file"}, VolumeMounts: []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}}},
			Containers: []corev1.Container{{
				Name:    "main",
				Command: []string{"sh", "-c", "trap 'echo bye > /dev/termination-log; exit 0' TERM; echo started; while true; do sleep 0.1; done"},
				Env: []corev1.EnvVar{
					{Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "k"}}},
					{Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}},
					{Name: "BOTH", Value: "$(KEY)-$(NODE)"},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "shared", MountPath: "/shared"}, {Name: "fast", MountPath: "/fast"}, {Name: "conf", MountPath: "/conf"}, {Name: "proj", MountPath: "/proj"},
					{Name: "shared", MountPath: "/sub", SubPathExpr: "of/$(NODE)"}, {Name: "conf", MountPath: "/one", SubPath: "a"},
				},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
				},
				SecurityContext: &corev1.SecurityContext{
					ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-f", "/shared/file"}}}},
				Lifecycle:      &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo stopping > /shared/stop"}}}},
			}},
		},
	}
}

// TestWhole is one story, because starting the runtime is what takes time.
func TestWhole(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	conf := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "conf", Namespace: "default"}, Data: map[string]string{"a": "one"}}
	if _, err := n.api.CoreV1().ConfigMaps("default").Create(ctx, conf, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	sec := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sec", Namespace: "default"}, Data: map[string][]byte{"k": []byte("secret")}}
	if _, err := n.api.CoreV1().Secrets("default").Create(ctx, sec, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	start := time.Now()
	n.create(rich())
	n.until("the pod is ready", func() bool { return ready(n.get("rich")) })
	t.Logf("ready after %s", time.Since(start).Round(time.Millisecond))
	for script, want := range map[string]string{
		"cat /shared/file": "from-init\n", "echo $KEY $NODE $BOTH": "secret n1 secret-n1\n", "cat /conf/a /one": "oneone", "cat /proj/token": "tok",
		"cat /proj/labels": `app="rich"`, "id -u; id -G": "1000\n0 1000\n", "touch /x": "touch: /x: Read-only file system\n",
		"touch /fast/x /sub/x && ls /shared/of/n1":         "x\n",
		"grep -E '^(CapEff|NoNewPrivs)' /proc/self/status": "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n",
		"df /fast | tail -1 | awk '{print $2}'":            "1024\n",
		"stat -c %a:%g /shared":                            "2777:1000\n",
	} {
		if got := n.sh("rich", script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	limits := 0
	for _, file := range []string{"memory/%s/memory.limit_in_bytes", "%s/memory.max"} {
		group := cgroup + "/burstable/poduid-rich"
		text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", fmt.Sprintf(file, group)))
		if err == nil {
			limits++
			// The init container has no limit, so the pod has none.
			if got := strings.TrimSpace(string(text)); got != "max" && len(got) < 16 {
				t.Errorf("%s: %s, want none", file, got)
			}
		}
	}
	if limits == 0 {
		t.Error("the pod has no cgroup")
	}

	t.Run("an agent restart touches no container", func(t *testing.T) {
		before := n.get("rich").Status.ContainerStatuses[0]
		n.stop()
		n.start()
		conf.Data["a"] = "two"
		if _, err := n.api.CoreV1().ConfigMaps("default").Update(ctx, conf, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		n.until("the new configuration is in the volume", func() bool { return n.sh("rich", "cat /conf/a") == "two" })
		t.Logf("configuration arrived after %s", time.Since(start).Round(time.Millisecond))
		if after := n.get("rich").Status.ContainerStatuses[0]; after.ContainerID != before.ContainerID || after.RestartCount != 0 || !after.Ready {
			t.Errorf("before %+v, after %+v", before, after)
		}
	})

	t.Run("a container over its memory is OOMKilled", func(t *testing.T) {
		n.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "greedy"}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{
			Name: "main", Command: []string{"sh", "-c", "x=a; while true; do x=$x$x$x$x; done"},
			Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}},
		}}}})
		n.until("the greedy pod failed", func() bool { return n.get("greedy").Status.Phase == corev1.PodFailed })
		if s := n.get("greedy").Status.ContainerStatuses[0].State.Terminated; s.Reason != "OOMKilled" || s.ExitCode != 137 {
			t.Errorf("state %+v", s)
		}
	})

	t.Run("a failed container leaves its last lines", func(t *testing.T) {
		n.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "sad"}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{
			Name: "main", Command: []string{"sh", "-c", "echo good bye; exit 3"}, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		}}}})
		n.until("the sad pod failed", func() bool { return n.get("sad").Status.Phase == corev1.PodFailed })
		if s := n.get("sad").Status.ContainerStatuses[0].State.Terminated; s.Message != "good bye\n" || s.ExitCode != 3 || s.Reason != "Error" {
			t.Errorf("state %+v", s)
		}
	})

	t.Run("a liveness probe restarts a container", func(t *testing.T) {
		n.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "ill"}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64), Containers: []corev1.Container{{
			Name: "main", Command: []string{"sleep", "1000"},
			LivenessProbe: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}},
		}}}})
		n.until("it was restarted", func() bool {
			s := n.get("ill").Status.ContainerStatuses
			return len(s) > 0 && s[0].RestartCount > 0 && s[0].LastTerminationState.Terminated != nil
		})
	})

	t.Run("deleted pods leave nothing behind", func(t *testing.T) {
		for _, name := range []string{"rich", "greedy", "sad", "ill"} {
			n.delete(name, 5)
		}
		for _, name := range []string{"rich", "greedy", "sad", "ill"} {
			n.until(name+" is gone", func() bool { return n.gone(name) })
		}
		n.until("the runtime has nothing left", func() bool {
			pods, err := n.rt.ListPodSandbox(ctx, nil)
			return err == nil && len(pods) == 0
		})
		n.until("directories are gone", func() bool {
			entries, err := os.ReadDir(filepath.Join(n.dir, "pods"))
			return err == nil && len(entries) == 0
		})
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(table), filepath.Join(n.dir, "pods")) {
			t.Errorf("mounts are left: %v", err)
		}
		found, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup + "/*/pod*")
		if err != nil || len(found) != 0 {
			t.Errorf("cgroups are left: %v", found)
		}
	})
}
