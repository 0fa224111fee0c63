package rbac

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// Target is the role or the binding somebody wants to write.
type Target struct {
	Resource  string // roles, clusterroles, rolebindings, clusterrolebindings
	Namespace string // empty for cluster-wide ones
	Name      string
}

// RoleEscalation answers an error when the user would put rules into a role that
// they do not hold themselves. The verb "escalate" on the role permits it, and
// so does membership in system:masters. The text is what follows "is forbidden:".
func RoleEscalation(ctx context.Context, u user.Info, t Target, rules []rbacv1.PolicyRule, a authorizer.Authorizer, resolver authorizer.RuleResolver) error {
	if privileged(u) || len(rules) == 0 {
		return nil
	}
	ok, err := may(ctx, u, "escalate", t.Resource, t.Namespace, t.Name, a)
	if ok || err != nil {
		return err
	}
	return covered(ctx, u, t.Namespace, rules, resolver)
}

// AggregationEscalation is RoleEscalation for a ClusterRole that collects the
// rules of others: nobody can say what it will hold, so that everything is asked for.
func AggregationEscalation(ctx context.Context, u user.Info, t Target, a authorizer.Authorizer, resolver authorizer.RuleResolver) error {
	all := []rbacv1.PolicyRule{
		{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
		{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
	}
	if err := RoleEscalation(ctx, u, t, all, a, resolver); err != nil {
		return fmt.Errorf("must have cluster-admin privileges to use an aggregationRule: %w", err)
	}
	return nil
}

// BindingEscalation answers an error when the user would hand out a role with
// rules that they do not hold themselves. The verb "bind" on the role permits
// it. rules are those of the role; an empty list is always permitted.
func BindingEscalation(ctx context.Context, u user.Info, t Target, ref rbacv1.RoleRef, rules []rbacv1.PolicyRule, a authorizer.Authorizer, resolver authorizer.RuleResolver) error {
	if privileged(u) {
		return nil
	}
	if ok, err := MayBind(ctx, u, t, ref, a); ok || err != nil {
		return err
	}
	return covered(ctx, u, t.Namespace, rules, resolver)
}

// MayBind asks for the verb "bind" on the role that a binding refers to; it holds
// for roles that do not exist yet, too.
func MayBind(ctx context.Context, u user.Info, t Target, ref rbacv1.RoleRef, a authorizer.Authorizer) (bool, error) {
	if privileged(u) {
		return true, nil
	}
	resource := "clusterroles"
	if ref.Kind == "Role" {
		resource = "roles"
	}
	return may(ctx, u, "bind", resource, t.Namespace, ref.Name, a)
}

func privileged(u user.Info) bool {
	return slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

func may(ctx context.Context, u user.Info, verb, resource, namespace, name string, a authorizer.Authorizer) (bool, error) {
	decision, _, err := a.Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: verb, Namespace: namespace, APIGroup: rbacv1.GroupName, APIVersion: "v1", Resource: resource, Name: name, ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow, err
}

// covered compares what is given away with what the giver holds.
func covered(ctx context.Context, u user.Info, namespace string, rules []rbacv1.PolicyRule, resolver authorizer.RuleResolver) error {
	resources, urls, _, resolveErr := resolver.RulesFor(ctx, u, namespace)
	ok, missing := validation.Covers(policyRules(resources, urls), rules)
	if ok {
		return nil
	}
	lines := make([]string, 0, len(missing))
	for _, rule := range missing {
		lines = append(lines, compact(rule))
	}
	sort.Strings(lines)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.GetName(), u.GetGroups(), strings.Join(lines, "\n"))
	if resolveErr != nil {
		text += fmt.Sprintf("; resolution errors: %v", resolveErr)
	}
	return fmt.Errorf("%s", text)
}

func policyRules(resources []authorizer.ResourceRuleInfo, urls []authorizer.NonResourceRuleInfo) []rbacv1.PolicyRule {
	out := make([]rbacv1.PolicyRule, 0, len(resources)+len(urls))
	for _, r := range resources {
		out = append(out, rbacv1.PolicyRule{Verbs: r.GetVerbs(), APIGroups: r.GetAPIGroups(), Resources: r.GetResources(), ResourceNames: r.GetResourceNames()})
	}
	for _, r := range urls {
		out = append(out, rbacv1.PolicyRule{Verbs: r.GetVerbs(), NonResourceURLs: r.GetNonResourceURLs()})
	}
	return out
}

// compact writes a rule without its empty parts.
func compact(rule rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		name string
		list []string
	}{
		{"APIGroups", rule.APIGroups}, {"Resources", rule.Resources}, {"NonResourceURLs", rule.NonResourceURLs},
		{"ResourceNames", rule.ResourceNames}, {"Verbs", rule.Verbs},
	} {
		if len(p.list) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.list))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
