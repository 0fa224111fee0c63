package apiserver

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	"k8s.io/kubectl/pkg/util/qos"

	"perch/controlplane/api/legal"
)

func podBehaviour() behaviour {
	return behaviour{
		create: on(newPod), status: onChange(podStatus), fields: selectable(podFields), index: []string{"spec.nodeName"},
		generation: true, canonical: true, extra: podParts,
		graceful: func(o runtime.Object, options *metav1.DeleteOptions) bool {
			return podGrace(o.(*corev1.Pod), options)
		},
	}
}

func newPod(_ context.Context, p *corev1.Pod) {
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: qos.GetPodQOS(p)}
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
}

// podStatus keeps what the agent may not decide: owners, deletion and QoS.
func podStatus(_ context.Context, p, old *corev1.Pod) {
	p.DeletionTimestamp = nil // set again by the store from the old object
	p.OwnerReferences = old.OwnerReferences
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
}

func podFields(p *corev1.Pod) fields.Set {
	ip := p.Status.PodIP
	if ip == "" && len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName": p.Spec.NodeName, "spec.restartPolicy": string(p.Spec.RestartPolicy), "spec.schedulerName": p.Spec.SchedulerName,
		"spec.serviceAccountName": p.Spec.ServiceAccountName, "spec.hostNetwork": fmt.Sprint(p.Spec.HostNetwork),
		"status.phase": string(p.Status.Phase), "status.podIP": ip, "status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

// podGrace sets how long a pod may take to end: not at all when no agent knows
// of it or nothing runs any more.
func podGrace(p *corev1.Pod, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	var period int64 = corev1.DefaultTerminationGracePeriodSeconds
	switch {
	case options.GracePeriodSeconds != nil:
		period = *options.GracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		period = 0
	}
	if period < 0 {
		period = 1 // a negative period asks for haste, not for force
	}
	options.GracePeriodSeconds = &period
	return true
}

func podParts(i *installer, store *genericregistry.Store, parts map[string]rest.Storage) {
	binding := &bindingREST{store: store, rules: i.rules}
	parts["pods/binding"] = binding
	parts["bindings"] = &legacyBinding{binding}
	parts["pods/eviction"] = &evictionREST{pods: store, stores: i.stores}
	for name, does := range map[string]func(p, old *corev1.Pod){"ephemeralcontainers": onlyEphemeral, "resize": onlyResources} {
		s := partStrategy{strategy: i.strategyOf(store).forPart(name, nil), keep: does}
		part := *store
		part.UpdateStrategy, part.ResetFieldsStrategy = s, s
		parts["pods/"+name] = &partStore{store: &part}
	}
	parts["pods/log"] = &logREST{pods: store, agents: i.agents}
	parts["pods/exec"] = &streamREST{pods: store, agents: i.agents, options: func() runtime.Object { return &corev1.PodExecOptions{} }, target: execTarget}
	parts["pods/attach"] = &streamREST{pods: store, agents: i.agents, options: func() runtime.Object { return &corev1.PodAttachOptions{} }, target: attachTarget}
	parts["pods/portforward"] = &streamREST{pods: store, agents: i.agents, options: func() runtime.Object { return &corev1.PodPortForwardOptions{} }, target: forwardTarget}
	parts["pods/proxy"] = &proxyREST{options: func() runtime.Object { return &corev1.PodProxyOptions{} }, target: podProxyTarget(store)}
}

// partStrategy lets a subresource change one aspect of a pod's spec.
type partStrategy struct {
	strategy
	keep func(p, old *corev1.Pod)
}

// PrepareForUpdate keeps everything else as it was.
func (s partStrategy) PrepareForUpdate(_ context.Context, o, old runtime.Object) {
	p, was := o.(*corev1.Pod), old.(*corev1.Pod)
	s.keep(p, was)
	s.canonicalize(p)
	if !equality.Semantic.DeepEqual(p.Spec, was.Spec) {
		p.Generation = was.Generation + 1
	}
}

func onlyEphemeral(p, old *corev1.Pod) {
	want := p.Spec.EphemeralContainers
	version := p.ResourceVersion
	*p = *old.DeepCopy()
	p.ResourceVersion, p.Spec.EphemeralContainers = version, want
}

func onlyResources(p, old *corev1.Pod) {
	want := p.DeepCopy()
	*p = *old.DeepCopy()
	p.ResourceVersion, p.ManagedFields = want.ResourceVersion, want.ManagedFields
	p.Spec.Resources = want.Spec.Resources
	for _, pair := range [][2][]corev1.Container{{p.Spec.Containers, want.Spec.Containers}, {p.Spec.InitContainers, want.Spec.InitContainers}} {
		for i := range pair[0] {
			for _, w := range pair[1] {
				if w.Name == pair[0][i].Name {
					pair[0][i].Resources, pair[0][i].ResizePolicy = w.Resources, w.ResizePolicy
				}
			}
		}
	}
}

// bindingREST assigns a pod to a node, once.
type bindingREST struct {
	store *genericregistry.Store
	rules *legal.Rules
}

var _ rest.NamedCreater = (*bindingREST)(nil)

// New is an empty Binding.
func (b *bindingREST) New() runtime.Object { return &corev1.Binding{} }

// Destroy leaves the shared storage alone.
func (b *bindingREST) Destroy() {}

// NamespaceScoped is that of pods.
func (b *bindingREST) NamespaceScoped() bool { return true }

// GetSingularName is what a user may type.
func (b *bindingREST) GetSingularName() string { return "binding" }

// Create binds the pod called name.
func (b *bindingREST) Create(ctx context.Context, name string, o runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	want, ok := o.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", o))
	}
	if want.Name != name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := b.rules.Create(ctx, want); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), name, errs)
	}
	if validate != nil {
		if err := validate(ctx, want.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	bind := *b.store
	bind.UpdateStrategy = bindStrategy{b.store.UpdateStrategy.(strategy)}
	update := &metav1.UpdateOptions{DryRun: options.DryRun}
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		p := old.DeepCopyObject().(*corev1.Pod)
		if err := bindPod(p, want); err != nil {
			return nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, name, err)
		}
		return p, nil
	})
	if _, _, err := bind.Update(ctx, name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, update); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// bindPod writes the decision into the pod, or says why it cannot be.
func bindPod(p *corev1.Pod, want *corev1.Binding) error {
	switch {
	case p.ResourceVersion == "":
		return errors.New("the pod does not exist")
	case want.UID != "" && want.UID != p.UID:
		return fmt.Errorf("precondition failed: UID in precondition: %v, UID in object meta: %v", want.UID, p.UID)
	case p.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", p.Name)
	case p.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
	case len(p.Spec.SchedulingGates) > 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", p.Name)
	}
	p.Spec.NodeName = want.Target.Name
	for k, v := range want.Annotations {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[k] = v
	}
	setCondition(p, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, ObservedGeneration: p.Generation, LastTransitionTime: metav1.Now()})
	return nil
}

func setCondition(p *corev1.Pod, c corev1.PodCondition) {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == c.Type {
			p.Status.Conditions[i] = c
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, c)
}

// bindStrategy writes spec and status in one step; bindPod already decided.
type bindStrategy struct{ strategy }

// PrepareForUpdate keeps what bindPod made.
func (bindStrategy) PrepareForUpdate(context.Context, runtime.Object, runtime.Object) {}

// ValidateUpdate has nothing to add.
func (bindStrategy) ValidateUpdate(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return nil
}

// WarningsOnUpdate has nothing to say.
func (bindStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// legacyBinding is the collection /bindings, where the name is in the object.
type legacyBinding struct{ *bindingREST }

var _ rest.Creater = (*legacyBinding)(nil)

// Create binds the pod that the object names.
func (b *legacyBinding) Create(ctx context.Context, o runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	want, ok := o.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", o))
	}
	if genericapirequest.NamespaceValue(ctx) != want.Namespace {
		want.Namespace = genericapirequest.NamespaceValue(ctx)
	}
	return b.bindingREST.Create(ctx, want.Name, want, validate, options)
}

// dry tells whether nothing may be stored.
func dry(options *metav1.DeleteOptions) bool {
	return options != nil && dryrun.IsDryRun(options.DryRun)
}
