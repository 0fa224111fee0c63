package rbac

import (
	"context"
	"errors"
	"fmt"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	clusterIndex   = "perch/rbac/subject"           // ClusterRoleBindings: "User:alice"
	namespaceIndex = "perch/rbac/namespace-subject" // RoleBindings: "shop|Group:devs"
)

// Authorizer decides by roles and bindings. It also lists a user's rules.
type Authorizer struct {
	roles           rbaclisters.RoleLister
	clusterRoles    rbaclisters.ClusterRoleLister
	bindings        cache.Indexer
	clusterBindings cache.Indexer
}

var (
	_ authorizer.Authorizer   = (*Authorizer)(nil)
	_ authorizer.RuleResolver = (*Authorizer)(nil)
)

// New adds its indexes to the informers. It may be called several times with the
// same informers.
func New(f informers.SharedInformerFactory) (*Authorizer, error) {
	r := f.Rbac().V1()
	bindings, clusterBindings := r.RoleBindings().Informer(), r.ClusterRoleBindings().Informer()
	err := errors.Join(
		index(clusterBindings, clusterIndex, func(object any) ([]string, error) {
			b, ok := object.(*rbacv1.ClusterRoleBinding)
			if !ok {
				return nil, nil
			}
			return indexKeys(b.Subjects, ""), nil
		}),
		index(bindings, namespaceIndex, func(object any) ([]string, error) {
			b, ok := object.(*rbacv1.RoleBinding)
			if !ok {
				return nil, nil
			}
			keys := indexKeys(b.Subjects, b.Namespace)
			for i := range keys {
				keys[i] = b.Namespace + "|" + keys[i]
			}
			return keys, nil
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("index bindings by subject: %w", err)
	}
	return &Authorizer{
		roles: r.Roles().Lister(), clusterRoles: r.ClusterRoles().Lister(),
		bindings: bindings.GetIndexer(), clusterBindings: clusterBindings.GetIndexer(),
	}, nil
}

func index(informer cache.SharedIndexInformer, name string, fn cache.IndexFunc) error {
	if _, ok := informer.GetIndexer().GetIndexers()[name]; ok {
		return nil
	}
	return informer.AddIndexers(cache.Indexers{name: fn})
}

// Authorize allows what a rule of the user permits, and has no opinion about the
// rest.
func (r *Authorizer) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	var why string
	err := r.visit(a.GetUser(), a.GetNamespace(), func(rule *rbacv1.PolicyRule, from source) bool {
		if !Allows(rule, a) {
			return true
		}
		why = from.String()
		return false
	})
	if why != "" {
		return authorizer.DecisionAllow, why, nil
	}
	reason := ""
	if err != nil {
		// A binding may point to a role that does not exist; others still count.
		reason = fmt.Sprintf("RBAC: %v", err)
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// RulesFor lists what a user may do in a namespace, cluster-wide rules included.
func (r *Authorizer) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	var resources []authorizer.ResourceRuleInfo
	var urls []authorizer.NonResourceRuleInfo
	err := r.visit(u, namespace, func(rule *rbacv1.PolicyRule, _ source) bool {
		if len(rule.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			urls = append(urls, &authorizer.DefaultNonResourceRuleInfo{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
		return true
	})
	return resources, urls, false, err
}

// source is the binding that a rule came by.
type source struct {
	kind, namespace, name string
	role                  rbacv1.RoleRef
	subject               string
}

func (s source) String() string {
	name := s.name
	if s.namespace != "" {
		name += "/" + s.namespace
	}
	kind, subject, _ := strings.Cut(s.subject, ":")
	return fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s %q", s.kind, name, s.role.Kind, s.role.Name, kind, subject)
}

// visit shows every rule of the user until fn answers false. The error joins the
// roles that could not be found; the others were shown.
func (r *Authorizer) visit(u user.Info, namespace string, fn func(*rbacv1.PolicyRule, source) bool) error {
	if u == nil {
		return nil
	}
	var errs error
	subjects := subjectsOf(u)
	for _, s := range subjects {
		found, err := r.clusterBindings.ByIndex(clusterIndex, s)
		if err != nil {
			return err
		}
		for _, object := range found {
			b := object.(*rbacv1.ClusterRoleBinding)
			more, err := r.show(source{"ClusterRoleBinding", "", b.Name, b.RoleRef, s}, fn)
			errs = errors.Join(errs, err)
			if !more {
				return errs
			}
		}
	}
	if namespace == "" {
		return errs
	}
	for _, s := range subjects {
		found, err := r.bindings.ByIndex(namespaceIndex, namespace+"|"+s)
		if err != nil {
			return err
		}
		for _, object := range found {
			b := object.(*rbacv1.RoleBinding)
			more, err := r.show(source{"RoleBinding", b.Namespace, b.Name, b.RoleRef, s}, fn)
			errs = errors.Join(errs, err)
			if !more {
				return errs
			}
		}
	}
	return errs
}

func (r *Authorizer) show(from source, fn func(*rbacv1.PolicyRule, source) bool) (more bool, err error) {
	rules, err := r.Rules(from.role, from.namespace)
	if err != nil {
		return true, err
	}
	for i := range rules {
		if !fn(&rules[i], from) {
			return false, nil
		}
	}
	return true, nil
}

// Rules are those of the role that a binding in namespace refers to. They must
// not be changed. A missing role is a NotFound API error.
func (r *Authorizer) Rules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch ref.Kind {
	case "Role":
		role, err := r.roles.Roles(namespace).Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	case "ClusterRole":
		role, err := r.clusterRoles.Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	}
	return nil, apierrors.NewBadRequest(fmt.Sprintf("roleRef.kind: %q is neither Role nor ClusterRole", ref.Kind))
}
