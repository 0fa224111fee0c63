package target

import (
	"strconv"
	"strings"

	promlabels "github.com/prometheus/prometheus/model/labels"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The meta labels are those of Prometheus' Kubernetes discovery: relabelings of
// charts ask for them.
const metaPrefix = "__meta_kubernetes_"

func metaSet(b *promlabels.Builder, prefix string, o metav1.ObjectMeta) {
	for k, v := range o.Labels {
		name := safe(k)
		b.Set(prefix+"label_"+name, v)
		b.Set(prefix+"labelpresent_"+name, "true")
	}
	for k, v := range o.Annotations {
		name := safe(k)
		b.Set(prefix+"annotation_"+name, v)
		b.Set(prefix+"annotationpresent_"+name, "true")
	}
}

func metaPod(b *promlabels.Builder, p *corev1.Pod) {
	const at = metaPrefix + "pod_"
	metaSet(b, at, p.ObjectMeta)
	ready := "unknown"
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			ready = strings.ToLower(string(c.Status))
		}
	}
	b.Set(metaPrefix+"namespace", p.Namespace)
	for k, v := range map[string]string{"name": p.Name, "ip": p.Status.PodIP, "node_name": p.Spec.NodeName, "host_ip": p.Status.HostIP,
		"uid": string(p.UID), "phase": string(p.Status.Phase), "ready": ready} {
		b.Set(at+k, v)
	}
	for _, o := range p.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			b.Set(at+"controller_kind", o.Kind).Set(at+"controller_name", o.Name)
		}
	}
}

func metaPort(b *promlabels.Builder, c corev1.Container, port *corev1.ContainerPort) {
	const at = metaPrefix + "pod_container_"
	b.Set(at+"name", c.Name).Set(at+"image", c.Image)
	if port != nil {
		b.Set(at+"port_name", port.Name).Set(at+"port_number", strconv.Itoa(int(port.ContainerPort)))
		b.Set(at+"port_protocol", string(protocolOf(port.Protocol)))
	}
}

func metaService(b *promlabels.Builder, s *corev1.Service) {
	const at = metaPrefix + "service_"
	metaSet(b, at, s.ObjectMeta)
	b.Set(metaPrefix+"namespace", s.Namespace).Set(at+"name", s.Name).Set(at+"type", string(s.Spec.Type))
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		b.Set(at+"external_name", s.Spec.ExternalName)
	} else {
		b.Set(at+"cluster_ip", s.Spec.ClusterIP)
	}
	if s.Spec.LoadBalancerIP != "" {
		b.Set(at+"loadbalancer_ip", s.Spec.LoadBalancerIP)
	}
}

func metaNode(b *promlabels.Builder, n *corev1.Node) {
	const at = metaPrefix + "node_"
	metaSet(b, at, n.ObjectMeta)
	b.Set(at+"name", n.Name).Set(at+"provider_id", n.Spec.ProviderID)
	for _, a := range n.Status.Addresses {
		if name := at + "address_" + safe(string(a.Type)); b.Get(name) == "" {
			b.Set(name, a.Address)
		}
	}
}

func protocolOf(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// safe is a Kubernetes label's name as a Prometheus label's.
func safe(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
			return c
		}
		return '_'
	}, name)
}
