package exporter

import (
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
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
	CronJobs                 func() []*batchv1.CronJob
	ReplicationControllers   func() []*corev1.ReplicationController
	Endpoints                func() []*corev1.Endpoints
	Ingresses                func() []*networkingv1.Ingress
	NetworkPolicies          func() []*networkingv1.NetworkPolicy
	PersistentVolumes        func() []*corev1.PersistentVolume
	PersistentVolumeClaims   func() []*corev1.PersistentVolumeClaim
	StorageClasses           func() []*storagev1.StorageClass
	ConfigMaps               func() []*corev1.ConfigMap // metadata is enough
	ResourceQuotas           func() []*corev1.ResourceQuota
	LimitRanges              func() []*corev1.LimitRange
	PodDisruptionBudgets     func() []*policyv1.PodDisruptionBudget
	Leases                   func() []*coordinationv1.Lease
	SigningRequests          func() []*certificatesv1.CertificateSigningRequest
	MutatingWebhooks         func() []*admissionv1.MutatingWebhookConfiguration
	ValidatingWebhooks       func() []*admissionv1.ValidatingWebhookConfiguration
	VolumeAttachments        func() []*storagev1.VolumeAttachment
}

// Objects is the state of objects: a collector, and a source of samples that
// looks only at what changed.
type Objects struct {
	kinds []kind
	seen  seen
}

// NewObjects makes the source; Samples must be called from one goroutine.
func NewObjects(lists Lists) *Objects {
	return &Objects{kinds: slices.DeleteFunc([]kind{
		of(lists.Nodes, node), of(lists.Namespaces, namespace), of(lists.Pods, pod), of(lists.Services, service),
		of(lists.Deployments, deployment), of(lists.ReplicaSets, replicaSet), of(lists.StatefulSets, statefulSet), of(lists.DaemonSets, daemonSet),
		of(lists.Jobs, job), of(lists.HorizontalPodAutoscalers, autoscaler), of(lists.CronJobs, cronJob),
		of(lists.ReplicationControllers, replicationController), of(lists.Endpoints, endpoints), of(lists.Ingresses, ingress),
		of(lists.NetworkPolicies, networkPolicy), of(lists.PersistentVolumes, volume), of(lists.PersistentVolumeClaims, claim),
		of(lists.StorageClasses, storageClass), of(lists.ConfigMaps, configMap), of(lists.ResourceQuotas, quota),
		of(lists.LimitRanges, limitRange), of(lists.PodDisruptionBudgets, disruptionBudget),
		of(lists.Leases, lease), of(lists.SigningRequests, signingRequest), of(lists.MutatingWebhooks, mutatingWebhooks),
		of(lists.ValidatingWebhooks, validatingWebhooks), of(lists.VolumeAttachments, volumeAttachment),
	}, func(k kind) bool { return k.each == nil })}
}

// kind is how objects of one kind are listed and written.
type kind struct {
	each  func(visit func(metav1.Object))
	write func(*sender, metav1.Object)
}

func of[T metav1.Object](list func() []T, one func(*sender, T)) kind {
	if list == nil {
		return kind{}
	}
	return kind{
		func(visit func(metav1.Object)) {
			for _, x := range list() {
				visit(x)
			}
		},
		func(s *sender, x metav1.Object) { one(s, x.(T)) },
	}
}

// Describe sends nothing: the series depend on the objects.
func (*Objects) Describe(chan<- *prometheus.Desc) {}

// Collect reads every list once.
func (o *Objects) Collect(ch chan<- prometheus.Metric) {
	s := toCollector(ch)
	for _, k := range o.kinds {
		k.each(func(x metav1.Object) { k.write(s, x) })
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

// deleted writes when an object must be gone, once it is being deleted.
func deleted(s *sender, name string, m metav1.ObjectMeta, own []string) {
	if m.DeletionTimestamp != nil {
		s.gauge(name, "When the object must be gone, unix time.", float64(m.DeletionTimestamp.Unix()), own...)
	}
}

// version writes an object's resource version, a number in perch's store.
func version(s *sender, name string, m metav1.ObjectMeta, own []string) {
	if v, err := strconv.ParseFloat(m.ResourceVersion, 64); err == nil {
		s.gauge(name, "Version of the object.", v, own...)
	}
}

// moment writes a time that may not be known yet.
func moment(s *sender, name, help string, t *metav1.Time, own []string) {
	if t != nil && !t.IsZero() {
		s.gauge(name, help, float64(t.Unix()), own...)
	}
}

// known writes a number that may be unset.
func known[N int32 | int64](s *sender, name, help string, n *N, own []string) {
	if n != nil {
		s.gauge(name, help, float64(*n), own...)
	}
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
		"container_runtime_version", i.ContainerRuntimeVersion, "kubelet_version", i.KubeletVersion, "kubeproxy_version", "deprecated", "pod_cidr", n.Spec.PodCIDR,
		"provider_id", n.Spec.ProviderID, "system_uuid", i.SystemUUID, "internal_ip", address)...)
	created(s, "kube_node_created", n.ObjectMeta, own)
	deleted(s, "kube_node_deletion_timestamp", n.ObjectMeta, own)
	for label := range n.Labels {
		if role, ok := strings.CutPrefix(label, "node-role.kubernetes.io/"); ok {
			s.gauge("kube_node_role", "Roles of a node.", 1, join(own, "role", role)...)
		}
	}
	for _, a := range n.Status.Addresses {
		s.gauge("kube_node_status_addresses", "Addresses of a node.", 1, join(own, "type", string(a.Type), "address", a.Address)...)
	}
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
	for _, c := range n.Status.Conditions {
		condition(s, "kube_namespace_status_condition", own, string(c.Type), c.Status)
	}
}

func service(s *sender, x *corev1.Service) {
	own := []string{"namespace", x.Namespace, "service", x.Name, "uid", string(x.UID)}
	s.gauge("kube_service_info", "About a service.", 1, join(own, "cluster_ip", x.Spec.ClusterIP, "external_name", x.Spec.ExternalName,
		"external_traffic_policy", string(x.Spec.ExternalTrafficPolicy), "load_balancer_ip", x.Spec.LoadBalancerIP)...)
	created(s, "kube_service_created", x.ObjectMeta, own)
	for _, ip := range x.Spec.ExternalIPs {
		s.gauge("kube_service_spec_external_ip", "External addresses of a service.", 1, join(own, "external_ip", ip)...)
	}
	for _, in := range x.Status.LoadBalancer.Ingress {
		s.gauge("kube_service_status_load_balancer_ingress", "Where a load balancer takes traffic.", 1, join(own, "ip", in.IP, "hostname", in.Hostname)...)
	}
	for _, p := range x.Spec.Ports {
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		s.gauge("kube_service_ports", "Ports of a service.", 1, join(own, "port_name", p.Name, "port_protocol", string(p.Protocol), "port_number", strconv.Itoa(int(p.Port)),
			"port_target", p.TargetPort.String(), "port_app_protocol", app, "port_node_number", strconv.Itoa(int(p.NodePort)))...)
	}
	s.gauge("kube_service_spec_type", "Type of a service.", 1, join(own, "type", string(x.Spec.Type))...)
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
