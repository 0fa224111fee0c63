package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/controlplane/auth/node"
)

// nodeRestrictionPlugin keeps a node's writes to itself and its pods.
type nodeRestrictionPlugin struct {
	*admission.Handler
	pods corelisters.PodLister
}

var _ admission.ValidationInterface = (*nodeRestrictionPlugin)(nil)

func newNodeRestriction() *nodeRestrictionPlugin {
	return &nodeRestrictionPlugin{Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete)}
}

func (n *nodeRestrictionPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	i := f.Core().V1().Pods()
	n.pods = i.Lister()
	n.SetReadyFunc(i.Informer().HasSynced)
}

func (n *nodeRestrictionPlugin) ValidateInitialization() error {
	if n.pods == nil {
		return errors.New("plugin NodeRestriction needs informers")
	}
	return nil
}

// Validate has no say about users that are not nodes.
func (n *nodeRestrictionPlugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	name, ok := node.NameOf(a.GetUserInfo())
	if !ok {
		if slices.Contains(a.GetUserInfo().GetGroups(), node.Group) {
			return admission.NewForbidden(a, fmt.Errorf("could not determine node from user %q", a.GetUserInfo().GetName()))
		}
		return nil
	}
	if !n.WaitForReady() {
		return admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	if err := n.check(ctx, a, name); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

func (n *nodeRestrictionPlugin) check(ctx context.Context, a admission.Attributes, name string) error {
	resource := a.GetResource().Resource
	if sub := a.GetSubresource(); sub != "" {
		resource += "/" + sub
	}
	switch a.GetResource().Group {
	case "":
		switch resource {
		case "nodes", "nodes/status":
			return ownNode(a, name)
		case "pods", "pods/status":
			return n.ownPod(a, name)
		case "pods/eviction":
			return n.eviction(a, name)
		case "serviceaccounts/token":
			return n.token(ctx, a, name)
		}
	case coordinationv1.GroupName:
		if a.GetNamespace() != corev1.NamespaceNodeLease {
			return fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		return sameName(a, name)
	case storagev1.GroupName:
		if resource == "csinodes" {
			return sameName(a, name)
		}
	}
	return nil
}

// sameName looks at the object, because a creation by generateName has no name
// in its attributes.
func sameName(a admission.Attributes, name string) error {
	have := a.GetName()
	if object, ok := a.GetObject().(interface{ GetName() string }); ok {
		have = object.GetName()
	}
	if have != name {
		return fmt.Errorf("can only access %s with the same name as the requesting node %q", a.GetResource().Resource, name)
	}
	return nil
}

func ownNode(a admission.Attributes, name string) error {
	if err := sameName(a, name); err != nil {
		return err
	}
	have, ok := a.GetObject().(*corev1.Node)
	if !ok {
		return nil // a deletion
	}
	old, _ := a.GetOldObject().(*corev1.Node)
	if old == nil {
		if have.Spec.ConfigSource != nil {
			return fmt.Errorf("node %q may not bring a configSource", name)
		}
		old = &corev1.Node{Spec: corev1.NodeSpec{Taints: have.Spec.Taints}} // a new node may bring taints
	}
	// A node that could move its taints could pull pods, and their secrets, to itself.
	if !equality.Semantic.DeepEqual(have.Spec.Taints, old.Spec.Taints) {
		return fmt.Errorf("node %q is not allowed to modify taints", name)
	}
	if !equality.Semantic.DeepEqual(have.OwnerReferences, old.OwnerReferences) {
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", name)
	}
	if bad := changedLabels(old.Labels, have.Labels); len(bad) > 0 {
		return fmt.Errorf("node %q is not allowed to modify labels: %s", name, strings.Join(bad, ", "))
	}
	return nil
}

// changedLabels are those that a node changed and must not: labels by which
// others decide what may run there.
func changedLabels(old, have map[string]string) []string {
	var bad []string
	for _, key := range slices.Sorted(maps.Keys(merged(old, have))) {
		before, was := old[key]
		after, is := have[key]
		if was == is && before == after {
			continue
		}
		if forbiddenLabel(key) {
			bad = append(bad, key)
		}
	}
	return bad
}

func merged(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}

func forbiddenLabel(key string) bool {
	prefix, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	within := func(domain string) bool { return prefix == domain || strings.HasSuffix(prefix, "."+domain) }
	if within("node-restriction.kubernetes.io") {
		return true
	}
	if within("kubelet.kubernetes.io") || within("node.kubernetes.io") && key != "node.kubernetes.io/exclude-from-external-load-balancers" {
		return false
	}
	switch key {
	case corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable, corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return false
	}
	return within("kubernetes.io") || within("k8s.io")
}

func (n *nodeRestrictionPlugin) ownPod(a admission.Attributes, name string) error {
	switch a.GetOperation() {
	case admission.Create:
		return fmt.Errorf("node %q may not create pods", name)
	case admission.Delete:
		pod, ok := a.GetOldObject().(*corev1.Pod)
		if !ok {
			have, err := n.pods.Pods(a.GetNamespace()).Get(a.GetName())
			if err != nil {
				return err
			}
			pod = have
		}
		if pod.Spec.NodeName != name {
			return fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", name)
		}
	case admission.Update:
		if a.GetSubresource() != "status" {
			return fmt.Errorf("unexpected operation %q", a.GetOperation())
		}
		old, ok := a.GetOldObject().(*corev1.Pod)
		have, ok2 := a.GetObject().(*corev1.Pod)
		if !ok || !ok2 {
			return fmt.Errorf("unexpected type %T", a.GetObject())
		}
		if old.Spec.NodeName != name {
			return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", name)
		}
		if !equality.Semantic.DeepEqual(old.Labels, have.Labels) {
			return fmt.Errorf("node %q cannot update labels through pod status", name)
		}
	}
	return nil
}

func (n *nodeRestrictionPlugin) eviction(a admission.Attributes, name string) error {
	if _, ok := a.GetObject().(*policyv1.Eviction); !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	pod, err := n.pods.Pods(a.GetNamespace()).Get(a.GetName())
	if err != nil {
		return err
	}
	if pod.Spec.NodeName != name {
		return fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", name)
	}
	return nil
}

// settling is how long a binding may take to reach our informer: the node that
// was told of it asks for the pod's token at once.
const settling = 500 * time.Millisecond

// boundPod returns a pod, waiting up to settling for it to be bound.
func (n *nodeRestrictionPlugin) boundPod(ctx context.Context, namespace, pod string) (*corev1.Pod, error) {
	limit, look := time.NewTimer(settling), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer look.Stop()
	for {
		have, err := n.pods.Pods(namespace).Get(pod)
		if err == nil && have.Spec.NodeName != "" {
			return have, nil
		}
		select {
		case <-ctx.Done():
			return have, cmp.Or(err, ctx.Err())
		case <-limit.C:
			return have, err
		case <-look.C:
		}
	}
}

func (n *nodeRestrictionPlugin) token(ctx context.Context, a admission.Attributes, name string) error {
	request, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	bound := request.Spec.BoundObjectRef
	if bound == nil || bound.APIVersion != "v1" || bound.Kind != "Pod" || bound.Name == "" || bound.UID == "" {
		return errors.New("node requested token not bound to a pod by name and uid")
	}
	pod, err := n.boundPod(ctx, a.GetNamespace(), bound.Name)
	if err != nil {
		return err
	}
	if pod.UID != bound.UID {
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", bound.UID, pod.UID)
	}
	if pod.Spec.NodeName != name {
		return errors.New("node requested token bound to a pod scheduled on a different node")
	}
	return nil
}
