package quota

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/admission"
	podresource "k8s.io/component-helpers/resource"
)

const countPods = corev1.ResourceName("count/pods")

// podKind says what a pod costs: itself, what it requests, and its limits.
type podKind struct{}

func (podKind) names(input []corev1.ResourceName) []corev1.ResourceName {
	var out []corev1.ResourceName
	for _, name := range input {
		if name == corev1.ResourcePods || name == countPods || computeName(name) != nil {
			out = append(out, name)
		}
	}
	return out
}

// computed is a part of a container's resources that a quota's name means.
type computed struct {
	resource corev1.ResourceName
	limit    bool
}

func computeName(name corev1.ResourceName) *computed {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return &computed{name, false}
	}
	basic := func(r string) bool {
		return r == "cpu" || r == "memory" || r == "ephemeral-storage"
	}
	if rest, ok := strings.CutPrefix(string(name), "limits."); ok && basic(rest) {
		return &computed{corev1.ResourceName(rest), true}
	}
	rest, ok := strings.CutPrefix(string(name), "requests.")
	// requests.storage belongs to claims; requests.example.org/gpu to pods.
	if ok && (basic(rest) || strings.HasPrefix(rest, "hugepages-") || strings.Contains(rest, "/")) {
		return &computed{corev1.ResourceName(rest), false}
	}
	return nil
}

func (podKind) usage(object runtime.Object) (corev1.ResourceList, error) {
	pod, err := as[*corev1.Pod](object)
	if err != nil {
		return nil, err
	}
	out := corev1.ResourceList{countPods: one()}
	if ended(pod) {
		return out, nil // it stands in the store, and uses nothing else
	}
	out[corev1.ResourcePods] = one()
	for name, q := range podresource.PodRequests(pod, podresource.PodResourcesOptions{}) {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			out[name] = q
		}
		out["requests."+name] = q
	}
	for name, q := range podresource.PodLimits(pod, podresource.PodResourcesOptions{}) {
		out["limits."+name] = q
	}
	return out, nil
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// lacks asks every container to state what a quota tracks, unless the pod states
// it as a whole.
func (podKind) lacks(required []corev1.ResourceName, object runtime.Object) []corev1.ResourceName {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return nil
	}
	var out []corev1.ResourceName
	for _, name := range required {
		c := computeName(name)
		if c == nil || strings.Contains(string(c.resource), "/") || strings.HasPrefix(string(c.resource), "hugepages-") {
			continue // nobody must ask for what not everybody has
		}
		if r := pod.Spec.Resources; r != nil && states(*r, *c) {
			continue
		}
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			if slices.ContainsFunc(list, func(x corev1.Container) bool { return !states(x.Resources, *c) }) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

func states(r corev1.ResourceRequirements, c computed) bool {
	list := r.Requests
	if c.limit {
		list = r.Limits
	}
	_, ok := list[c.resource]
	return ok
}

func (podKind) inScope(scope corev1.ScopedResourceSelectorRequirement, object runtime.Object) (bool, error) {
	pod, err := as[*corev1.Pod](object)
	if err != nil {
		return false, err
	}
	switch scope.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return pod.Spec.ActiveDeadlineSeconds != nil, nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return pod.Spec.ActiveDeadlineSeconds == nil, nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(pod), nil
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(pod), nil
	case corev1.ResourceQuotaScopePriorityClass:
		return inClass(scope, pod.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return reachesOut(pod.Spec.Affinity), nil
	}
	return false, nil
}

func inClass(scope corev1.ScopedResourceSelectorRequirement, class string) (bool, error) {
	if class == "" {
		return scope.Operator == corev1.ScopeSelectorOpDoesNotExist || scope.Operator == corev1.ScopeSelectorOpNotIn, nil
	}
	operator := map[corev1.ScopeSelectorOperator]selection.Operator{
		corev1.ScopeSelectorOpIn: selection.In, corev1.ScopeSelectorOpNotIn: selection.NotIn,
		corev1.ScopeSelectorOpExists: selection.Exists, corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
	}[scope.Operator]
	r, err := labels.NewRequirement("class", operator, scope.Values)
	if err != nil {
		return false, err
	}
	return r.Matches(labels.Set{"class": class}), nil
}

// bestEffort pods ask for neither cpu nor memory anywhere.
func bestEffort(pod *corev1.Pod) bool {
	asks := func(r corev1.ResourceRequirements) bool {
		for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if q, ok := list[name]; ok && !q.IsZero() {
					return true
				}
			}
		}
		return false
	}
	if pod.Spec.Resources != nil && asks(*pod.Spec.Resources) {
		return false
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		if slices.ContainsFunc(list, func(c corev1.Container) bool { return asks(c.Resources) }) {
			return false
		}
	}
	return true
}

// reachesOut reports terms that look at pods of other namespaces.
func reachesOut(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	out := func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	weighted := func(t corev1.WeightedPodAffinityTerm) bool { return out(t.PodAffinityTerm) }
	if p := a.PodAffinity; p != nil && (slices.ContainsFunc(p.RequiredDuringSchedulingIgnoredDuringExecution, out) ||
		slices.ContainsFunc(p.PreferredDuringSchedulingIgnoredDuringExecution, weighted)) {
		return true
	}
	p := a.PodAntiAffinity
	return p != nil && (slices.ContainsFunc(p.RequiredDuringSchedulingIgnoredDuringExecution, out) ||
		slices.ContainsFunc(p.PreferredDuringSchedulingIgnoredDuringExecution, weighted))
}

func (podKind) handles(a admission.Attributes) bool {
	switch a.GetOperation() {
	case admission.Create:
		return a.GetSubresource() == ""
	case admission.Update:
		return a.GetSubresource() == "resize"
	}
	return false
}
