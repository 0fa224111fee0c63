package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Allows decides whether one rule permits a request.
func Allows(rule *rbacv1.PolicyRule, a authorizer.Attributes) bool {
	if !hasOrAll(rule.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool { return urlMatches(url, a.GetPath()) })
	}
	return hasOrAll(rule.APIGroups, a.GetAPIGroup()) &&
		resourceMatches(rule.Resources, a.GetResource(), a.GetSubresource()) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, a.GetName()))
}

func hasOrAll(list []string, v string) bool {
	return slices.Contains(list, v) || slices.Contains(list, "*")
}

func resourceMatches(list []string, resource, subresource string) bool {
	if subresource == "" {
		return hasOrAll(list, resource)
	}
	return hasOrAll(list, resource+"/"+subresource) || slices.Contains(list, "*/"+subresource)
}

func urlMatches(url, path string) bool {
	if prefix, ok := strings.CutSuffix(url, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return url == path
}

// subjectsOf names everything under which a binding may mean this user.
func subjectsOf(u user.Info) []string {
	out := []string{rbacv1.UserKind + ":" + u.GetName()}
	for _, g := range u.GetGroups() {
		out = append(out, rbacv1.GroupKind+":"+g)
	}
	return out
}

// indexKeys names the subjects of a binding the same way. A ServiceAccount is
// named by its user, since that is how it arrives.
func indexKeys(subjects []rbacv1.Subject, namespace string) []string {
	var out []string
	for _, s := range subjects {
		var key string
		switch s.Kind {
		case rbacv1.UserKind, rbacv1.GroupKind:
			key = s.Kind + ":" + s.Name
		case rbacv1.ServiceAccountKind:
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			if ns == "" {
				continue
			}
			key = rbacv1.UserKind + ":" + serviceaccount.MakeUsername(ns, s.Name)
		default:
			continue
		}
		if !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}
