package api

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is one row of the table: what a client can know about a kind.
type Kind struct {
	schema.GroupVersion
	Kind       string
	Plural     string
	Short      []string
	Categories []string
	Namespaced bool
	Status     bool // has a /status subresource
	Scale      bool // has a /scale subresource
	Acts       bool // something in perch acts on it
}

// Singular is the lower-case name of one object.
func (k Kind) Singular() string { return strings.ToLower(k.Kind) }

// GVK names the Go type.
func (k Kind) GVK() schema.GroupVersionKind { return k.WithKind(k.Kind) }

// GVR names the REST collection.
func (k Kind) GVR() schema.GroupVersionResource { return k.WithResource(k.Plural) }

// trait is one property of a row.
type trait func(*Kind)

func cluster(k *Kind) { k.Namespaced = false }
func status(k *Kind)  { k.Status = true }
func scale(k *Kind)   { k.Scale = true }
func idle(k *Kind)    { k.Acts = false }
func all(k *Kind)     { k.Categories = append(k.Categories, "all") }

func category(name string) trait {
	return func(k *Kind) { k.Categories = append(k.Categories, name) }
}

func row(gv, kind, plural, short string, traits ...trait) Kind {
	group, version, found := strings.Cut(gv, "/")
	if !found {
		group, version = "", gv
	}
	k := Kind{
		GroupVersion: schema.GroupVersion{Group: group, Version: version},
		Kind:         kind, Plural: plural, Short: strings.Fields(short), Namespaced: true, Acts: true,
	}
	for _, t := range traits {
		t(&k)
	}
	return k
}

const (
	rbac      = "rbac.authorization.k8s.io/v1"
	storage   = "storage.k8s.io/v1"
	admission = "admissionregistration.k8s.io/v1"
)

// Kinds returns every kind the API server stores, custom resources apart. Its
// order is the order in which groups are served.
func Kinds() []Kind {
	extensions := category("api-extensions")
	return []Kind{
		row("v1", "Namespace", "namespaces", "ns", cluster, status),
		row("v1", "Node", "nodes", "no", cluster, status),
		row("v1", "Pod", "pods", "po", status, all),
		row("v1", "Service", "services", "svc", status, all),
		row("v1", "ReplicationController", "replicationcontrollers", "rc", status, scale, all),
		row("v1", "ConfigMap", "configmaps", "cm"),
		row("v1", "Secret", "secrets", ""),
		row("v1", "Event", "events", "ev"),
		row("v1", "ServiceAccount", "serviceaccounts", "sa"),
		row("v1", "Endpoints", "endpoints", "ep"),
		row("v1", "PersistentVolume", "persistentvolumes", "pv", cluster, status, idle),
		row("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", status, idle),
		row("v1", "ResourceQuota", "resourcequotas", "quota", status),
		row("v1", "LimitRange", "limitranges", "limits"),
		row("v1", "PodTemplate", "podtemplates", "", idle),

		row("apps/v1", "Deployment", "deployments", "deploy", status, scale, all),
		row("apps/v1", "ReplicaSet", "replicasets", "rs", status, scale, all),
		row("apps/v1", "StatefulSet", "statefulsets", "sts", status, scale, all, idle),
		row("apps/v1", "DaemonSet", "daemonsets", "ds", status, all, idle),
		row("apps/v1", "ControllerRevision", "controllerrevisions", "", idle),

		row("batch/v1", "Job", "jobs", "", status, all),
		row("batch/v1", "CronJob", "cronjobs", "cj", status, all, idle),

		row("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", status, all),
		row("autoscaling/v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", status, all),

		row("events.k8s.io/v1", "Event", "events", "ev"),

		row("networking.k8s.io/v1", "Ingress", "ingresses", "ing", status, idle),
		row("networking.k8s.io/v1", "IngressClass", "ingressclasses", "", cluster, idle),
		row("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", idle),

		row("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", status),

		row(rbac, "Role", "roles", ""),
		row(rbac, "RoleBinding", "rolebindings", ""),
		row(rbac, "ClusterRole", "clusterroles", "", cluster),
		row(rbac, "ClusterRoleBinding", "clusterrolebindings", "", cluster),

		row(storage, "StorageClass", "storageclasses", "sc", cluster, idle),
		row(storage, "CSIDriver", "csidrivers", "", cluster, idle),
		row(storage, "CSINode", "csinodes", "", cluster, idle),
		row(storage, "CSIStorageCapacity", "csistoragecapacities", "", idle),
		row(storage, "VolumeAttachment", "volumeattachments", "", cluster, status, idle),
		row(storage, "VolumeAttributesClass", "volumeattributesclasses", "vac", cluster, idle),

		row("coordination.k8s.io/v1", "Lease", "leases", ""),
		row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", ""),
		row("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", cluster),
		row("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", "", cluster, idle),
		row("certificates.k8s.io/v1", "CertificateSigningRequest", "certificatesigningrequests", "csr", cluster, status),

		row(admission, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", cluster, extensions),
		row(admission, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", cluster, extensions),
		row(admission, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", cluster, status, extensions),
		row(admission, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", cluster, extensions),
		row(admission, "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "", cluster, extensions),
		row(admission, "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "", cluster, extensions),
	}
}

// ByResource returns the row of a resource.
func ByResource(r schema.GroupVersionResource) (Kind, bool) {
	for _, k := range Kinds() {
		if k.GVR() == r {
			return k, true
		}
	}
	return Kind{}, false
}

// ByKind returns the row of a kind.
func ByKind(g schema.GroupVersionKind) (Kind, bool) {
	for _, k := range Kinds() {
		if k.GVK() == g {
			return k, true
		}
	}
	return Kind{}, false
}
