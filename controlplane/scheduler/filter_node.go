package scheduler

import (
	"fmt"
	"slices"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// filterUnschedulable refuses cordoned nodes unless the pod tolerates that taint.
func filterUnschedulable(pod *corev1.Pod) filter {
	tolerated := tolerates(pod, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	return func(node *Node) []string {
		if node.Object.Spec.Unschedulable && !tolerated {
			return []string{"node(s) were unschedulable"}
		}
		return nil
	}
}

// filterTaints refuses nodes with a taint the pod does not tolerate.
func filterTaints(pod *corev1.Pod) filter {
	return func(node *Node) []string {
		for _, taint := range node.Object.Spec.Taints {
			if taint.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(pod, &taint) {
				return []string{fmt.Sprintf("node(s) had untolerated taint {%s: %s}", taint.Key, taint.Value)}
			}
		}
		return nil
	}
}

func tolerates(pod *corev1.Pod, taint *corev1.Taint) bool {
	return corehelpers.TolerationsTolerateTaint(logr.Discard(), pod.Spec.Tolerations, taint, true)
}

func requiredNodes(pod *corev1.Pod) func(*corev1.Node) bool {
	required := nodeaffinity.GetRequiredNodeAffinity(pod)
	return func(node *corev1.Node) bool {
		ok, err := required.Match(node)
		return ok && err == nil // a selector that cannot be read matches nothing
	}
}

// filterNodes refuses nodes outside the pod's nodeSelector and required node affinity.
func filterNodes(required func(*corev1.Node) bool) filter {
	return func(node *Node) []string {
		if !required(node.Object) {
			return []string{"node(s) didn't match Pod's node affinity/selector"}
		}
		return nil
	}
}

// filterPorts refuses nodes where a host port the pod wants is taken.
func filterPorts(pod *corev1.Pod) filter {
	want := hostPorts(pod)
	return func(node *Node) []string {
		if len(want) == 0 {
			return nil
		}
		for _, other := range node.Pods {
			for _, have := range hostPorts(other) {
				if slices.ContainsFunc(want, have.meets) {
					return []string{"node(s) didn't have free ports for the requested pod ports"}
				}
			}
		}
		return nil
	}
}

type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

func (a hostPort) meets(b hostPort) bool {
	return a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || a.ip == anyIP || b.ip == anyIP)
}

const anyIP = "0.0.0.0"

func hostPorts(pod *corev1.Pod) []hostPort {
	var out []hostPort
	for _, list := range [][]corev1.Container{pod.Spec.Containers, restartable(pod.Spec.InitContainers)} {
		for _, c := range list {
			for _, p := range c.Ports {
				port := p.HostPort
				if pod.Spec.HostNetwork && port == 0 {
					port = p.ContainerPort
				}
				if port == 0 {
					continue
				}
				h := hostPort{p.HostIP, p.Protocol, port}
				if h.ip == "" || h.ip == "::" {
					h.ip = anyIP
				}
				if h.protocol == "" {
					h.protocol = corev1.ProtocolTCP
				}
				out = append(out, h)
			}
		}
	}
	return out
}

func restartable(containers []corev1.Container) []corev1.Container {
	return slices.DeleteFunc(slices.Clone(containers), func(c corev1.Container) bool {
		return c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways
	})
}
