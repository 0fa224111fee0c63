package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"perch/controlplane/auth/token"
)

const (
	groupNodes = "system:nodes"
	aggregate  = "rbac.authorization.k8s.io/aggregate-to-"
	// ClusterConfigMap in kube-system tells nodes how the cluster is set up.
	ClusterConfigMap = "perch-cluster"
	// TelemetryUser is the common name of the telemetry role's client certificate.
	TelemetryUser = "system:perch:telemetry"
)

// verbs that come together.
type verbs []string

func read() verbs      { return verbs{"get", "list", "watch"} }
func write() verbs     { return verbs{"create", "update", "patch", "delete", "deletecollection"} }
func readWrite() verbs { return append(read(), write()...) }
func all() verbs       { return verbs{"*"} }

func on(v verbs, group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: v, APIGroups: []string{group}, Resources: resources}
}

func named(r rbacv1.PolicyRule, names ...string) rbacv1.PolicyRule {
	r.ResourceNames = names
	return r
}

func urls(paths ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: paths}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) rbacv1.ClusterRole {
	return rbacv1.ClusterRole{ObjectMeta: bootstrapMeta("", name), Rules: rules}
}

// collected is a ClusterRole made of all those that are labelled for it.
func collected(name string, labels ...string) rbacv1.ClusterRole {
	r := clusterRole(name)
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{aggregate + name: "true"}},
	}}
	for _, l := range labels {
		r.Labels[aggregate+l] = "true"
	}
	return r
}

// part is a ClusterRole that goes into the collected role called name.
func part(name string, rules ...rbacv1.PolicyRule) rbacv1.ClusterRole {
	r := clusterRole("system:aggregate-to-"+name, rules...)
	r.Labels[aggregate+name] = "true"
	return r
}

func bootstrapMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels: map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		// Additions of users stay; what is missing comes back at each start.
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
}

// DefaultClusterRoles are the roles every cluster has, by Kubernetes' names, so
// that charts and habits find them.
func DefaultClusterRoles() []rbacv1.ClusterRole {
	roles := []rbacv1.ClusterRole{
		clusterRole("cluster-admin",
			on(all(), "*", "*"), rbacv1.PolicyRule{Verbs: all(), NonResourceURLs: all()}),
		collected("admin"), collected("edit", "admin"), collected("view", "edit"),
		part("admin", adminRules()...), part("edit", editRules()...), part("view", viewRules()...),

		clusterRole("system:discovery",
			urls("/livez", "/readyz", "/healthz", "/version", "/version/", "/openapi", "/openapi/*", "/api", "/api/*", "/apis", "/apis/*")),
		clusterRole("system:basic-user",
			on(verbs{"create"}, "authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
			on(verbs{"create"}, "authentication.k8s.io", "selfsubjectreviews")),
		clusterRole("system:public-info-viewer",
			urls("/livez", "/readyz", "/healthz", "/version", "/version/")),
		clusterRole("system:monitoring",
			urls("/livez", "/livez/*", "/readyz", "/readyz/*", "/healthz", "/healthz/*", "/metrics", "/metrics/slis")),
		clusterRole("system:service-account-issuer-discovery",
			urls(token.ConfigurationPath, token.KeysPath)),
		clusterRole("system:auth-delegator",
			on(verbs{"create"}, "authentication.k8s.io", "tokenreviews"),
			on(verbs{"create"}, "authorization.k8s.io", "subjectaccessreviews")),
		clusterRole("system:kubelet-api-admin",
			on(read(), "", "nodes"), on(verbs{"proxy"}, "", "nodes"),
			on(all(), "", "nodes/configz", "nodes/healthz", "nodes/log", "nodes/metrics", "nodes/pods", "nodes/proxy", "nodes/stats")),
		clusterRole("system:node-bootstrapper",
			on(verbs{"create", "get", "list", "watch"}, "certificates.k8s.io", "certificatesigningrequests")),
		clusterRole("system:persistent-volume-provisioner",
			on(verbs{"get", "list", "watch", "create", "delete"}, "", "persistentvolumes"),
			on(verbs{"get", "list", "watch", "update"}, "", "persistentvolumeclaims"),
			on(read(), "storage.k8s.io", "storageclasses"),
			on(verbs{"get", "list", "watch", "create", "update", "patch"}, "", "events"),
			on(verbs{"create", "update", "patch"}, "events.k8s.io", "events")),
		clusterRole("system:metrics-reader",
			on(read(), "metrics.k8s.io", "pods", "nodes"), on(verbs{"get"}, "", "nodes/metrics"), urls("/metrics")),
		// Nobody is bound to system:node: the node authorizer is narrower. Charts
		// and tools expect the role to exist.
		clusterRole("system:node"),
		clusterRole(TelemetryUser, telemetryRules()...),
		clusterRole("perch:node", on(read(), "perch.dev", "logrules")), // each node counts its lines
		clusterRole("system:kube-scheduler",
			on(read(), "", "nodes", "namespaces", "pods", "persistentvolumeclaims", "persistentvolumes", "services", "replicationcontrollers"),
			on(verbs{"create"}, "", "bindings", "pods/binding"), on(verbs{"delete"}, "", "pods"),
			on(verbs{"patch", "update"}, "", "pods/status"),
			on(read(), "apps", "replicasets", "statefulsets"), on(read(), "policy", "poddisruptionbudgets"),
			on(read(), "storage.k8s.io", "storageclasses", "csinodes", "csidrivers", "csistoragecapacities"),
			on(verbs{"create", "patch", "update"}, "", "events"), on(verbs{"create", "patch", "update"}, "events.k8s.io", "events"),
			on(verbs{"create", "get", "list", "watch", "update"}, "coordination.k8s.io", "leases")),
	}
	return roles
}

// telemetryRules let the telemetry role of a server describe all objects in
// numbers (never the content of secrets), find what to scrape and which rules to
// evaluate, and review the callers of its door.
func telemetryRules() []rbacv1.PolicyRule {
	return append(viewRules(),
		on(read(), "", "nodes", "persistentvolumes", "podtemplates"),
		on(verbs{"get", "proxy"}, "", "nodes/metrics", "nodes/stats", "nodes/proxy", "nodes/log", "nodes/pods"),
		on(verbs{"create"}, "", "nodes/log"), // log queries are sent as POST
		on(read(), "storage.k8s.io", "*"),
		on(read(), "scheduling.k8s.io", "*"),
		on(read(), "node.k8s.io", "*"),
		on(read(), "coordination.k8s.io", "leases"),
		on(read(), "certificates.k8s.io", "certificatesigningrequests"),
		on(read(), "admissionregistration.k8s.io", "*"),
		on(read(), "apiextensions.k8s.io", "customresourcedefinitions"),
		on(read(), "monitoring.coreos.com", "*"),
		on(verbs{"create", "update", "patch"}, "", "events"),
		on(verbs{"create", "update", "patch"}, "events.k8s.io", "events"),
		on(verbs{"create"}, "authentication.k8s.io", "tokenreviews"),
		on(verbs{"create"}, "authorization.k8s.io", "subjectaccessreviews"),
		urls("/metrics", "/metrics/*"),
	)
}

func viewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on(read(), "", "configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods",
			"replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services", "services/status",
			"bindings", "events", "limitranges", "namespaces", "namespaces/status", "pods/log", "pods/status",
			"replicationcontrollers/status", "resourcequotas", "resourcequotas/status"),
		on(read(), "discovery.k8s.io", "endpointslices"),
		on(read(), "events.k8s.io", "events"),
		on(read(), "apps", "controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale", "deployments/status",
			"replicasets", "replicasets/scale", "replicasets/status", "statefulsets", "statefulsets/scale", "statefulsets/status"),
		on(read(), "autoscaling", "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
		on(read(), "batch", "cronjobs", "cronjobs/status", "jobs", "jobs/status"),
		on(read(), "policy", "poddisruptionbudgets", "poddisruptionbudgets/status"),
		on(read(), "networking.k8s.io", "ingresses", "ingresses/status", "networkpolicies"),
		on(read(), "metrics.k8s.io", "pods", "nodes"),
		on(read(), "custom.metrics.k8s.io", "*"),
		on(read(), "monitoring.coreos.com", "prometheusrules", "servicemonitors", "podmonitors", "probes", "scrapeconfigs", "alertmanagerconfigs"),
		on(read(), "perch.dev", "metricqueries", "logrules"),
	}
}

func editRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		// Who may see secrets may act as any account of the namespace.
		on(read(), "", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"),
		on(verbs{"impersonate"}, "", "serviceaccounts"),
		on(verbs{"create"}, "", "serviceaccounts/token", "pods/eviction"),
		on(write(), "", "pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "configmaps", "events", "persistentvolumeclaims",
			"replicationcontrollers", "replicationcontrollers/scale", "secrets", "serviceaccounts", "services", "services/proxy", "podtemplates"),
		on(read(), "", "podtemplates"),
		on(verbs{"get", "list", "watch", "update", "patch"}, "", "pods/resize", "pods/ephemeralcontainers"),
		on(write(), "apps", "daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets", "replicasets/scale",
			"statefulsets", "statefulsets/scale"),
		on(write(), "autoscaling", "horizontalpodautoscalers"),
		on(write(), "batch", "cronjobs", "jobs"),
		on(write(), "policy", "poddisruptionbudgets"),
		on(write(), "networking.k8s.io", "ingresses", "networkpolicies"),
		on(readWrite(), "coordination.k8s.io", "leases"),
		on(write(), "monitoring.coreos.com", "prometheusrules", "servicemonitors", "podmonitors", "probes", "scrapeconfigs", "alertmanagerconfigs"),
		on(write(), "perch.dev", "metricqueries", "logrules"),
	}
}

func adminRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on(verbs{"create"}, "authorization.k8s.io", "localsubjectaccessreviews"),
		on(readWrite(), "rbac.authorization.k8s.io", "roles", "rolebindings"),
	}
}

// DefaultRoles are those inside a namespace.
func DefaultRoles() []rbacv1.Role {
	return []rbacv1.Role{
		{ObjectMeta: bootstrapMeta(metav1.NamespaceSystem, "perch:cluster-info"), Rules: []rbacv1.PolicyRule{
			named(on(read(), "", "configmaps"), ClusterConfigMap),
		}},
		// The page's one-time link opens a session of this account.
		{ObjectMeta: bootstrapMeta(metav1.NamespaceSystem, "perch:session"), Rules: []rbacv1.PolicyRule{
			named(on(verbs{"create"}, "", "serviceaccounts/token"), token.AdminAccount),
		}},
	}
}

// DefaultClusterRoleBindings say who has the default roles.
func DefaultClusterRoleBindings() []rbacv1.ClusterRoleBinding {
	bind := func(name, role string, subjects ...rbacv1.Subject) rbacv1.ClusterRoleBinding {
		return rbacv1.ClusterRoleBinding{
			ObjectMeta: bootstrapMeta("", name), Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		}
	}
	return []rbacv1.ClusterRoleBinding{
		bind("cluster-admin", "cluster-admin", group(user.SystemPrivilegedGroup)),
		bind("perch:admin", "cluster-admin", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: token.AdminAccount}),
		bind("system:discovery", "system:discovery", group(user.AllAuthenticated)),
		bind("system:basic-user", "system:basic-user", group(user.AllAuthenticated)),
		bind("system:public-info-viewer", "system:public-info-viewer", group(user.AllAuthenticated), group(user.AllUnauthenticated)),
		bind("system:monitoring", "system:monitoring", group("system:monitoring")),
		bind("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", group("system:serviceaccounts")),
		bind("system:kube-scheduler", "system:kube-scheduler", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:kube-scheduler"}),
		bind(TelemetryUser, TelemetryUser, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: TelemetryUser}),
		bind("perch:node", "perch:node", group(groupNodes)),
		bind("perch:node-bootstrapper", "system:node-bootstrapper", group(token.JoinGroup)),
	}
}

// DefaultRoleBindings are those inside a namespace.
func DefaultRoleBindings() []rbacv1.RoleBinding {
	bind := func(name string, subjects ...rbacv1.Subject) rbacv1.RoleBinding {
		return rbacv1.RoleBinding{
			ObjectMeta: bootstrapMeta(metav1.NamespaceSystem, name), Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		}
	}
	return []rbacv1.RoleBinding{
		bind("perch:cluster-info", group(groupNodes), group(token.JoinGroup)),
		bind("perch:session", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: TelemetryUser}),
	}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}
