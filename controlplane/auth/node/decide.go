package node

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"perch/controlplane/auth/rbac"
)

const (
	userPrefix = "system:node:"
	// Group holds all nodes.
	Group = "system:nodes"
)

// NameOf is the node that a user is, if it is one.
func NameOf(u user.Info) (string, bool) {
	if u == nil || !slices.Contains(u.GetGroups(), Group) {
		return "", false
	}
	name, ok := strings.CutPrefix(u.GetName(), userPrefix)
	if !ok || name == "" {
		return "", false
	}
	return name, true
}

// Facts is what a decision about references needs to know.
type Facts struct {
	Pods []*corev1.Pod // bound to the node
	// Volume names the PersistentVolume behind a claim, empty if there is none.
	Volume func(namespace, claim string) string
}

// Decision says yes, no with a reason, or "only if one of the node's pods refers
// to it", which is the answer that can still change while informers catch up.
type Decision int

// The answers.
const (
	No Decision = iota
	Yes
	NoReference
)

// Decide answers for one request of the node called name.
func Decide(a authorizer.Attributes, name string, facts Facts) (Decision, string) {
	if !a.IsResourceRequest() {
		return No, ""
	}
	for _, rule := range common() {
		if rbac.Allows(&rule, a) {
			return Yes, "every node may"
		}
	}
	switch resource := full(a); a.GetAPIGroup() {
	case "":
		return decideCore(a, name, resource, facts)
	case "coordination.k8s.io":
		return decideLease(a, name, resource)
	case "storage.k8s.io":
		if resource == "csinodes" && a.GetName() == name && a.GetVerb() != "list" {
			return Yes, "the node's own"
		}
	}
	return No, fmt.Sprintf("nodes may not %s %s", a.GetVerb(), full(a))
}

// common is what every node may do, whatever runs on it. All nodes see all
// nodes, because routes to pods lead over their addresses.
func common() []rbacv1.PolicyRule {
	rule := func(group string, resources string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: strings.Fields(resources), Verbs: verbs}
	}
	read := []string{"get", "list", "watch"}
	return []rbacv1.PolicyRule{
		rule("", "services namespaces nodes endpoints", read...),
		rule("discovery.k8s.io", "endpointslices", read...),
		rule("networking.k8s.io", "networkpolicies", read...),
		rule("node.k8s.io", "runtimeclasses", read...),
		rule("storage.k8s.io", "csidrivers", read...),
		rule("", "nodes", "create"),                       // NodeRestriction: itself only
		rule("", "pods/status", "get", "update", "patch"), // NodeRestriction: its pods only
		rule("", "pods", "delete"),                        // likewise
		rule("", "pods/eviction", "create"),               // likewise
		rule("", "events", "create", "update", "patch"),
		rule("events.k8s.io", "events", "create", "update", "patch"),
		rule("authentication.k8s.io", "tokenreviews", "create"),
		rule("authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews", "create"),
		rule("certificates.k8s.io", "certificatesigningrequests", "create", "get", "list", "watch"),
	}
}

func full(a authorizer.Attributes) string {
	if sub := a.GetSubresource(); sub != "" {
		return a.GetResource() + "/" + sub
	}
	return a.GetResource()
}

func decideCore(a authorizer.Attributes, name, resource string, facts Facts) (Decision, string) {
	verb := a.GetVerb()
	switch resource {
	case "nodes", "nodes/status":
		if (verb == "update" || verb == "patch") && a.GetName() == name {
			return Yes, "the node's own"
		}
		return No, fmt.Sprintf("node %s may write only itself", name)
	case "pods":
		return decidePods(a, name, facts)
	case "secrets", "configmaps", "persistentvolumeclaims", "persistentvolumes":
		if !a.IsReadOnly() {
			return No, fmt.Sprintf("nodes may not %s %s", verb, resource)
		}
		if a.GetName() == "" {
			return No, fmt.Sprintf("nodes may read %s only one by one", resource)
		}
		return decideReference(a, name, resource, facts)
	case "serviceaccounts":
		if verb == "get" {
			return decideReference(a, name, resource, facts)
		}
	case "serviceaccounts/token":
		if verb == "create" {
			return decideReference(a, name, resource, facts)
		}
	}
	return No, fmt.Sprintf("nodes may not %s %s", verb, resource)
}

// decidePods lets a node read one of its pods, or all of them by a selector that
// names it.
func decidePods(a authorizer.Attributes, name string, facts Facts) (Decision, string) {
	if !a.IsReadOnly() {
		return No, fmt.Sprintf("nodes may not %s pods", a.GetVerb())
	}
	selectors, err := a.GetFieldSelector()
	if err == nil {
		for _, s := range selectors {
			if s.Field == "spec.nodeName" && (s.Operator == "=" || s.Operator == "==") && s.Value == name {
				return Yes, "pods of the node"
			}
		}
	}
	if a.GetName() == "" {
		return No, fmt.Sprintf("a node may list pods only with the field selector spec.nodeName=%s", name)
	}
	for _, pod := range facts.Pods {
		if pod.Namespace == a.GetNamespace() && pod.Name == a.GetName() {
			return Yes, "the pod is bound to the node"
		}
	}
	return NoReference, fmt.Sprintf("pod %s/%s is not bound to node %s", a.GetNamespace(), a.GetName(), name)
}

func decideReference(a authorizer.Attributes, name, resource string, facts Facts) (Decision, string) {
	for _, pod := range facts.Pods {
		if resource != "persistentvolumes" && pod.Namespace != a.GetNamespace() {
			continue
		}
		if refers(pod, resource, a.GetName(), facts.Volume) {
			return Yes, fmt.Sprintf("pod %s/%s refers to it", pod.Namespace, pod.Name)
		}
	}
	return NoReference, fmt.Sprintf("no pod on node %s refers to %s %s", name, resource, strings.TrimPrefix(a.GetNamespace()+"/"+a.GetName(), "/"))
}

func decideLease(a authorizer.Attributes, name, resource string) (Decision, string) {
	if resource != "leases" || a.GetNamespace() != corev1.NamespaceNodeLease {
		return No, fmt.Sprintf("nodes may write leases in %s only", corev1.NamespaceNodeLease)
	}
	switch a.GetVerb() {
	case "create":
		return Yes, "the node's lease" // NodeRestriction: its own name only
	case "get", "update", "patch", "delete":
		if a.GetName() == name {
			return Yes, "the node's lease"
		}
	}
	return No, fmt.Sprintf("node %s may use only the lease of its own name", name)
}
