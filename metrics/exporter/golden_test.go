package exporter

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rogpeppe/go-internal/txtar"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"perch/metrics/family"
)

var update = flag.Bool("update", false, "write the golden files anew")

// shapes lists "name{label,label}" of every family, sorted.
func shapes(families []*dto.MetricFamily) []string {
	seen := map[string]bool{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var names []string
			for _, l := range m.GetLabel() {
				names = append(names, l.GetName())
			}
			slices.Sort(names)
			seen[f.GetName()+"{"+strings.Join(names, ",")+"}"] = true
		}
	}
	out := make([]string, 0, len(seen))
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func registry(c prometheus.Collector) *prometheus.Registry {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	return reg
}

func gather(t *testing.T, c prometheus.Collector) []*dto.MetricFamily {
	t.Helper()
	families, err := registry(c).Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// accepted fails on what `promtool check metrics` would complain about.
func accepted(t *testing.T, families []*dto.MetricFamily, except ...string) {
	t.Helper()
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	problems, err := promlint.New(&text).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !slices.Contains(except, p.Metric) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func golden(t *testing.T, file string, have []string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(have, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Fields(string(want)) {
		if !slices.Contains(have, line) {
			t.Errorf("missing: %s", line)
		}
	}
	for _, line := range have {
		if !slices.Contains(strings.Fields(string(want)), line) {
			t.Errorf("not in %s: %s", file, line)
		}
	}
}

// load reads the objects of one kind from testdata/objects.yaml.
func load[T any](t *testing.T, kind string) func() []*T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "objects.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var out []*T
	for _, doc := range strings.Split(string(text), "\n---\n") {
		if !strings.Contains(doc, "kind: "+kind+"\n") {
			continue
		}
		x := new(T)
		if err := yaml.UnmarshalStrict([]byte(doc), x); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		t.Fatalf("no %s in objects.yaml", kind)
	}
	return func() []*T { return out }
}

// allLists are the objects of testdata/objects.yaml.
func allLists(t *testing.T) Lists {
	t.Helper()
	return Lists{
		Nodes: load[corev1.Node](t, "Node"), Namespaces: load[corev1.Namespace](t, "Namespace"), Pods: load[corev1.Pod](t, "Pod"),
		Services: load[corev1.Service](t, "Service"), Deployments: load[appsv1.Deployment](t, "Deployment"), ReplicaSets: load[appsv1.ReplicaSet](t, "ReplicaSet"),
		StatefulSets: load[appsv1.StatefulSet](t, "StatefulSet"), DaemonSets: load[appsv1.DaemonSet](t, "DaemonSet"), Jobs: load[batchv1.Job](t, "Job"),
		HorizontalPodAutoscalers: load[autoscalingv2.HorizontalPodAutoscaler](t, "HorizontalPodAutoscaler"), CronJobs: load[batchv1.CronJob](t, "CronJob"),
		ReplicationControllers: load[corev1.ReplicationController](t, "ReplicationController"), Endpoints: load[corev1.Endpoints](t, "Endpoints"), //nolint:staticcheck // its series are part of the set
		Ingresses: load[networkingv1.Ingress](t, "Ingress"), NetworkPolicies: load[networkingv1.NetworkPolicy](t, "NetworkPolicy"),
		PersistentVolumes: load[corev1.PersistentVolume](t, "PersistentVolume"), PersistentVolumeClaims: load[corev1.PersistentVolumeClaim](t, "PersistentVolumeClaim"),
		StorageClasses: load[storagev1.StorageClass](t, "StorageClass"), ConfigMaps: load[corev1.ConfigMap](t, "ConfigMap"),
		ResourceQuotas: load[corev1.ResourceQuota](t, "ResourceQuota"), LimitRanges: load[corev1.LimitRange](t, "LimitRange"),
		PodDisruptionBudgets: load[policyv1.PodDisruptionBudget](t, "PodDisruptionBudget"), Leases: load[coordinationv1.Lease](t, "Lease"),
		SigningRequests:    load[certificatesv1.CertificateSigningRequest](t, "CertificateSigningRequest"),
		MutatingWebhooks:   load[admissionv1.MutatingWebhookConfiguration](t, "MutatingWebhookConfiguration"),
		ValidatingWebhooks: load[admissionv1.ValidatingWebhookConfiguration](t, "ValidatingWebhookConfiguration"),
		VolumeAttachments:  load[storagev1.VolumeAttachment](t, "VolumeAttachment"),
	}
}

func TestObjectsHaveTheSeriesOfTheGoldenList(t *testing.T) {
	families := gather(t, NewObjects(allLists(t)))
	golden(t, "kube-state-metrics.txt", shapes(families))
	accepted(t, families)
	for _, f := range families {
		if f.GetHelp() == "" || !strings.HasPrefix(f.GetName(), "kube_") {
			t.Errorf("family %s has help %q", f.GetName(), f.GetHelp())
		}
	}
}

func TestTheNextRunOfACronJob(t *testing.T) {
	utc, zone, yes := "UTC", "Europe/Berlin", true
	made := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	ran := metav1.NewTime(time.Date(2026, 1, 2, 2, 0, 0, 0, time.UTC))
	for name, c := range map[string]struct {
		job  batchv1.CronJob
		want string
	}{
		"after it was made":             {batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *", TimeZone: &utc}}, "2026-01-01T03:00:00Z"},
		"after it ran, in another zone": {batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *", TimeZone: &zone}, Status: batchv1.CronJobStatus{LastScheduleTime: &ran}}, "2026-01-03T02:00:00Z"},
		"none while suspended":          {batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *", Suspend: &yes}}, ""},
		"none with a broken schedule":   {batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "often"}}, ""},
	} {
		c.job.CreationTimestamp = made
		got := ""
		if at, ok := nextRun(&c.job); ok {
			got = at.UTC().Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// recorded is the machine of testdata/machine.txtar. A file that is "@ PATH" there is
// a link to PATH: the kernel's trees are full of them.
func recorded(t *testing.T) NodeConfig {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", "machine.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if target, link := strings.CutPrefix(string(f.Data), "@ "); link {
			err = os.Symlink(strings.TrimSpace(target), path)
		} else {
			err = os.WriteFile(path, f.Data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg := DefaultNode()
	cfg.Proc, cfg.Sys, cfg.Udev = dir+"/proc", dir+"/sys", dir+"/run/udev/data"
	return cfg
}

func TestAMachineHasTheSeriesOfNodeExporter(t *testing.T) {
	cfg := recorded(t)
	n, err := NewNode(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	families := gather(t, n)
	have := shapes(families)
	golden(t, "node.txt", slices.DeleteFunc(slices.Clone(have), func(s string) bool {
		return strings.HasPrefix(s, "node_memory_") || strings.HasPrefix(s, "node_timex_") // these differ between kernels and rights
	}))
	// What Debian's prometheus-node-exporter 1.5 gave on the machine of the files.
	// Later versions added labels; a series of ours may have more.
	want, err := os.ReadFile(filepath.Join("testdata", "node-exporter-1.5.txt"))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, s := range have {
		name, labels, _ := strings.Cut(s, "{")
		byName[name] += labels
	}
	for _, s := range strings.Fields(string(want)) {
		name, labels, _ := strings.Cut(s, "{")
		mine, ok := byName[name]
		if !ok && strings.HasPrefix(name, "node_timex_") {
			continue // this process may not ask for the clock
		}
		if !ok {
			t.Errorf("missing: %s", s)
			continue
		}
		for _, l := range strings.Split(strings.TrimSuffix(labels, "}"), ",") {
			if !strings.Contains(mine, l) {
				t.Errorf("%s lacks label %s, has %s", name, l, mine)
			}
		}
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "collector" && strings.HasSuffix(f.GetName(), "_success") && m.GetGauge().GetValue() != 1 {
					t.Errorf("collector %s failed", l.GetValue())
				}
			}
		}
	}
}

func TestFamiliesAreThoseOfTheText(t *testing.T) {
	o := NewObjects(allLists(t))
	var want []family.Family
	for _, f := range gather(t, o) {
		want = append(want, family.Family{Name: f.GetName(), Help: f.GetHelp(), Type: map[dto.MetricType]model.MetricType{dto.MetricType_COUNTER: "counter", dto.MetricType_GAUGE: "gauge", dto.MetricType_UNTYPED: "unknown"}[f.GetType()]})
	}
	if got := o.Families().List(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFamiliesThatFewObjectsHaveAreFoundInTime(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 5 * looked {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprint(i)}}
		if i == 3*looked+2 {
			now := metav1.Now()
			p.DeletionTimestamp = &now
		}
		pods = append(pods, p)
	}
	f := NewObjects(Lists{Pods: func() []*corev1.Pod { return pods }}).Families()
	for range 5 {
		if slices.ContainsFunc(f.List(), func(x family.Family) bool { return x.Name == "kube_pod_deletion_timestamp" }) {
			return
		}
	}
	t.Error("five looks did not find the family of one pod among a thousand")
}
