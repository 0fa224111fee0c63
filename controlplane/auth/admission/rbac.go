package admission

import (
	"context"
	"errors"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"

	"perch/controlplane/auth/rbac"
)

// escalationPlugin keeps people from granting what they do not hold. Kubernetes
// does this in the storage of roles; here it is admission, which sees the same
// objects on every path (create, update, patch, apply).
type escalationPlugin struct {
	*admission.Handler
	authorizer authorizer.Authorizer
	roles      *rbac.Authorizer
	problem    error
}

var _ admission.ValidationInterface = (*escalationPlugin)(nil)

func newEscalation() *escalationPlugin {
	return &escalationPlugin{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

func (e *escalationPlugin) SetAuthorizer(a authorizer.Authorizer) { e.authorizer = a }

func (e *escalationPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	e.roles, e.problem = rbac.New(f)
	r := f.Rbac().V1()
	synced := []func() bool{
		r.Roles().Informer().HasSynced, r.RoleBindings().Informer().HasSynced,
		r.ClusterRoles().Informer().HasSynced, r.ClusterRoleBindings().Informer().HasSynced,
	}
	e.SetReadyFunc(func() bool {
		for _, s := range synced {
			if !s() {
				return false
			}
		}
		return true
	})
}

func (e *escalationPlugin) ValidateInitialization() error {
	if e.problem != nil {
		return e.problem
	}
	if e.authorizer == nil || e.roles == nil {
		return errors.New("plugin RBACEscalation needs an authorizer and informers")
	}
	return nil
}

func (e *escalationPlugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().Group != rbacv1.GroupName || a.GetSubresource() != "" {
		return nil
	}
	for _, g := range a.GetUserInfo().GetGroups() {
		if g == user.SystemPrivilegedGroup {
			return nil // also at start, when the informers are not there yet
		}
	}
	if !e.WaitForReady() {
		return admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	if err := e.check(ctx, a); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

func (e *escalationPlugin) check(ctx context.Context, a admission.Attributes) error {
	target := rbac.Target{Resource: a.GetResource().Resource, Namespace: a.GetNamespace(), Name: a.GetName()}
	switch have := a.GetObject().(type) {
	case *rbacv1.Role:
		if old, ok := a.GetOldObject().(*rbacv1.Role); ok && equality.Semantic.DeepEqual(old.Rules, have.Rules) {
			return nil
		}
		return rbac.RoleEscalation(ctx, a.GetUserInfo(), target, have.Rules, e.authorizer, e.roles)
	case *rbacv1.ClusterRole:
		old, _ := a.GetOldObject().(*rbacv1.ClusterRole)
		if have.AggregationRule != nil && (old == nil || !equality.Semantic.DeepEqual(old.AggregationRule, have.AggregationRule)) {
			if err := rbac.AggregationEscalation(ctx, a.GetUserInfo(), target, e.authorizer, e.roles); err != nil {
				return err
			}
		}
		if old != nil && equality.Semantic.DeepEqual(old.Rules, have.Rules) {
			return nil
		}
		return rbac.RoleEscalation(ctx, a.GetUserInfo(), target, have.Rules, e.authorizer, e.roles)
	case *rbacv1.RoleBinding:
		if old, ok := a.GetOldObject().(*rbacv1.RoleBinding); ok && equality.Semantic.DeepEqual(old.Subjects, have.Subjects) && old.RoleRef == have.RoleRef {
			return nil
		}
		return e.binding(ctx, a.GetUserInfo(), target, have.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		if old, ok := a.GetOldObject().(*rbacv1.ClusterRoleBinding); ok && equality.Semantic.DeepEqual(old.Subjects, have.Subjects) && old.RoleRef == have.RoleRef {
			return nil
		}
		return e.binding(ctx, a.GetUserInfo(), target, have.RoleRef)
	}
	return nil
}

func (e *escalationPlugin) binding(ctx context.Context, u user.Info, target rbac.Target, ref rbacv1.RoleRef) error {
	if ok, err := rbac.MayBind(ctx, u, target, ref, e.authorizer); ok || err != nil {
		return err
	}
	rules, err := e.roles.Rules(ref, target.Namespace)
	if apierrors.IsNotFound(err) {
		// The role may come later and hold anything.
		return fmt.Errorf("%s %q does not exist, and user %q may not bind it unseen", ref.Kind, ref.Name, u.GetName())
	}
	if err != nil {
		return err
	}
	return rbac.BindingEscalation(ctx, u, target, ref, rules, e.authorizer, e.roles)
}
