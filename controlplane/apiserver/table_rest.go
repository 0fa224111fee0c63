package apiserver

import (
	"fmt"
	"maps"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
)

func restColumns() map[schema.GroupKind][]column {
	out := map[schema.GroupKind][]column{}
	for _, part := range []map[schema.GroupKind][]column{networkColumns(), accessColumns(), storageColumns(), admissionColumns()} {
		maps.Copy(out, part)
	}
	return out
}

func networkColumns() map[schema.GroupKind][]column {
	net := func(kind string) schema.GroupKind { return schema.GroupKind{Group: "networking.k8s.io", Kind: kind} }
	return map[schema.GroupKind][]column{
		net("Ingress"): {
			named(), text("Class", func(o *networkingv1.Ingress) string { return deref(o.Spec.IngressClassName, none) }),
			text("Hosts", ingressHosts),
			text("Address", func(o *networkingv1.Ingress) string {
				var all []string
				for _, i := range o.Status.LoadBalancer.Ingress {
					all = append(all, or(i.IP, i.Hostname))
				}
				return strings.Join(all, ",")
			}),
			text("Ports", func(o *networkingv1.Ingress) string {
				if len(o.Spec.TLS) > 0 {
					return "80, 443"
				}
				return "80"
			}),
			aged(),
		},
		net("IngressClass"): {
			named(), text("Controller", func(o *networkingv1.IngressClass) string { return o.Spec.Controller }),
			text("Parameters", func(o *networkingv1.IngressClass) string {
				p := o.Spec.Parameters
				if p == nil {
					return none
				}
				return p.Kind + suffix(".", deref(p.APIGroup, "")) + "/" + p.Name
			}),
			aged(),
		},
		net("NetworkPolicy"): {
			named(), text("Pod-Selector", func(o *networkingv1.NetworkPolicy) string { return metav1.FormatLabelSelector(&o.Spec.PodSelector) }), aged(),
		},
		{Group: "discovery.k8s.io", Kind: "EndpointSlice"}: {
			named(), text("AddressType", func(o *discoveryv1.EndpointSlice) string { return string(o.AddressType) }),
			text("Ports", func(o *discoveryv1.EndpointSlice) string {
				var all []string
				for _, p := range o.Ports {
					if p.Port == nil {
						all = append(all, "*")
					} else {
						all = append(all, fmt.Sprint(*p.Port))
					}
				}
				return someOf(all, unset)
			}),
			text("Endpoints", func(o *discoveryv1.EndpointSlice) string {
				var all []string
				for _, e := range o.Endpoints {
					all = append(all, e.Addresses...)
				}
				return someOf(all, unset)
			}),
			aged(),
		},
		{Group: "coordination.k8s.io", Kind: "Lease"}: {
			named(), text("Holder", func(o *coordinationv1.Lease) string { return deref(o.Spec.HolderIdentity, "") }), aged(),
		},
	}
}

func ingressHosts(o *networkingv1.Ingress) string {
	var all []string
	for _, r := range o.Spec.Rules {
		if r.Host != "" {
			all = append(all, r.Host)
		}
	}
	return someOf(all, "*")
}

func accessColumns() map[schema.GroupKind][]column {
	rbac := func(kind string) schema.GroupKind {
		return schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: kind}
	}
	role := column{name: "Created At", kind: "string", cell: func(_ time.Time, o runtime.Object) any {
		return accessor(o).GetCreationTimestamp().UTC().Format(time.RFC3339)
	}}
	return map[schema.GroupKind][]column{
		rbac("Role"):        {named(), role},
		rbac("ClusterRole"): {named(), role},
		rbac("RoleBinding"): bindingColumns(
			func(o *rbacv1.RoleBinding) rbacv1.RoleRef { return o.RoleRef },
			func(o *rbacv1.RoleBinding) []rbacv1.Subject { return o.Subjects }),
		rbac("ClusterRoleBinding"): bindingColumns(
			func(o *rbacv1.ClusterRoleBinding) rbacv1.RoleRef { return o.RoleRef },
			func(o *rbacv1.ClusterRoleBinding) []rbacv1.Subject { return o.Subjects }),
		{Group: "certificates.k8s.io", Kind: "CertificateSigningRequest"}: {
			named(), aged(),
			text("SignerName", func(o *certificatesv1.CertificateSigningRequest) string { return or(o.Spec.SignerName, none) }),
			text("Requestor", func(o *certificatesv1.CertificateSigningRequest) string { return o.Spec.Username }),
			text("RequestedDuration", func(o *certificatesv1.CertificateSigningRequest) string {
				if o.Spec.ExpirationSeconds == nil {
					return none
				}
				return duration.HumanDuration(time.Duration(*o.Spec.ExpirationSeconds) * time.Second)
			}),
			text("Condition", signingRequestState),
		},
		{Group: "scheduling.k8s.io", Kind: "PriorityClass"}: {
			named(), number("Value", func(o *schedulingv1.PriorityClass) int64 { return int64(o.Value) }),
			flag("Global-Default", func(o *schedulingv1.PriorityClass) *bool { return &o.GlobalDefault }), aged(),
			text("PreemptionPolicy", func(o *schedulingv1.PriorityClass) string { return deref(o.PreemptionPolicy, unset) }),
		},
		{Group: "node.k8s.io", Kind: "RuntimeClass"}: {
			named(), text("Handler", func(o *nodev1.RuntimeClass) string { return o.Handler }), aged(),
		},
	}
}

func bindingColumns[T runtime.Object](role func(T) rbacv1.RoleRef, subjects func(T) []rbacv1.Subject) []column {
	of := func(kind string) func(T) string {
		return func(o T) string {
			var all []string
			for _, s := range subjects(o) {
				if s.Kind != kind {
					continue
				}
				if kind == rbacv1.ServiceAccountKind {
					all = append(all, s.Namespace+"/"+s.Name)
				} else {
					all = append(all, s.Name)
				}
			}
			return strings.Join(all, ", ")
		}
	}
	return []column{
		named(), text("Role", func(o T) string { return role(o).Kind + "/" + role(o).Name }), aged(),
		wide(text("Users", of(rbacv1.UserKind))), wide(text("Groups", of(rbacv1.GroupKind))), wide(text("ServiceAccounts", of(rbacv1.ServiceAccountKind))),
	}
}

func signingRequestState(o *certificatesv1.CertificateSigningRequest) string {
	said := map[certificatesv1.RequestConditionType]bool{}
	for _, c := range o.Status.Conditions {
		said[c.Type] = true
	}
	var out []string
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		if said[t] {
			out = append(out, string(t))
		}
	}
	if len(out) == 0 {
		return "Pending"
	}
	if len(o.Status.Certificate) > 0 {
		out = append(out, "Issued")
	}
	return strings.Join(out, ",")
}

func storageColumns() map[schema.GroupKind][]column {
	k := func(kind string) schema.GroupKind { return schema.GroupKind{Group: "storage.k8s.io", Kind: kind} }
	return map[schema.GroupKind][]column{
		k("StorageClass"): {
			{name: "Name", kind: "string", cell: func(_ time.Time, o runtime.Object) any {
				name := accessor(o).GetName()
				if accessor(o).GetAnnotations()["storageclass.kubernetes.io/is-default-class"] == "true" {
					name += " (default)"
				}
				return name
			}},
			text("Provisioner", func(o *storagev1.StorageClass) string { return o.Provisioner }),
			text("ReclaimPolicy", func(o *storagev1.StorageClass) string { return deref(o.ReclaimPolicy, "Delete") }),
			text("VolumeBindingMode", func(o *storagev1.StorageClass) string { return deref(o.VolumeBindingMode, "Immediate") }),
			flag("AllowVolumeExpansion", func(o *storagev1.StorageClass) *bool {
				grows := o.AllowVolumeExpansion != nil && *o.AllowVolumeExpansion
				return &grows
			}),
			aged(),
		},
		k("VolumeAttributesClass"): {named(), text("DriverName", func(o *storagev1.VolumeAttributesClass) string { return o.DriverName }), aged()},
		k("VolumeAttachment"): {
			named(), text("Attacher", func(o *storagev1.VolumeAttachment) string { return o.Spec.Attacher }),
			text("PV", func(o *storagev1.VolumeAttachment) string { return deref(o.Spec.Source.PersistentVolumeName, "") }),
			text("Node", func(o *storagev1.VolumeAttachment) string { return o.Spec.NodeName }),
			flag("Attached", func(o *storagev1.VolumeAttachment) *bool { return &o.Status.Attached }), aged(),
		},
		k("CSINode"): {named(), number("Drivers", func(o *storagev1.CSINode) int64 { return int64(len(o.Spec.Drivers)) }), aged()},
		k("CSIDriver"): {
			named(), flag("AttachRequired", func(o *storagev1.CSIDriver) *bool { return o.Spec.AttachRequired }),
			flag("PodInfoOnMount", func(o *storagev1.CSIDriver) *bool { return o.Spec.PodInfoOnMount }),
			flag("StorageCapacity", func(o *storagev1.CSIDriver) *bool { return o.Spec.StorageCapacity }),
			text("TokenRequests", func(o *storagev1.CSIDriver) string {
				var all []string
				for _, t := range o.Spec.TokenRequests {
					all = append(all, t.Audience)
				}
				return or(strings.Join(all, ","), unset)
			}),
			flag("RequiresRepublish", func(o *storagev1.CSIDriver) *bool { return o.Spec.RequiresRepublish }),
			text("Modes", func(o *storagev1.CSIDriver) string {
				var all []string
				for _, m := range o.Spec.VolumeLifecycleModes {
					all = append(all, string(m))
				}
				return or(strings.Join(all, ","), none)
			}),
			aged(),
		},
		k("CSIStorageCapacity"): {
			named(), text("StorageClassName", func(o *storagev1.CSIStorageCapacity) string { return o.StorageClassName }),
			text("Capacity", func(o *storagev1.CSIStorageCapacity) string {
				if o.Capacity == nil {
					return unset
				}
				return o.Capacity.String()
			}),
		},
	}
}

func admissionColumns() map[schema.GroupKind][]column {
	k := func(kind string) schema.GroupKind {
		return schema.GroupKind{Group: "admissionregistration.k8s.io", Kind: kind}
	}
	paramKind := func(p *admissionv1.ParamKind) string {
		if p == nil {
			return unset
		}
		return p.APIVersion + "/" + p.Kind
	}
	paramRef := func(p *admissionv1.ParamRef) string {
		switch {
		case p == nil:
			return unset
		case p.Selector != nil:
			return "<selector>"
		}
		return strings.Trim(p.Namespace+"/"+p.Name, "/")
	}
	return map[schema.GroupKind][]column{
		k("ValidatingWebhookConfiguration"): {named(), number("Webhooks", func(o *admissionv1.ValidatingWebhookConfiguration) int64 { return int64(len(o.Webhooks)) }), aged()},
		k("MutatingWebhookConfiguration"):   {named(), number("Webhooks", func(o *admissionv1.MutatingWebhookConfiguration) int64 { return int64(len(o.Webhooks)) }), aged()},
		k("ValidatingAdmissionPolicy"): {
			named(), number("Validations", func(o *admissionv1.ValidatingAdmissionPolicy) int64 { return int64(len(o.Spec.Validations)) }),
			text("ParamKind", func(o *admissionv1.ValidatingAdmissionPolicy) string { return paramKind(o.Spec.ParamKind) }), aged(),
		},
		k("MutatingAdmissionPolicy"): {
			named(), number("Mutations", func(o *admissionv1.MutatingAdmissionPolicy) int64 { return int64(len(o.Spec.Mutations)) }),
			text("ParamKind", func(o *admissionv1.MutatingAdmissionPolicy) string { return paramKind(o.Spec.ParamKind) }), aged(),
		},
		k("ValidatingAdmissionPolicyBinding"): {
			named(), text("PolicyName", func(o *admissionv1.ValidatingAdmissionPolicyBinding) string { return o.Spec.PolicyName }),
			text("ParamRef", func(o *admissionv1.ValidatingAdmissionPolicyBinding) string { return paramRef(o.Spec.ParamRef) }), aged(),
		},
		k("MutatingAdmissionPolicyBinding"): {
			named(), text("PolicyName", func(o *admissionv1.MutatingAdmissionPolicyBinding) string { return o.Spec.PolicyName }),
			text("ParamRef", func(o *admissionv1.MutatingAdmissionPolicyBinding) string { return paramRef(o.Spec.ParamRef) }), aged(),
		},
	}
}
