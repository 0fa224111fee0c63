package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	podresource "k8s.io/component-helpers/resource"
)

// limitRangerPlugin fills in a namespace's default requests and limits, and
// refuses pods and claims outside its bounds.
type limitRangerPlugin struct {
	*admission.Handler
	ranges corelisters.LimitRangeLister
}

var _ admission.MutationInterface = (*limitRangerPlugin)(nil)
var _ admission.ValidationInterface = (*limitRangerPlugin)(nil)

func newLimitRanger() *limitRangerPlugin {
	return &limitRangerPlugin{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

func (l *limitRangerPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	i := f.Core().V1().LimitRanges()
	l.ranges = i.Lister()
	l.SetReadyFunc(i.Informer().HasSynced)
}

func (l *limitRangerPlugin) ValidateInitialization() error {
	if l.ranges == nil {
		return errors.New("plugin LimitRanger needs informers")
	}
	return nil
}

func (l *limitRangerPlugin) list(a admission.Attributes) ([]*corev1.LimitRange, error) {
	if !l.WaitForReady() {
		return nil, admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	ranges, err := l.ranges.LimitRanges(a.GetNamespace()).List(labels.Everything())
	if err != nil {
		return nil, admission.NewForbidden(a, fmt.Errorf("list limit ranges: %w", err))
	}
	slices.SortFunc(ranges, func(a, b *corev1.LimitRange) int { return strings.Compare(a.Name, b.Name) })
	return ranges, nil
}

func (l *limitRangerPlugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok || a.GetOperation() != admission.Create {
		return nil // what a pod asks for cannot change later
	}
	ranges, err := l.list(a)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		setDefaults(pod, r)
	}
	return nil
}

func (l *limitRangerPlugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, isPod := podOf(a)
	isPod = isPod && a.GetOperation() == admission.Create
	claim, isClaim := a.GetObject().(*corev1.PersistentVolumeClaim)
	isClaim = isClaim && a.GetSubresource() == ""
	if !isPod && !isClaim {
		return nil
	}
	ranges, err := l.list(a)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range ranges {
		if isPod {
			errs = append(errs, podProblems(pod, r)...)
		} else {
			errs = append(errs, claimProblems(claim, r)...)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return admission.NewForbidden(a, joinProblems(errs))
}

func joinProblems(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	var texts []string
	for _, e := range errs {
		texts = append(texts, e.Error())
	}
	return fmt.Errorf("[%s]", strings.Join(texts, ", "))
}

// setDefaults fills what containers left open, and says so in an annotation.
func setDefaults(pod *corev1.Pod, r *corev1.LimitRange) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for _, item := range r.Spec.Limits {
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		for name, q := range item.DefaultRequest {
			requests[name] = q
		}
		for name, q := range item.Default {
			limits[name] = q
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return
	}
	var said []string
	for _, group := range []struct {
		word string
		list []corev1.Container
	}{{"init container", pod.Spec.InitContainers}, {"container", pod.Spec.Containers}} {
		for i := range group.list {
			c := &group.list[i]
			if set := fill(&c.Resources.Requests, requests); len(set) > 0 {
				said = append(said, fmt.Sprintf("%s request for %s %s", strings.Join(set, ", "), group.word, c.Name))
			}
			if set := fill(&c.Resources.Limits, limits); len(set) > 0 {
				said = append(said, fmt.Sprintf("%s limit for %s %s", strings.Join(set, ", "), group.word, c.Name))
			}
		}
	}
	if len(said) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + strings.Join(said, "; ")
	}
}

func fill(have *corev1.ResourceList, defaults corev1.ResourceList) (set []string) {
	for name, q := range defaults {
		if _, ok := (*have)[name]; ok {
			continue
		}
		if *have == nil {
			*have = corev1.ResourceList{}
		}
		(*have)[name] = q.DeepCopy()
		set = append(set, string(name))
	}
	slices.Sort(set)
	return set
}

func claimProblems(claim *corev1.PersistentVolumeClaim, r *corev1.LimitRange) []error {
	var errs []error
	for _, item := range r.Spec.Limits {
		if item.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		errs = append(errs, bounds(item, claim.Spec.Resources.Requests, claim.Spec.Resources.Requests)...)
	}
	return errs
}

func podProblems(pod *corev1.Pod, r *corev1.LimitRange) []error {
	var errs []error
	for _, item := range r.Spec.Limits {
		switch item.Type {
		case corev1.LimitTypeContainer:
			for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
				for i := range list {
					errs = append(errs, bounds(item, list[i].Resources.Requests, list[i].Resources.Limits)...)
				}
			}
		case corev1.LimitTypePod:
			errs = append(errs, bounds(item,
				podresource.PodRequests(pod, podresource.PodResourcesOptions{}), podresource.PodLimits(pod, podresource.PodResourcesOptions{}))...)
		}
	}
	return errs
}

// bounds compares what is asked for with one item of a limit range.
func bounds(item corev1.LimitRangeItem, requests, limits corev1.ResourceList) []error {
	var errs []error
	for _, name := range sortedNames(item.Min) {
		errs = append(errs, below(item.Type, name, item.Min[name], requests, limits))
	}
	for _, name := range sortedNames(item.Max) {
		errs = append(errs, above(item.Type, name, item.Max[name], requests, limits))
	}
	for _, name := range sortedNames(item.MaxLimitRequestRatio) {
		errs = append(errs, ratio(item.Type, name, item.MaxLimitRequestRatio[name], requests, limits))
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	var out []corev1.ResourceName
	for name := range list {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func below(kind corev1.LimitType, name corev1.ResourceName, least resource.Quantity, requests, limits corev1.ResourceList) error {
	request, ok := requests[name]
	if !ok {
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, kind, least.String())
	}
	if request.Cmp(least) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, kind, least.String(), request.String())
	}
	if limit, ok := limits[name]; ok && limit.Cmp(least) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, kind, least.String(), limit.String())
	}
	return nil
}

func above(kind corev1.LimitType, name corev1.ResourceName, most resource.Quantity, requests, limits corev1.ResourceList) error {
	limit, ok := limits[name]
	if !ok {
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, kind, most.String())
	}
	if limit.Cmp(most) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, kind, most.String(), limit.String())
	}
	if request, ok := requests[name]; ok && request.Cmp(most) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, kind, most.String(), request.String())
	}
	return nil
}

func ratio(kind corev1.LimitType, name corev1.ResourceName, most resource.Quantity, requests, limits corev1.ResourceList) error {
	request, hasRequest := requests[name]
	limit, hasLimit := limits[name]
	if !hasRequest || request.Sign() == 0 {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, kind, most.String())
	}
	if !hasLimit || limit.Sign() == 0 {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, kind, most.String())
	}
	have := limit.AsApproximateFloat64() / request.AsApproximateFloat64()
	if have > most.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, kind, most.String(), have)
	}
	return nil
}
