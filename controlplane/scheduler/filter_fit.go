package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Amounts are resources in base units: thousandths for cpu, else bytes or pieces.
type Amounts map[corev1.ResourceName]int64

// Requests returns what a pod takes from a node, init containers, overhead and
// finished resizes included, and one of the node's pod slots.
func Requests(pod *corev1.Pod) Amounts {
	out := amountsOf(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true}))
	out[corev1.ResourcePods] = 1
	return out
}

// scoredRequests counts containers that ask for nothing a little, so that such
// pods spread when nodes are compared. It never decides whether a pod fits.
func scoredRequests(pod *corev1.Pod) Amounts {
	return amountsOf(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{
		UseStatusResources: true,
		NonMissingContainerRequests: corev1.ResourceList{
			corev1.ResourceCPU: *resource.NewMilliQuantity(100, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(200<<20, resource.BinarySI),
		},
	}))
}

func amountsOf(list corev1.ResourceList) Amounts {
	out := Amounts{}
	for name, q := range list {
		if name == corev1.ResourceCPU {
			out[name] = q.MilliValue()
		} else {
			out[name] = q.Value()
		}
	}
	return out
}

func allocatable(node *corev1.Node) Amounts { return amountsOf(node.Status.Allocatable) }

func (a Amounts) add(b Amounts) {
	for name, v := range b {
		a[name] += v
	}
}

func (a Amounts) sub(b Amounts) {
	for name, v := range b {
		a[name] -= v
	}
}

func sortedNames(a Amounts) []corev1.ResourceName { return slices.Sorted(maps.Keys(a)) }

// filterFit refuses nodes whose unrequested resources are smaller than the pod's requests.
func filterFit(want Amounts) filter {
	names := sortedNames(want)
	return func(node *Node) []string {
		have := allocatable(node.Object)
		var reasons []string
		for _, name := range names {
			if want[name] == 0 || want[name] <= have[name]-node.Used[name] {
				continue
			}
			if name == corev1.ResourcePods {
				reasons = append(reasons, "Too many pods")
			} else {
				reasons = append(reasons, "Insufficient "+string(name))
			}
		}
		return reasons
	}
}
