package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
)

// systemClasses are the two classes every cluster has.
func systemClasses() []schedulingv1.PriorityClass {
	return []schedulingv1.PriorityClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "system-node-critical"}, Value: 2000001000,
			Description: "Used for system critical pods that must not be moved from their current node."},
		{ObjectMeta: metav1.ObjectMeta{Name: "system-cluster-critical"}, Value: 2000000000,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."},
	}
}

// EnsurePriorityClasses creates the system classes that are missing.
func EnsurePriorityClasses(ctx context.Context, client kubernetes.Interface) error {
	var errs error
	for _, class := range systemClasses() {
		_, err := client.SchedulingV1().PriorityClasses().Create(ctx, &class, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			errs = errors.Join(errs, fmt.Errorf("create priority class %s: %w", class.Name, err))
		}
	}
	return errs
}

// priorityPlugin turns the name of a class into a pod's number.
type priorityPlugin struct {
	*admission.Handler
	classes schedulinglisters.PriorityClassLister
}

var _ admission.MutationInterface = (*priorityPlugin)(nil)
var _ admission.ValidationInterface = (*priorityPlugin)(nil)

func newPriority() *priorityPlugin {
	return &priorityPlugin{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

func (p *priorityPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	i := f.Scheduling().V1().PriorityClasses()
	p.classes = i.Lister()
	p.SetReadyFunc(i.Informer().HasSynced)
}

func (p *priorityPlugin) ValidateInitialization() error {
	if p.classes == nil {
		return errors.New("plugin Priority needs informers")
	}
	return nil
}

func (p *priorityPlugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok {
		return nil
	}
	if !p.WaitForReady() {
		return admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	if a.GetOperation() == admission.Update {
		// Clients that read a pod before these fields existed would clear them.
		if old, ok := a.GetOldObject().(*corev1.Pod); ok {
			if pod.Spec.Priority == nil {
				pod.Spec.Priority = old.Spec.Priority
			}
			if pod.Spec.PreemptionPolicy == nil {
				pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
			}
		}
		return nil
	}
	class, err := p.class(pod.Spec.PriorityClassName)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	policy := corev1.PreemptLowerPriority
	var value int32
	if class != nil {
		pod.Spec.PriorityClassName, value = class.Name, class.Value
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if have := pod.Spec.Priority; have != nil && *have != value {
		return admission.NewForbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *have, value))
	}
	if have := pod.Spec.PreemptionPolicy; have != nil && *have != policy {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *have, policy))
	}
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}

// class answers nil when the pod named none and there is no default.
func (p *priorityPlugin) class(name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		return p.defaultClass()
	}
	class, err := p.classes.Get(name)
	if err == nil {
		return class, nil
	}
	for _, system := range systemClasses() {
		if system.Name == name { // it is created while the server starts
			return &system, nil
		}
	}
	return nil, fmt.Errorf("no PriorityClass with name %s was found", name)
}

// defaultClass is the lowest of those marked as default, should there be several.
func (p *priorityPlugin) defaultClass() (*schedulingv1.PriorityClass, error) {
	classes, err := p.classes.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list priority classes: %w", err)
	}
	var found *schedulingv1.PriorityClass
	for _, c := range classes {
		if c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
	}
	return found, nil
}

// Validate keeps a second class from becoming the default.
func (p *priorityPlugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	class, ok := a.GetObject().(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault {
		return nil
	}
	if !p.WaitForReady() {
		return admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	have, err := p.defaultClass()
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if have != nil && have.Name != class.Name {
		return admission.NewForbidden(a, fmt.Errorf("PriorityClass %s is already marked as default. Only one default can exist", have.Name))
	}
	return nil
}
