package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// numbers are the series with one value each that a registry has: name{labels}
// value, counts of histograms, those of other packages left out.
func numbers(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, l.GetName()+"="+l.GetValue())
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out = append(out, fmt.Sprintf("%s{%s} %g", f.GetName(), strings.Join(pairs, ","), v))
		}
	}
	return out
}

func TestANodeCountsItsPodsUnderKubeletsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := simple("p", "server")
		p.CreationTimestamp = metav1.NewTime(time.Now().Add(-3 * time.Second))
		p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		w.create(p)
		w.create(simple("q", "nowhere/missing"))
		pass(20 * time.Second)
		have := numbers(t, w.reg)
		for _, want := range []string{
			"kubelet_node_name{node=n1} 1", "kubelet_running_pods{} 2", "kubelet_running_containers{container_state=running} 1",
			"kubelet_running_containers{container_state=exited} 0", "kubelet_desired_pods{static=false} 2", "kubelet_active_pods{static=false} 2",
			"kubelet_pod_start_duration_seconds{} 1", "kubelet_pod_start_total_duration_seconds{} 1", "kubelet_pod_start_sli_duration_seconds{} 1",
			"kubelet_pod_worker_start_duration_seconds{} 2", "kubelet_started_pods_total{} 2",
			"kubelet_started_pods_errors_total{} 0", "kubelet_cgroup_manager_duration_seconds{operation_type=create}",
			"kubelet_started_containers_errors_total{code=ErrImagePull,container_type=container}",
			"kubelet_pod_worker_duration_seconds{operation_type=create}", "kubelet_pod_worker_duration_seconds{operation_type=sync}",
			"volume_manager_total_volumes{plugin_name=kubernetes.io/empty-dir,state=actual_state_of_world} 1",
			"volume_manager_total_volumes{plugin_name=kubernetes.io/empty-dir,state=desired_state_of_world} 1",
			"storage_operation_duration_seconds{migrated=false,operation_name=volume_mount,status=success,volume_plugin=kubernetes.io/empty-dir} 1",
		} {
			if !slices.ContainsFunc(have, func(s string) bool { return s == want || strings.HasPrefix(s, want+" ") }) {
				t.Errorf("no %s in\n%s", want, strings.Join(have, "\n"))
			}
		}
		// A new agent finds the pod running: that is no start.
		w.stop()
		w.start()
		pass(20 * time.Second)
		if have := numbers(t, w.reg); !slices.Contains(have, "kubelet_pod_start_duration_seconds{} 0") || !slices.Contains(have, "kubelet_running_pods{} 2") {
			t.Errorf("after a restart\n%s", strings.Join(have, "\n"))
		}
	})
}

func TestTheAgeOfTheNodesCertificatesIsTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.crt")
	w := &Agent{cfg: Config{ClientCert: file, ServingCert: file + ".none"}}
	reg := prometheus.NewRegistry()
	reg.MustRegister(podCounts{w})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: text}), 0o600); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]float64{}
	for _, f := range families {
		have[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	if v := have["kubelet_certificate_manager_client_ttl_seconds"]; v < 3000 || v > 3600 {
		t.Errorf("an hour is left, told: %g", v)
	}
	if _, ok := have["kubelet_certificate_manager_server_ttl_seconds"]; ok {
		t.Error("there is no serving certificate")
	}
}
