package apiserver

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
)

// columns are those of kubectl, in its order. A kind that is missing here has
// name and age.
func columns() map[schema.GroupKind][]column {
	all := map[schema.GroupKind][]column{}
	for _, part := range []map[schema.GroupKind][]column{coreColumns(), workColumns(), restColumns()} {
		maps.Copy(all, part)
	}
	return all
}

func coreColumns() map[schema.GroupKind][]column {
	k := func(kind string) schema.GroupKind { return schema.GroupKind{Kind: kind} }
	events := []column{
		timed("Last Seen", func(now time.Time, e *corev1.Event) string { return since(now, lastSeen(e)) }),
		text("Type", func(e *corev1.Event) string { return e.Type }),
		text("Reason", func(e *corev1.Event) string { return e.Reason }),
		text("Object", eventObject),
		wide(text("Subobject", func(e *corev1.Event) string { return e.InvolvedObject.FieldPath })),
		wide(text("Source", eventSource)),
		text("Message", func(e *corev1.Event) string { return strings.TrimSpace(e.Message) }),
		wide(timed("First Seen", func(now time.Time, e *corev1.Event) string { return since(now, firstSeen(e)) })),
		wide(number("Count", eventCount)),
		wide(named()),
	}
	return map[schema.GroupKind][]column{
		k("Pod"):       podColumns(),
		k("Namespace"): {named(), text("Status", func(n *corev1.Namespace) string { return string(n.Status.Phase) }), aged()},
		k("Node"): {
			named(), text("Status", nodeState), text("Roles", nodeRoles), aged(),
			text("Version", func(n *corev1.Node) string { return n.Status.NodeInfo.KubeletVersion }),
			wide(text("Internal-IP", func(n *corev1.Node) string { return nodeAddress(n, corev1.NodeInternalIP) })),
			wide(text("External-IP", func(n *corev1.Node) string { return nodeAddress(n, corev1.NodeExternalIP) })),
			wide(text("OS-Image", func(n *corev1.Node) string { return or(n.Status.NodeInfo.OSImage, unknown) })),
			wide(text("Kernel-Version", func(n *corev1.Node) string {
				v := or(n.Status.NodeInfo.KernelVersion, unknown)
				if a := n.Status.NodeInfo.Architecture; a != "" {
					v += " (" + a + ")"
				}
				return v
			})),
			wide(text("Container-Runtime", func(n *corev1.Node) string { return or(n.Status.NodeInfo.ContainerRuntimeVersion, unknown) })),
		},
		k("Service"): {
			named(), text("Type", func(s *corev1.Service) string { return string(s.Spec.Type) }),
			text("Cluster-IP", func(s *corev1.Service) string {
				if len(s.Spec.ClusterIPs) > 0 {
					return s.Spec.ClusterIPs[0]
				}
				return none
			}),
			text("External-IP", externalIP), text("Port(s)", servicePorts), aged(),
			wide(text("Selector", func(s *corev1.Service) string { return labels.FormatLabels(s.Spec.Selector) })),
		},
		k("Endpoints"): {named(), text("Endpoints", endpointAddresses), aged()},
		k("ConfigMap"): {named(), number("Data", func(c *corev1.ConfigMap) int64 { return int64(len(c.Data) + len(c.BinaryData)) }), aged()},
		k("Secret"): {
			named(), text("Type", func(s *corev1.Secret) string { return string(s.Type) }),
			number("Data", func(s *corev1.Secret) int64 { return int64(len(s.Data)) }), aged(),
		},
		k("Event"):                              events,
		{Group: "events.k8s.io", Kind: "Event"}: events,
		k("ReplicationController"): append([]column{
			named(),
			number("Desired", func(o *corev1.ReplicationController) int64 { return count64(o.Spec.Replicas) }),
			number("Current", func(o *corev1.ReplicationController) int64 { return int64(o.Status.Replicas) }),
			number("Ready", func(o *corev1.ReplicationController) int64 { return int64(o.Status.ReadyReplicas) }),
			aged(),
		}, templateColumns(
			func(o *corev1.ReplicationController) *corev1.PodTemplateSpec { return o.Spec.Template },
			func(o *corev1.ReplicationController) string { return labels.FormatLabels(o.Spec.Selector) })...),
		k("PodTemplate"): {
			named(), text("Containers", func(o *corev1.PodTemplate) string { return containerNames(&o.Template) }),
			text("Images", func(o *corev1.PodTemplate) string { return containerImages(&o.Template) }),
			text("Pod Labels", func(o *corev1.PodTemplate) string { return labels.FormatLabels(o.Template.Labels) }),
		},
		k("PersistentVolume"): {
			named(), text("Capacity", func(o *corev1.PersistentVolume) string { return o.Spec.Capacity.Storage().String() }),
			text("Access Modes", func(o *corev1.PersistentVolume) string { return accessModes(o.Spec.AccessModes) }),
			text("Reclaim Policy", func(o *corev1.PersistentVolume) string { return string(o.Spec.PersistentVolumeReclaimPolicy) }),
			text("Status", func(o *corev1.PersistentVolume) string {
				return terminating(o.DeletionTimestamp, string(o.Status.Phase))
			}),
			text("Claim", func(o *corev1.PersistentVolume) string {
				if c := o.Spec.ClaimRef; c != nil {
					return c.Namespace + "/" + c.Name
				}
				return ""
			}),
			text("StorageClass", func(o *corev1.PersistentVolume) string {
				return or(o.Annotations[corev1.BetaStorageClassAnnotation], o.Spec.StorageClassName)
			}),
			text("VolumeAttributesClass", func(o *corev1.PersistentVolume) string { return deref(o.Spec.VolumeAttributesClassName, unset) }),
			text("Reason", func(o *corev1.PersistentVolume) string { return o.Status.Reason }), aged(),
			wide(text("VolumeMode", func(o *corev1.PersistentVolume) string { return deref(o.Spec.VolumeMode, unset) })),
		},
		k("PersistentVolumeClaim"): {
			named(),
			text("Status", func(o *corev1.PersistentVolumeClaim) string {
				return terminating(o.DeletionTimestamp, string(o.Status.Phase))
			}),
			text("Volume", func(o *corev1.PersistentVolumeClaim) string { return o.Spec.VolumeName }),
			text("Capacity", func(o *corev1.PersistentVolumeClaim) string {
				if o.Spec.VolumeName == "" {
					return ""
				}
				return o.Status.Capacity.Storage().String()
			}),
			text("Access Modes", func(o *corev1.PersistentVolumeClaim) string {
				if o.Spec.VolumeName == "" {
					return ""
				}
				return accessModes(o.Status.AccessModes)
			}),
			text("StorageClass", func(o *corev1.PersistentVolumeClaim) string {
				return or(o.Annotations[corev1.BetaStorageClassAnnotation], deref(o.Spec.StorageClassName, ""))
			}),
			text("VolumeAttributesClass", func(o *corev1.PersistentVolumeClaim) string { return deref(o.Spec.VolumeAttributesClassName, unset) }),
			aged(),
			wide(text("VolumeMode", func(o *corev1.PersistentVolumeClaim) string { return deref(o.Spec.VolumeMode, unset) })),
		},
		k("ResourceQuota"): {
			named(), text("Request", func(o *corev1.ResourceQuota) string { return quotaUse(o, false) }),
			text("Limit", func(o *corev1.ResourceQuota) string { return quotaUse(o, true) }), aged(),
		},
	}
}

func deref[T ~string](p *T, otherwise string) string {
	if p == nil {
		return otherwise
	}
	return string(*p)
}

func count64(p *int32) int64 {
	if p == nil {
		return 0
	}
	return int64(*p)
}

func terminating(deleted *metav1.Time, phase string) string {
	if deleted != nil {
		return "Terminating"
	}
	return phase
}

// templateColumns are the wide columns of everything that makes pods.
func templateColumns[T runtime.Object](template func(T) *corev1.PodTemplateSpec, selector func(T) string) []column {
	out := []column{
		wide(text("Containers", func(o T) string { return containerNames(template(o)) })),
		wide(text("Images", func(o T) string { return containerImages(template(o)) })),
	}
	if selector != nil {
		out = append(out, wide(text("Selector", selector)))
	}
	return out
}

func containerNames(t *corev1.PodTemplateSpec) string {
	return joinContainers(t, func(c corev1.Container) string { return c.Name })
}

func containerImages(t *corev1.PodTemplateSpec) string {
	return joinContainers(t, func(c corev1.Container) string { return c.Image })
}

func joinContainers(t *corev1.PodTemplateSpec, f func(corev1.Container) string) string {
	if t == nil {
		return ""
	}
	var out []string
	for _, c := range t.Spec.Containers {
		out = append(out, f(c))
	}
	return strings.Join(out, ",")
}

func nodeState(n *corev1.Node) string {
	state := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			state = "NotReady"
			if c.Status == corev1.ConditionTrue {
				state = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		state += ",SchedulingDisabled"
	}
	return state
}

func nodeRoles(n *corev1.Node) string {
	roles := sets.New[string]()
	for k, v := range n.Labels {
		if role, ok := strings.CutPrefix(k, "node-role.kubernetes.io/"); ok && role != "" {
			roles.Insert(role)
		} else if k == "kubernetes.io/role" && v != "" {
			roles.Insert(v)
		}
	}
	return or(strings.Join(sets.List(roles), ","), none)
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return none
}

func externalIP(s *corev1.Service) string {
	given := strings.Join(s.Spec.ExternalIPs, ",")
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		var all []string
		for _, i := range s.Status.LoadBalancer.Ingress {
			all = append(all, or(i.IP, i.Hostname))
		}
		return or(strings.Join(append(all, s.Spec.ExternalIPs...), ","), "<pending>")
	}
	return or(given, none)
}

func servicePorts(s *corev1.Service) string {
	var out []string
	for _, p := range s.Spec.Ports {
		if p.NodePort > 0 {
			out = append(out, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			out = append(out, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	return or(strings.Join(out, ","), none)
}

// shown is how many addresses fit into a cell.
const shown = 3

func endpointAddresses(e *corev1.Endpoints) string {
	var all []string
	for _, s := range e.Subsets {
		for _, a := range s.Addresses {
			if len(s.Ports) == 0 {
				all = append(all, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				all = append(all, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	return someOf(all, none)
}

// someOf shows the first few and counts the rest.
func someOf(all []string, otherwise string) string {
	if len(all) <= shown {
		return or(strings.Join(all, ","), otherwise)
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(all[:shown], ","), len(all)-shown)
}

func firstSeen(e *corev1.Event) time.Time {
	if e.FirstTimestamp.IsZero() {
		return e.EventTime.Time
	}
	return e.FirstTimestamp.Time
}

func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case e.LastTimestamp.IsZero():
		return firstSeen(e)
	}
	return e.LastTimestamp.Time
}

func eventCount(e *corev1.Event) int64 {
	switch {
	case e.Series != nil:
		return int64(e.Series.Count)
	case e.Count == 0:
		return 1
	}
	return int64(e.Count)
}

func eventObject(e *corev1.Event) string {
	kind := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name == "" {
		return kind
	}
	return kind + "/" + e.InvolvedObject.Name
}

func eventSource(e *corev1.Event) string {
	out := or(e.Source.Component, e.ReportingController)
	if host := or(e.Source.Host, e.ReportingInstance); host != "" {
		out += ", " + host
	}
	return out
}

func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	short := map[corev1.PersistentVolumeAccessMode]string{
		corev1.ReadWriteOnce: "RWO", corev1.ReadOnlyMany: "ROX", corev1.ReadWriteMany: "RWX", corev1.ReadWriteOncePod: "RWOP",
	}
	var out []string
	for _, m := range []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod} {
		if slices.Contains(modes, m) {
			out = append(out, short[m])
		}
	}
	return strings.Join(out, ",")
}

// quotaUse lists used/hard, either of limits or of everything else.
func quotaUse(q *corev1.ResourceQuota, limits bool) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		if strings.HasPrefix(string(name), "limits.") != limits {
			continue
		}
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		out = append(out, fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String()))
	}
	return strings.Join(out, ", ")
}
