package agent

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/pod"
	"perch/agent/volume"
)

// kubelet are the numbers of this node under kubelet's names, so that rules and
// dashboards made for it find them. What has no meaning here is left out: perch
// has no work queue in front of pods, no device plugins and no checkpoints.
type kubelet struct {
	worker          *prometheus.HistogramVec
	workerStart     prometheus.Histogram
	firstStart      prometheus.Histogram
	startSLI        prometheus.Histogram
	startTotal      prometheus.Histogram
	pods            prometheus.Gauge
	containers      *prometheus.GaugeVec
	startedPods     prometheus.Counter
	podErrors       prometheus.Counter
	started         *prometheus.CounterVec
	containerErrors *prometheus.CounterVec
	relist          prometheus.Histogram
	relistGap       prometheus.Histogram
	relistSeen      prometheus.Gauge
	cgroups         *prometheus.HistogramVec
	storage         *prometheus.HistogramVec
	relisted        time.Time // owned by follow
}

// startBuckets are kubelet's for the start of pods, in seconds.
func startBuckets() []float64 {
	return []float64{.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}
}

func newKubelet(reg prometheus.Registerer, a *Agent) *kubelet {
	seconds := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	each := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	k := &kubelet{
		worker:          each("kubelet_pod_worker_duration_seconds", "Time of one look at a pod (sync) and of one step of its life: create, update, kill.", prometheus.DefBuckets, "operation_type"),
		workerStart:     seconds("kubelet_pod_worker_start_duration_seconds", "Time from seeing a pod to beginning with it.", prometheus.DefBuckets),
		firstStart:      seconds("kubelet_pod_start_duration_seconds", "Time from seeing a pod to its running.", startBuckets()),
		startSLI:        seconds("kubelet_pod_start_sli_duration_seconds", "Time from the creation of a pod to its running, less its images and init containers.", startBuckets()),
		startTotal:      seconds("kubelet_pod_start_total_duration_seconds", "Time from the creation of a pod to its running.", startBuckets()),
		pods:            prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_running_pods", Help: "Pods with a sandbox that runs."}),
		containers:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_running_containers", Help: "Containers by state."}, []string{"container_state"}),
		startedPods:     prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_pods_total", Help: "Sandboxes that were to be started."}),
		podErrors:       prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_pods_errors_total", Help: "Sandboxes that were not started."}),
		started:         count("kubelet_started_containers_total", "Containers that were to be started.", "container_type"),
		containerErrors: count("kubelet_started_containers_errors_total", "Containers that were not started, by reason.", "container_type", "code"),
		relist:          seconds("kubelet_pleg_relist_duration_seconds", "Time to list what the runtime has.", prometheus.DefBuckets),
		relistGap:       seconds("kubelet_pleg_relist_interval_seconds", "Time between two lists of what the runtime has.", prometheus.DefBuckets),
		relistSeen:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_pleg_last_seen_seconds", Help: "When the runtime was last listed, unix time."}),
		cgroups:         each("kubelet_cgroup_manager_duration_seconds", "Time of work on cgroups of pods.", prometheus.DefBuckets, "operation_type"),
		storage: each("storage_operation_duration_seconds", "Time of work on volumes of pods.", []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
			"volume_plugin", "operation_name", "status", "migrated"),
	}
	node := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_node_name", Help: "Name of this node.", ConstLabels: prometheus.Labels{"node": a.cfg.Node}})
	node.Set(1)
	reg.MustRegister(node, k.worker, k.workerStart, k.firstStart, k.startSLI, k.startTotal, k.pods, k.containers, k.startedPods, k.podErrors, k.started,
		k.containerErrors, k.relist, k.relistGap, k.relistSeen, k.cgroups, k.storage, podCounts{a})
	return k
}

// operation is kubelet's word for what a step does.
func operation(v pod.Verb) string {
	switch v {
	case pod.Prepare, pod.StartSandbox, pod.StartContainer:
		return "create"
	case verbRefresh, verbStatus:
		return "update"
	}
	return "kill"
}

// listed takes what the runtime has, and how long it took to say so.
func (k *kubelet) listed(start time.Time, sandboxes []*cri.PodSandbox, containers []*cri.Container) {
	now := time.Now()
	k.relist.Observe(now.Sub(start).Seconds())
	if !k.relisted.IsZero() {
		k.relistGap.Observe(start.Sub(k.relisted).Seconds())
	}
	k.relisted = start
	k.relistSeen.Set(float64(now.Unix()))
	ready := map[string]bool{}
	for _, s := range sandboxes {
		if s.GetState() == cri.PodSandboxState_SANDBOX_READY {
			ready[s.GetMetadata().GetUid()] = true
		}
	}
	k.pods.Set(float64(len(ready)))
	n := map[string]int{"created": 0, "running": 0, "exited": 0, "unknown": 0}
	for _, c := range containers {
		switch c.GetState() {
		case cri.ContainerState_CONTAINER_CREATED:
			n["created"]++
		case cri.ContainerState_CONTAINER_RUNNING:
			n["running"]++
		case cri.ContainerState_CONTAINER_EXITED:
			n["exited"]++
		default:
			n["unknown"]++
		}
	}
	for state, v := range n {
		k.containers.WithLabelValues(state).Set(float64(v))
	}
}

// containerType is kubelet's word for the kind of a container.
func containerType(want *corev1.Pod, name string) string {
	for _, c := range want.Spec.InitContainers {
		if c.Name == name {
			return "init_container"
		}
	}
	return "container"
}

// birth is when a worker saw its pod, and what its start waited for.
type birth struct {
	seen    time.Time
	old     bool // it ran before this agent looked
	begun   bool
	running bool
	pulls   atomic.Int64 // ns
}

// look takes one look at a pod that showed this status.
func (k *kubelet) look(b *birth, want *corev1.Pod, status *corev1.PodStatus, start, now time.Time) {
	k.worker.WithLabelValues("sync").Observe(time.Since(start).Seconds())
	if !b.begun {
		b.begun = true
		k.workerStart.Observe(start.Sub(b.seen).Seconds())
	}
	if b.running || status.Phase == corev1.PodPending || status.Phase == "" {
		return
	}
	b.running = true
	if b.old {
		return
	}
	k.firstStart.Observe(now.Sub(b.seen).Seconds())
	if want.CreationTimestamp.IsZero() {
		return
	}
	total := now.Sub(want.CreationTimestamp.Time)
	k.startTotal.Observe(total.Seconds())
	total -= time.Duration(b.pulls.Load())
	for _, c := range status.InitContainerStatuses {
		if t := c.State.Terminated; t != nil {
			total -= t.FinishedAt.Sub(t.StartedAt.Time)
		}
	}
	k.startSLI.Observe(max(total, 0).Seconds())
}

// timed measures the work on cgroups.
type timed struct {
	Cgroups
	took *prometheus.HistogramVec
}

func (t timed) Make(class corev1.PodQOSClass, uid string, limits pod.Limits) (string, error) {
	start := time.Now()
	defer func() { t.took.WithLabelValues("create").Observe(time.Since(start).Seconds()) }()
	return t.Cgroups.Make(class, uid, limits)
}

func (t timed) Remove(uid string) error {
	start := time.Now()
	defer func() { t.took.WithLabelValues("destroy").Observe(time.Since(start).Seconds()) }()
	return t.Cgroups.Remove(uid)
}

// mounted takes how work on a volume ended.
func (k *kubelet) mounted(plugin, operation string, took time.Duration, err error) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	k.storage.WithLabelValues(plugin, operation, status, "false").Observe(took.Seconds())
}

// podCounts counts pods and volumes when it is asked.
type podCounts struct{ a *Agent }

// Describe sends nothing: which volumes there are depends on the pods.
func (podCounts) Describe(chan<- *prometheus.Desc) {}

// Collect counts.
func (c podCounts) Collect(ch chan<- prometheus.Metric) {
	want, have, active := map[string]float64{}, map[string]float64{}, 0.0
	c.a.mu.Lock()
	wanted := float64(len(c.a.workers))
	for _, w := range c.a.workers {
		p := w.shown.Load()
		if p == nil {
			continue
		}
		over := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if !over {
			active++
		}
		for i := range p.Spec.Volumes {
			plugin := volume.Plugin(&p.Spec.Volumes[i])
			if !over {
				want[plugin]++
			}
			if w.mounted.Load() {
				have[plugin]++
			}
		}
	}
	c.a.mu.Unlock()
	gauge := func(name, help string, v float64, labels, values []string) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue, v, values...)
	}
	gauge("kubelet_desired_pods", "Pods this node is to run.", wanted, []string{"static"}, []string{"false"})
	gauge("kubelet_active_pods", "Pods of this node that are not over.", active, []string{"static"}, []string{"false"})
	for file, kind := range map[string]string{c.a.cfg.ClientCert: "client", c.a.cfg.ServingCert: "server"} {
		if end, ok := validUntil(file); ok {
			gauge("kubelet_certificate_manager_"+kind+"_ttl_seconds", "Time until this node's certificate ends.", time.Until(end).Seconds(), nil, nil)
		}
	}
	for state, counts := range map[string]map[string]float64{"desired_state_of_world": want, "actual_state_of_world": have} {
		for plugin, n := range counts {
			gauge("volume_manager_total_volumes", "Volumes of pods, as wanted and as mounted.", n, []string{"plugin_name", "state"}, []string{plugin, state})
		}
	}
}

// validUntil is when the certificate in a file ends.
func validUntil(file string) (time.Time, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}
