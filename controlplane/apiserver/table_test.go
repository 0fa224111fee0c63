package apiserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"perch/controlplane/api"
	"perch/controlplane/api/legal"
)

func always() *corev1.ContainerRestartPolicy {
	p := corev1.ContainerRestartPolicyAlways
	return &p
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func ended(code int32, reason string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
}

func runs() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

func TestOneLineSaysWhatAPodDoes(t *testing.T) {
	two := []corev1.Container{{Name: "a"}, {Name: "b"}}
	isReady := []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	deleted := metav1.Now()
	for _, c := range []struct {
		name string
		pod  corev1.Pod
		want string
	}{
		{"nothing has happened yet", corev1.Pod{Spec: corev1.PodSpec{Containers: two}, Status: corev1.PodStatus{Phase: corev1.PodPending}}, "0/2 Pending 0"},
		{"all containers run", corev1.Pod{Spec: corev1.PodSpec{Containers: two}, Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: isReady, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", Ready: true, State: runs()}, {Name: "b", Ready: true, State: runs(), RestartCount: 2}}}}, "2/2 Running 2"},
		{"one container crashes again and again", corev1.Pod{Spec: corev1.PodSpec{Containers: two}, Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: waiting("CrashLoopBackOff"), RestartCount: 5}, {Name: "b", Ready: true, State: runs()}}}}, "1/2 CrashLoopBackOff 5"},
		{"one container is done, the other runs and the pod is ready", corev1.Pod{Spec: corev1.PodSpec{Containers: two}, Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: isReady, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended(0, "Completed")}, {Name: "b", Ready: true, State: runs()}}}}, "1/2 Running 0"},
		{"everything is done", corev1.Pod{Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended(0, "Completed")}}}}, "0/1 Completed 0"},
		{"the kernel killed it", corev1.Pod{Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended(137, "OOMKilled")}}}}, "0/1 OOMKilled 0"},
		{"it ended without a reason", corev1.Pod{Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended(3, "")}}}}, "0/1 ExitCode:3 0"},
		{"an init container runs", corev1.Pod{Spec: corev1.PodSpec{InitContainers: two, Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended(0, "Completed")}, {Name: "b", State: runs()}}, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: waiting("PodInitializing")}}}}, "0/1 Init:1/2 0"},
		{"an init container fails", corev1.Pod{Spec: corev1.PodSpec{InitContainers: two[:1], Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: waiting("CrashLoopBackOff"), RestartCount: 3}}}}, "0/1 Init:CrashLoopBackOff 3"},
		{"a sidecar counts as a container", corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "s", RestartPolicy: always()}}, Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: isReady, InitContainerStatuses: []corev1.ContainerStatus{{Name: "s", Ready: true, Started: new(true), State: runs()}}, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", Ready: true, State: runs()}}}}, "2/2 Running 0"},
		{"an image is missing", corev1.Pod{Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: waiting("ImagePullBackOff")}}}}, "0/1 ImagePullBackOff 0"},
		{"the node evicted it", corev1.Pod{Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}}, "0/1 Evicted 0"},
		{"it is going", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", Ready: true, State: runs()}}}}, "1/1 Terminating 0"},
		{"its node is lost", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodRunning, Reason: "NodeLost"}}, "0/1 Unknown 0"},
		{"it waits for a gate", corev1.Pod{Spec: corev1.PodSpec{Containers: two[:1]}, Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "SchedulingGated"}}}}, "0/1 SchedulingGated 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := summarize(&c.pod)
			if have := fmt.Sprintf("%d/%d %s %d", s.ready, s.total, s.status, s.restarts); have != c.want {
				t.Errorf("have %s, want %s", have, c.want)
			}
		})
	}
}

// TestColumnsOfEveryKind prints an empty object of each kind: no cell may
// panic, and the names and their order are a promise to scripts.
func TestColumnsOfEveryKind(t *testing.T) {
	rules, err := legal.New()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, k := range api.Kinds() {
		o, err := rules.Scheme.New(k.GVK())
		if err != nil {
			t.Fatal(err)
		}
		accessor(o).SetName("x")
		accessor(o).SetCreationTimestamp(metav1.NewTime(time.Now()))
		hub, err := rules.Scheme.ConvertToVersion(o, hubOf(k))
		if err != nil {
			t.Fatal(err)
		}
		table, err := newTable(k).ConvertToTable(t.Context(), hub, nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range table.ColumnDefinitions {
			name := strings.ToUpper(c.Name)
			if c.Priority > 0 {
				name = "(" + name + ")"
			}
			names = append(names, name)
		}
		fmt.Fprintf(w, "%s\t%s\n", k.GVK().GroupKind(), strings.Join(names, " | "))
		if len(table.Rows[0].Cells) != len(names) {
			t.Errorf("%s: %d cells for %d columns", k.Kind, len(table.Rows[0].Cells), len(names))
		}
	}
	_ = w.Flush() // writes to memory
	golden(t, "columns.txt", b.Bytes())
}

func hubOf(k api.Kind) runtime.GroupVersioner {
	gv := k.GroupVersion
	gv.Version = runtime.APIVersionInternal
	return gv
}

// golden compares with a file; PERCH_UPDATE=1 writes it anew.
func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("PERCH_UPDATE") != "" {
		if err := os.WriteFile(file, have, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s differs, have:\n%s", file, have)
	}
}
