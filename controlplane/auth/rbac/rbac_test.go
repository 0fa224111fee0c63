package rbac

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/component-helpers/auth/rbac/validation"

	"perch/controlplane/auth/token"
)

func started(t *testing.T, objects ...runtime.Object) *Authorizer {
	t.Helper()
	f := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	a, err := New(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(f); err != nil {
		t.Fatal("a second authorizer on the same informers:", err)
	}
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	return a
}

func defaults() []runtime.Object {
	var out []runtime.Object
	roles := DefaultClusterRoles()
	var pointers []*rbacv1.ClusterRole
	for i := range roles {
		pointers = append(pointers, &roles[i])
	}
	for range 3 { // view into edit into admin
		for _, r := range pointers {
			if r.AggregationRule != nil {
				r.Rules, _ = Sum(r, pointers)
			}
		}
	}
	for _, r := range pointers {
		out = append(out, r)
	}
	for _, b := range DefaultClusterRoleBindings() {
		out = append(out, b.DeepCopy())
	}
	for _, r := range DefaultRoles() {
		out = append(out, r.DeepCopy())
	}
	for _, b := range DefaultRoleBindings() {
		out = append(out, b.DeepCopy())
	}
	return out
}

func someone(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
}

func roleBinding(namespace, name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role},
	}
}

func TestAuthorize(t *testing.T) {
	alice := rbacv1.Subject{Kind: "User", Name: "alice"}
	a := started(t, append(defaults(),
		roleBinding("shop", "alice-edits", "edit", alice),
		roleBinding("shop", "devs-view", "view", rbacv1.Subject{Kind: "Group", Name: "devs"}),
		roleBinding("shop", "cart", "view", rbacv1.Subject{Kind: "ServiceAccount", Name: "cart"}),
		roleBinding("shop", "broken", "no-such-role", alice),
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "one-map"}, Rules: []rbacv1.PolicyRule{{
			Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"settings"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "one-map"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "bob"}},
			RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "one-map"},
		},
	)...)
	resource := func(verb, namespace, group, resource, name string) authorizer.AttributesRecord {
		r := authorizer.AttributesRecord{Verb: verb, Namespace: namespace, APIGroup: group, Name: name, ResourceRequest: true}
		r.Resource, r.Subresource, _ = strings.Cut(resource, "/")
		return r
	}
	url := func(path string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{Verb: "get", Path: path}
	}
	for _, c := range []struct {
		name  string
		who   user.Info
		what  authorizer.AttributesRecord
		allow bool
	}{
		{"an editor creates deployments in her namespace", someone("alice"), resource("create", "shop", "apps", "deployments", ""), true},
		{"she scales them", someone("alice"), resource("patch", "shop", "apps", "deployments/scale", "web"), true},
		{"she reads what viewers read", someone("alice"), resource("get", "shop", "", "pods/log", "web-0"), true},
		{"she does not write roles", someone("alice"), resource("create", "shop", "rbac.authorization.k8s.io", "roles", ""), false},
		{"she has no say in another namespace", someone("alice"), resource("get", "bank", "", "pods", "x"), false},
		{"nor over nodes", someone("alice"), resource("get", "", "", "nodes", "n1"), false},
		{"a viewer by group reads pods", someone("carol", "devs"), resource("list", "shop", "", "pods", ""), true},
		{"a viewer does not read secrets", someone("carol", "devs"), resource("get", "shop", "", "secrets", "db"), false},
		{"a viewer does not exec", someone("carol", "devs"), resource("create", "shop", "", "pods/exec", "web-0"), false},
		{"an account named without namespace means that of the binding", someone("system:serviceaccount:shop:cart"), resource("get", "shop", "", "services", "x"), true},
		{"the same name in another namespace is another account", someone("system:serviceaccount:bank:cart"), resource("get", "shop", "", "services", "x"), false},
		{"a rule with a name holds for that name", someone("bob"), resource("get", "shop", "", "configmaps", "settings"), true},
		{"and for no other", someone("bob"), resource("get", "shop", "", "configmaps", "other"), false},
		{"everybody known may ask what they may do", someone("nobody"), resource("create", "", "authorization.k8s.io", "selfsubjectaccessreviews", ""), true},
		{"and who they are", someone("nobody"), resource("create", "", "authentication.k8s.io", "selfsubjectreviews", ""), true},
		{"discovery is open to all who are known", someone("nobody"), url("/apis/apps/v1"), true},
		{"metrics are not", someone("nobody"), url("/metrics"), false},
		{"a strange user sees only health and version", &user.DefaultInfo{Name: "system:anonymous", Groups: []string{user.AllUnauthenticated}}, url("/version"), true},
		{"but not the list of APIs", &user.DefaultInfo{Name: "system:anonymous", Groups: []string{user.AllUnauthenticated}}, url("/apis"), false},
		{"a joining machine posts a signing request", someone("system:bootstrap:abc123", token.JoinGroup), resource("create", "", "certificates.k8s.io", "certificatesigningrequests", ""), true},
		{"and reads how the cluster is set up", someone("system:bootstrap:abc123", token.JoinGroup), resource("get", "kube-system", "", "configmaps", ClusterConfigMap), true},
		{"and nothing else there", someone("system:bootstrap:abc123", token.JoinGroup), resource("get", "kube-system", "", "secrets", "x"), false},
		{"she writes rules that count lines", someone("alice"), resource("create", "shop", "perch.dev", "logrules", ""), true},
		{"in no other namespace", someone("alice"), resource("create", "bank", "perch.dev", "logrules", ""), false},
		{"a node reads rules that count lines", someone("system:node:n2", "system:nodes"), resource("watch", "", "perch.dev", "logrules", ""), true},
		{"and writes none", someone("system:node:n2", "system:nodes"), resource("update", "shop", "perch.dev", "logrules", "x"), false},
		{"telemetry reads objects of all namespaces", someone(TelemetryUser), resource("list", "", "", "pods", ""), true},
		{"and rules", someone(TelemetryUser), resource("watch", "", "monitoring.coreos.com", "prometheusrules", ""), true},
		{"and reviews tokens", someone(TelemetryUser), resource("create", "", "authentication.k8s.io", "tokenreviews", ""), true},
		{"and opens sessions of one account", someone(TelemetryUser), resource("create", "kube-system", "", "serviceaccounts/token", token.AdminAccount), true},
		{"and of no other", someone(TelemetryUser), resource("create", "kube-system", "", "serviceaccounts/token", "x"), false},
		{"it sees no secrets", someone(TelemetryUser), resource("list", "", "", "secrets", ""), false},
		{"the account behind `perch token` does everything", someone("system:serviceaccount:kube-system:perch-admin"), resource("delete", "", "", "nodes", "n1"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.what.User = c.who
			decision, reason, err := a.Authorize(t.Context(), c.what)
			if err != nil {
				t.Fatal(err)
			}
			if (decision == authorizer.DecisionAllow) != c.allow {
				t.Fatalf("decision %v: %s", decision, reason)
			}
			if c.allow && !strings.HasPrefix(reason, "RBAC: allowed by ") {
				t.Errorf("reason is %q", reason)
			}
		})
	}
}

func TestEscalation(t *testing.T) {
	alice := rbacv1.Subject{Kind: "User", Name: "alice"}
	a := started(t, append(defaults(),
		roleBinding("shop", "alice", "admin", alice),
		roleBinding("shop", "dora", "admin", rbacv1.Subject{Kind: "User", Name: "dora"}),
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "binder"}, Rules: []rbacv1.PolicyRule{{
			Verbs: []string{"bind", "escalate"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "clusterroles"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "binder"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "dora"}},
			RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "binder"},
		},
	)...)
	pods := []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}
	nodes := []rbacv1.PolicyRule{{Verbs: []string{"delete"}, APIGroups: []string{""}, Resources: []string{"nodes"}}}
	role := Target{"roles", "shop", "r"}
	binding := Target{"rolebindings", "shop", "b"}
	admin := rbacv1.RoleRef{Kind: "ClusterRole", Name: "cluster-admin"}
	ctx := context.Background()
	for _, c := range []struct {
		name   string
		got    error
		forbid bool
	}{
		{"an admin puts what she holds into a role", RoleEscalation(ctx, someone("alice"), role, pods, a, a), false},
		{"not what she lacks", RoleEscalation(ctx, someone("alice"), role, nodes, a, a), true},
		{"unless she may escalate", RoleEscalation(ctx, someone("dora"), role, nodes, a, a), false},
		{"system:masters may", RoleEscalation(ctx, someone("root", user.SystemPrivilegedGroup), role, nodes, a, a), false},
		{"an admin hands out what she holds", BindingEscalation(ctx, someone("alice"), binding, admin, pods, a, a), false},
		{"not what she lacks, even by a role of others", BindingEscalation(ctx, someone("alice"), binding, admin, nodes, a, a), true},
		{"unless she may bind", BindingEscalation(ctx, someone("dora"), binding, admin, nodes, a, a), false},
		{"an aggregation needs everything", AggregationEscalation(ctx, someone("alice"), Target{"clusterroles", "", "c"}, a, a), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if (c.got != nil) != c.forbid {
				t.Fatalf("got %v", c.got)
			}
		})
	}
	err := RoleEscalation(ctx, someone("alice"), role, nodes, a, a)
	if !strings.Contains(err.Error(), `user "alice" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:`) ||
		!strings.Contains(err.Error(), `{APIGroups:[""], Resources:["nodes"], Verbs:["delete"]}`) {
		t.Errorf("text is %s", err)
	}
}

func TestDefaultsReconcileTwiceAndKeepAdditions(t *testing.T) {
	client := fake.NewClientset()
	ctx := t.Context()
	if err := Reconcile(ctx, client); err != nil {
		t.Fatal(err)
	}
	basic, err := client.RbacV1().ClusterRoles().Get(ctx, "system:basic-user", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	added := rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"namespaces"}}
	basic.Rules = append(basic.Rules[1:], added) // a user added one and lost one
	if _, err := client.RbacV1().ClusterRoles().Update(ctx, basic, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := Reconcile(ctx, client); err != nil {
		t.Fatal(err)
	}
	basic, err = client.RbacV1().ClusterRoles().Get(ctx, "system:basic-user", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ok, missing := validation.Covers(basic.Rules, append(roleNamed(t, "system:basic-user").Rules, added)); !ok {
		t.Fatalf("missing %v", missing)
	}
	before := len(client.Actions())
	if err := Reconcile(ctx, client); err != nil {
		t.Fatal(err)
	}
	for _, action := range client.Actions()[before:] {
		if action.GetVerb() != "get" {
			t.Errorf("a third reconciliation still does %s %s", action.GetVerb(), action.GetResource().Resource)
		}
	}
}

func roleNamed(t *testing.T, name string) rbacv1.ClusterRole {
	t.Helper()
	for _, r := range DefaultClusterRoles() {
		if r.Name == name {
			return r
		}
	}
	t.Fatal("no default role", name)
	return rbacv1.ClusterRole{}
}

func TestAggregationFollowsLabels(t *testing.T) {
	client := fake.NewClientset()
	ctx, cancel := context.WithCancel(t.Context())
	if err := Reconcile(ctx, client); err != nil {
		t.Fatal(err)
	}
	f := informers.NewSharedInformerFactory(client, 0)
	a := NewAggregation(client, f, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	f.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	own := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets-view", Labels: map[string]string{aggregate + "view": "true"}},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"example.org"}, Resources: []string{"widgets"}}},
	}
	if _, err := client.RbacV1().ClusterRoles().Create(ctx, own, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "admin holds what was labelled for view", func() bool {
		admin, err := client.RbacV1().ClusterRoles().Get(ctx, "admin", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ok, _ := validation.Covers(admin.Rules, append(own.Rules, append(viewRules(), editRules()...)...))
		return ok
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatal("never happened:", what)
		case <-tick.C:
		}
	}
}

func BenchmarkAuthorizeAmongManyBindings(b *testing.B) {
	objects := defaults()
	for i := range 2000 {
		name := "user-" + string(rune('a'+i%26)) + time.Duration(i).String()
		objects = append(objects, roleBinding("shop", name, "view", rbacv1.Subject{Kind: "User", Name: name}))
	}
	f := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	a, err := New(f)
	if err != nil {
		b.Fatal(err)
	}
	f.Start(b.Context().Done())
	f.WaitForCacheSync(b.Context().Done())
	what := authorizer.AttributesRecord{User: someone("user-a0s"), Verb: "get", Namespace: "shop", Resource: "pods", ResourceRequest: true}
	b.ReportAllocs()
	for b.Loop() {
		if d, why, _ := a.Authorize(b.Context(), what); d != authorizer.DecisionAllow {
			b.Fatal(why)
		}
	}
}
