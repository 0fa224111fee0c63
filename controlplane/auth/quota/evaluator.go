package quota

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
)

// Lister lists the objects of a resource in a namespace, for counting. Admission
// never lists and hands in nil.
type Lister func(schema.GroupVersionResource) generic.ListFuncByNamespace

// counted are the kinds of which a quota may limit only the number. The alias is
// the name they had before "count/…".
func counted() map[schema.GroupVersionResource]corev1.ResourceName {
	gvr := func(group, version, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
	}
	return map[schema.GroupVersionResource]corev1.ResourceName{
		gvr("", "v1", "configmaps"):                            corev1.ResourceConfigMaps,
		gvr("", "v1", "resourcequotas"):                        corev1.ResourceQuotas,
		gvr("", "v1", "replicationcontrollers"):                corev1.ResourceReplicationControllers,
		gvr("", "v1", "secrets"):                               corev1.ResourceSecrets,
		gvr("", "v1", "serviceaccounts"):                       "",
		gvr("apps", "v1", "deployments"):                       "",
		gvr("apps", "v1", "replicasets"):                       "",
		gvr("apps", "v1", "statefulsets"):                      "",
		gvr("apps", "v1", "daemonsets"):                        "",
		gvr("batch", "v1", "jobs"):                             "",
		gvr("batch", "v1", "cronjobs"):                         "",
		gvr("autoscaling", "v2", "horizontalpodautoscalers"):   "",
		gvr("networking.k8s.io", "v1", "ingresses"):            "",
		gvr("networking.k8s.io", "v1", "networkpolicies"):      "",
		gvr("policy", "v1", "poddisruptionbudgets"):            "",
		gvr("rbac.authorization.k8s.io", "v1", "roles"):        "",
		gvr("rbac.authorization.k8s.io", "v1", "rolebindings"): "",
	}
}

// Configuration is what quotas can limit, as the library's plugin wants it.
func Configuration(list Lister) quota.Configuration {
	if list == nil {
		list = func(schema.GroupVersionResource) generic.ListFuncByNamespace { return nil }
	}
	core := corev1.SchemeGroupVersion
	evaluators := []quota.Evaluator{
		&evaluator{resource: corev1.Resource("pods"), list: list(core.WithResource("pods")), kind: podKind{}},
		&evaluator{resource: corev1.Resource("services"), list: list(core.WithResource("services")), kind: serviceKind{}},
		&evaluator{resource: corev1.Resource("persistentvolumeclaims"), list: list(core.WithResource("persistentvolumeclaims")), kind: claimKind{}},
	}
	for gvr, alias := range counted() {
		evaluators = append(evaluators, generic.NewObjectCountEvaluator(gvr.GroupResource(), list(gvr), alias))
	}
	return generic.NewConfiguration(evaluators, map[schema.GroupResource]struct{}{
		{Resource: "events"}:                                                   {},
		{Group: "events.k8s.io", Resource: "events"}:                           {},
		{Resource: "bindings"}:                                                 {},
		{Group: "coordination.k8s.io", Resource: "leases"}:                     {},
		{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"}: {},
	})
}

// kind is what differs between the things that cost more than their number.
type kind interface {
	// names filters a quota's resources down to those the kind knows.
	names(input []corev1.ResourceName) []corev1.ResourceName
	// usage is what one object costs; zero when it has ended.
	usage(object runtime.Object) (corev1.ResourceList, error)
	// lacks are the resources that a quota tracks and the object does not state.
	lacks(required []corev1.ResourceName, object runtime.Object) []corev1.ResourceName
	// inScope reports whether an object falls into a quota's scope.
	inScope(scope corev1.ScopedResourceSelectorRequirement, object runtime.Object) (bool, error)
	// handles reports whether a write can change the usage.
	handles(a admission.Attributes) bool
}

// evaluator makes a quota.Evaluator of a kind.
type evaluator struct {
	resource schema.GroupResource
	list     generic.ListFuncByNamespace
	kind     kind
}

var _ quota.Evaluator = (*evaluator)(nil)

func (e *evaluator) Constraints(required []corev1.ResourceName, item runtime.Object) error {
	if missing := e.kind.lacks(required, item); len(missing) > 0 {
		return fmt.Errorf("must specify %s", joinNames(missing))
	}
	return nil
}

func (e *evaluator) GroupResource() schema.GroupResource { return e.resource }

func (e *evaluator) Handles(a admission.Attributes) bool { return e.kind.handles(a) }

func (e *evaluator) Matches(q *corev1.ResourceQuota, item runtime.Object) (bool, error) {
	return generic.Matches(q, item, e.MatchingResources, e.kind.inScope)
}

func (e *evaluator) MatchingResources(input []corev1.ResourceName) []corev1.ResourceName {
	return e.kind.names(input)
}

func (e *evaluator) MatchingScopes(item runtime.Object, scopes []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	var out []corev1.ScopedResourceSelectorRequirement
	for _, s := range scopes {
		ok, err := e.kind.inScope(s, item)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func (e *evaluator) UncoveredQuotaScopes(limited, matched []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	return slices.DeleteFunc(slices.Clone(limited), func(l corev1.ScopedResourceSelectorRequirement) bool {
		return slices.ContainsFunc(matched, func(m corev1.ScopedResourceSelectorRequirement) bool {
			return m.ScopeName == l.ScopeName && (m.Operator == corev1.ScopeSelectorOpExists || slices.Equal(m.Values, l.Values))
		})
	}), nil
}

func (e *evaluator) Usage(item runtime.Object) (corev1.ResourceList, error) {
	return e.kind.usage(item)
}

func (e *evaluator) UsageStats(options quota.UsageStatsOptions) (quota.UsageStats, error) {
	return generic.CalculateUsageStats(options, e.list, e.kind.inScope, e.Usage)
}

func joinNames(names []corev1.ResourceName) string {
	text := ""
	for i, n := range names {
		if i > 0 {
			text += ","
		}
		text += string(n)
	}
	return text
}

func one() resource.Quantity { return *resource.NewQuantity(1, resource.DecimalSI) }
