package pod

import (
	"cmp"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// QOS is the class of a pod by its requests and limits.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	anything, guaranteed := false, true
	look := func(r corev1.ResourceRequirements) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := r.Limits[name], r.Requests[name]
			anything = anything || !limit.IsZero() || !request.IsZero()
			if limit.IsZero() || !request.IsZero() && request.Cmp(limit) != 0 {
				guaranteed = false
			}
		}
	}
	if r := pod.Spec.Resources; r != nil && (len(r.Limits) > 0 || len(r.Requests) > 0) {
		look(*r)
	} else {
		for _, c := range pod.Spec.InitContainers {
			look(c.Resources)
		}
		for _, c := range pod.Spec.Containers {
			look(c.Resources)
		}
	}
	switch {
	case !anything:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

const (
	cpuPeriod = 100_000 // microseconds, the kernel's and kubelet's default
	minShares = 2
	minQuota  = 1000
)

// Limits are the numbers of a cgroup; zero means none, except CPUShares.
type Limits struct {
	CPUShares int64 // v1 scale, 2…262144
	CPUQuota  int64 // microseconds per CPUPeriod
	CPUPeriod int64
	Memory    int64 // bytes
}

// Shares turns a CPU request into weight on the cgroup v1 scale.
func Shares(cpu resource.Quantity) int64 {
	return max(minShares, min(cpu.MilliValue()*1024/1000, 262144))
}

// quota turns a CPU limit into microseconds of each period.
func quota(cpu resource.Quantity) int64 {
	if cpu.IsZero() {
		return 0
	}
	return max(minQuota, cpu.MilliValue()*cpuPeriod/1000)
}

// PodLimits are the limits of the cgroup around all containers of a pod.
func PodLimits(pod *corev1.Pod) Limits {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	l := Limits{CPUShares: Shares(requests[corev1.ResourceCPU]), CPUPeriod: cpuPeriod}
	if allLimited(pod, corev1.ResourceCPU) {
		l.CPUQuota = quota(limits[corev1.ResourceCPU])
	}
	if q := limits[corev1.ResourceMemory]; allLimited(pod, corev1.ResourceMemory) {
		l.Memory = q.Value()
	}
	return l
}

// allLimited says whether the limits of a resource add up to one of the pod.
func allLimited(pod *corev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if q, ok := r.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if q := c.Resources.Limits[name]; q.IsZero() {
				return false
			}
		}
	}
	return true
}

// Node is what a node has, as far as pods depend on it.
type Node struct {
	MemoryBytes int64
	Allocatable corev1.ResourceList
	NoSeccomp   bool              // the runtime cannot filter system calls
	Cgroup      map[string]string // of each container: file → content; v2 only
}

// containerLimits are the resources of one container.
func containerLimits(pod *corev1.Pod, c *corev1.Container, node Node) *cri.LinuxContainerResources {
	request, limit := c.Resources.Requests[corev1.ResourceCPU], c.Resources.Limits[corev1.ResourceCPU]
	if _, has := c.Resources.Requests[corev1.ResourceCPU]; !has {
		request = limit
	}
	memory := c.Resources.Limits[corev1.ResourceMemory]
	return &cri.LinuxContainerResources{
		CpuPeriod: cpuPeriod, CpuQuota: quota(limit), CpuShares: Shares(request),
		MemoryLimitInBytes: memory.Value(), OomScoreAdj: OOMScore(pod, c, node.MemoryBytes),
		Unified: node.Cgroup,
	}
}

// OOMScore is how gladly the kernel may kill a container: guaranteed pods last,
// best-effort pods first, others by the share of memory they asked for.
func OOMScore(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) int64 {
	if pod.Spec.PriorityClassName == "system-node-critical" {
		return -997
	}
	switch QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	request := c.Resources.Requests[corev1.ResourceMemory]
	if nodeMemory <= 0 {
		return 999
	}
	return max(3, min(1000-1000*request.Value()/nodeMemory, 999))
}

// Resource is the value of a resourceFieldRef, as text.
func Resource(pod *corev1.Pod, container string, ref *corev1.ResourceFieldSelector, node Node) (string, error) {
	c := Find(pod, cmp.Or(ref.ContainerName, container))
	if c == nil {
		return "", fmt.Errorf("read resource %s: container %q does not exist", ref.Resource, ref.ContainerName)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	var value resource.Quantity
	var name corev1.ResourceName
	switch ref.Resource {
	case "limits.cpu", "limits.memory", "limits.ephemeral-storage":
		name = corev1.ResourceName(ref.Resource[len("limits."):])
		value = c.Resources.Limits[name]
		if value.IsZero() {
			value = node.Allocatable[name]
		}
	case "requests.cpu", "requests.memory", "requests.ephemeral-storage":
		name = corev1.ResourceName(ref.Resource[len("requests."):])
		value = c.Resources.Requests[name]
	default:
		return "", fmt.Errorf("read resource %s: not supported", ref.Resource)
	}
	if name == corev1.ResourceCPU {
		return fmt.Sprint(int64(math.Ceil(float64(value.MilliValue()) / float64(divisor.MilliValue())))), nil
	}
	return fmt.Sprint(int64(math.Ceil(float64(value.Value()) / float64(divisor.Value())))), nil
}

// Find returns a container or init container by its name, nil if there is none.
func Find(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
