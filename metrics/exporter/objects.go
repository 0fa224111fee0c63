package exporter

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Lists give the objects of now from memory. What is nil is left out; the
// objects are only read.
type Lists struct {
	Nodes                    func() []*corev1.Node
	Namespaces               func() []*corev1.Namespace
	Pods                     func() []*corev1.Pod
	Services                 func() []*corev1.Service
	Deployments              func() []*appsv1.Deployment
	ReplicaSets              func() []*appsv1.ReplicaSet
	StatefulSets             func() []*appsv1.StatefulSet
	DaemonSets               func() []*appsv1.DaemonSet
	Jobs                     func() []*batchv1.Job
	HorizontalPodAutoscalers func() []*autoscalingv2.HorizontalPodAutoscaler
}

// Objects is a collector of object state.
type Objects struct{ lists Lists }

// NewObjects makes the collector.
func NewObjects(lists Lists) *Objects { return &Objects{lists} }

// Describe sends nothing: the series depend on the objects.
func (*Objects) Describe(chan<- *prometheus.Desc) {}

// Collect reads every list once.
func (o *Objects) Collect(ch chan<- prometheus.Metric) {
	s := &sender{ch}
	walk(o.lists.Nodes, s, node)
	walk(o.lists.Namespaces, s, namespace)
	walk(o.lists.Pods, s, pod)
	walk(o.lists.Services, s, service)
	walk(o.lists.Deployments, s, deployment)
	walk(o.lists.ReplicaSets, s, replicaSet)
	walk(o.lists.StatefulSets, s, statefulSet)
	walk(o.lists.DaemonSets, s, daemonSet)
	walk(o.lists.Jobs, s, job)
	walk(o.lists.HorizontalPodAutoscalers, s, autoscaler)
}

func walk[T any](list func() []T, s *sender, one func(*sender, T)) {
	if list == nil {
		return
	}
	for _, x := range list() {
		one(s, x)
	}
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// orOne is a count that defaults to one.
func orOne(n *int32) float64 {
	if n == nil {
		return 1
	}
	return float64(*n)
}

// join puts own labels before more.
func join(own []string, more ...string) []string {
	return append(append(make([]string, 0, len(own)+len(more)), own...), more...)
}

func created(s *sender, name string, m metav1.ObjectMeta, own []string) {
	if !m.CreationTimestamp.IsZero() {
		s.gauge(name, "When the object was made, unix time.", float64(m.CreationTimestamp.Unix()), own...)
	}
}

// condition writes one series for each of true, false and unknown.
func condition(s *sender, name string, own []string, kind string, status corev1.ConditionStatus) {
	for _, v := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown} {
		pairs := []string{"condition", kind, "status", strings.ToLower(string(v))}
		if kind == "" { // the name says which; the label condition has the status
			pairs = []string{"condition", strings.ToLower(string(v))}
		}
		s.gauge(name, "Conditions of the object.", yes(status == v), join(own, pairs...)...)
	}
}

// plain is a resource's name as a label value.
func plain(r corev1.ResourceName) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, string(r))
}

// resources writes one series for each resource of a list, with unit and value
// as kube-state-metrics gives them.
func resources(s *sender, name, help string, list corev1.ResourceList, own []string) {
	for r, q := range list {
		unit, v := "integer", q.AsApproximateFloat64()
		switch {
		case r == corev1.ResourceCPU:
			unit = "core"
		case r == corev1.ResourceMemory, r == corev1.ResourceStorage, r == corev1.ResourceEphemeralStorage, strings.HasPrefix(string(r), corev1.ResourceHugePagesPrefix):
			unit = "byte"
		}
		s.gauge(name, help, v, join(own, "resource", plain(r), "unit", unit)...)
	}
}

func node(s *sender, n *corev1.Node) {
	own := []string{"node", n.Name}
	i := n.Status.NodeInfo
	address := ""
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			address = a.Address
			break
		}
	}
	s.gauge("kube_node_info", "About a node.", 1, join(own, "kernel_version", i.KernelVersion, "os_image", i.OSImage,
		"container_runtime_version", i.ContainerRuntimeVersion, "kubelet_version", i.KubeletVersion, "pod_cidr", n.Spec.PodCIDR,
		"provider_id", n.Spec.ProviderID, "system_uuid", i.SystemUUID, "internal_ip", address)...)
	created(s, "kube_node_created", n.ObjectMeta, own)
	s.gauge("kube_node_spec_unschedulable", "1 if no new pods are placed there.", yes(n.Spec.Unschedulable), own...)
	for _, t := range n.Spec.Taints {
		s.gauge("kube_node_spec_taint", "Taints of a node.", 1, join(own, "key", t.Key, "value", t.Value, "effect", string(t.Effect))...)
	}
	for _, c := range n.Status.Conditions {
		condition(s, "kube_node_status_condition", own, string(c.Type), c.Status)
	}
	resources(s, "kube_node_status_capacity", "What a node has.", n.Status.Capacity, own)
	resources(s, "kube_node_status_allocatable", "What a node has for pods.", n.Status.Allocatable, own)
}

func namespace(s *sender, n *corev1.Namespace) {
	own := []string{"namespace", n.Name}
	created(s, "kube_namespace_created", n.ObjectMeta, own)
	for _, p := range []corev1.NamespacePhase{corev1.NamespaceActive, corev1.NamespaceTerminating} {
		s.gauge("kube_namespace_status_phase", "Phase of a namespace.", yes(n.Status.Phase == p), join(own, "phase", string(p))...)
	}
}

func service(s *sender, x *corev1.Service) {
	own := []string{"namespace", x.Namespace, "service", x.Name, "uid", string(x.UID)}
	s.gauge("kube_service_info", "About a service.", 1, join(own, "cluster_ip", x.Spec.ClusterIP, "external_name", x.Spec.ExternalName, "load_balancer_ip", x.Spec.LoadBalancerIP)...)
	s.gauge("kube_service_spec_type", "Type of a service.", 1, join(own, "type", string(x.Spec.Type))...)
}

func deployment(s *sender, d *appsv1.Deployment) {
	own := []string{"namespace", d.Namespace, "deployment", d.Name}
	created(s, "kube_deployment_created", d.ObjectMeta, own)
	s.gauge("kube_deployment_spec_replicas", "Pods wanted.", orOne(d.Spec.Replicas), own...)
	s.gauge("kube_deployment_spec_paused", "1 if paused.", yes(d.Spec.Paused), own...)
	s.gauge("kube_deployment_metadata_generation", "Generation wanted.", float64(d.Generation), own...)
	s.gauge("kube_deployment_status_observed_generation", "Generation seen by the controller.", float64(d.Status.ObservedGeneration), own...)
	s.gauge("kube_deployment_status_replicas", "Pods there are.", float64(d.Status.Replicas), own...)
	s.gauge("kube_deployment_status_replicas_ready", "Pods ready.", float64(d.Status.ReadyReplicas), own...)
	s.gauge("kube_deployment_status_replicas_available", "Pods available.", float64(d.Status.AvailableReplicas), own...)
	s.gauge("kube_deployment_status_replicas_unavailable", "Pods missing.", float64(d.Status.UnavailableReplicas), own...)
	s.gauge("kube_deployment_status_replicas_updated", "Pods of the newest template.", float64(d.Status.UpdatedReplicas), own...)
	for _, c := range d.Status.Conditions {
		condition(s, "kube_deployment_status_condition", join(own, "reason", c.Reason), string(c.Type), c.Status)
	}
}

func replicaSet(s *sender, r *appsv1.ReplicaSet) {
	own := []string{"namespace", r.Namespace, "replicaset", r.Name}
	created(s, "kube_replicaset_created", r.ObjectMeta, own)
	s.gauge("kube_replicaset_spec_replicas", "Pods wanted.", orOne(r.Spec.Replicas), own...)
	s.gauge("kube_replicaset_status_replicas", "Pods there are.", float64(r.Status.Replicas), own...)
	s.gauge("kube_replicaset_status_ready_replicas", "Pods ready.", float64(r.Status.ReadyReplicas), own...)
	kind, name, controller := owner(r.ObjectMeta)
	s.gauge("kube_replicaset_owner", "Owner of a replica set.", 1, join(own, "owner_kind", kind, "owner_name", name, "owner_is_controller", controller)...)
}

func statefulSet(s *sender, x *appsv1.StatefulSet) {
	own := []string{"namespace", x.Namespace, "statefulset", x.Name}
	created(s, "kube_statefulset_created", x.ObjectMeta, own)
	s.gauge("kube_statefulset_replicas", "Pods wanted.", orOne(x.Spec.Replicas), own...)
	s.gauge("kube_statefulset_metadata_generation", "Generation wanted.", float64(x.Generation), own...)
	s.gauge("kube_statefulset_status_observed_generation", "Generation seen by the controller.", float64(x.Status.ObservedGeneration), own...)
	s.gauge("kube_statefulset_status_replicas", "Pods there are.", float64(x.Status.Replicas), own...)
	s.gauge("kube_statefulset_status_replicas_ready", "Pods ready.", float64(x.Status.ReadyReplicas), own...)
	s.gauge("kube_statefulset_status_replicas_current", "Pods of the current revision.", float64(x.Status.CurrentReplicas), own...)
	s.gauge("kube_statefulset_status_replicas_updated", "Pods of the newest revision.", float64(x.Status.UpdatedReplicas), own...)
}

func daemonSet(s *sender, x *appsv1.DaemonSet) {
	own := []string{"namespace", x.Namespace, "daemonset", x.Name}
	created(s, "kube_daemonset_created", x.ObjectMeta, own)
	s.gauge("kube_daemonset_status_desired_number_scheduled", "Nodes that should run it.", float64(x.Status.DesiredNumberScheduled), own...)
	s.gauge("kube_daemonset_status_current_number_scheduled", "Nodes that run it.", float64(x.Status.CurrentNumberScheduled), own...)
	s.gauge("kube_daemonset_status_number_available", "Nodes where it is available.", float64(x.Status.NumberAvailable), own...)
	s.gauge("kube_daemonset_status_number_misscheduled", "Nodes that run it and should not.", float64(x.Status.NumberMisscheduled), own...)
	s.gauge("kube_daemonset_status_number_ready", "Nodes where it is ready.", float64(x.Status.NumberReady), own...)
	s.gauge("kube_daemonset_status_number_unavailable", "Nodes where it is not available.", float64(x.Status.NumberUnavailable), own...)
	s.gauge("kube_daemonset_status_updated_number_scheduled", "Nodes that run the newest template.", float64(x.Status.UpdatedNumberScheduled), own...)
}

func job(s *sender, j *batchv1.Job) {
	own := []string{"namespace", j.Namespace, "job_name", j.Name}
	created(s, "kube_job_created", j.ObjectMeta, own)
	s.gauge("kube_job_spec_parallelism", "Pods at once.", orOne(j.Spec.Parallelism), own...)
	s.gauge("kube_job_spec_completions", "Successes wanted.", orOne(j.Spec.Completions), own...)
	s.gauge("kube_job_status_active", "Pods that run.", float64(j.Status.Active), own...)
	s.gauge("kube_job_status_succeeded", "Pods that succeeded.", float64(j.Status.Succeeded), own...)
	s.gauge("kube_job_status_failed", "Pods that failed.", float64(j.Status.Failed), own...)
	for _, c := range j.Status.Conditions {
		name := map[batchv1.JobConditionType]string{batchv1.JobComplete: "kube_job_complete", batchv1.JobFailed: "kube_job_failed"}[c.Type]
		if name == "" {
			continue
		}
		for _, v := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown} {
			s.gauge(name, "How a job ended.", yes(c.Status == v), join(own, "condition", strings.ToLower(string(v)))...)
		}
	}
}

func autoscaler(s *sender, h *autoscalingv2.HorizontalPodAutoscaler) {
	own := []string{"namespace", h.Namespace, "horizontalpodautoscaler", h.Name}
	t := h.Spec.ScaleTargetRef
	s.gauge("kube_horizontalpodautoscaler_info", "What an autoscaler scales.", 1, join(own, "scaletargetref_api_version", t.APIVersion, "scaletargetref_kind", t.Kind, "scaletargetref_name", t.Name)...)
	s.gauge("kube_horizontalpodautoscaler_spec_min_replicas", "Fewest pods.", orOne(h.Spec.MinReplicas), own...)
	s.gauge("kube_horizontalpodautoscaler_spec_max_replicas", "Most pods.", float64(h.Spec.MaxReplicas), own...)
	s.gauge("kube_horizontalpodautoscaler_status_current_replicas", "Pods there are.", float64(h.Status.CurrentReplicas), own...)
	s.gauge("kube_horizontalpodautoscaler_status_desired_replicas", "Pods wanted.", float64(h.Status.DesiredReplicas), own...)
	for _, c := range h.Status.Conditions {
		condition(s, "kube_horizontalpodautoscaler_status_condition", own, string(c.Type), c.Status)
	}
	for _, m := range h.Spec.Metrics {
		if m.Resource != nil && m.Resource.Target.AverageUtilization != nil {
			s.gauge("kube_horizontalpodautoscaler_spec_target_metric", "Target of an autoscaler.", float64(*m.Resource.Target.AverageUtilization),
				join(own, "metric_name", string(m.Resource.Name), "metric_target_type", "utilization")...)
		}
	}
}

// owner is the controller of an object, in kube-state-metrics' words.
func owner(m metav1.ObjectMeta) (kind, name, controller string) {
	for _, o := range m.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			return o.Kind, o.Name, strconv.FormatBool(true)
		}
	}
	return "", "", ""
}
