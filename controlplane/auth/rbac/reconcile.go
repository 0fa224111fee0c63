package rbac

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/auth/rbac/reconciliation"

	"perch/controlplane/auth/token"
)

// Reconcile brings back what is missing of the default roles and bindings and
// the account behind `perch token`, and leaves what users added. A role with the annotation
// rbac.authorization.kubernetes.io/autoupdate: "false" is left alone.
func Reconcile(ctx context.Context, client kubernetes.Interface) error {
	var errs error
	for _, role := range DefaultClusterRoles() {
		errs = errors.Join(errs, again(ctx, "cluster role "+role.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{
				Role: reconciliation.ClusterRoleRuleOwner{ClusterRole: role.DeepCopy()}, Confirm: true,
				Client: reconciliation.ClusterRoleModifier{Client: client.RbacV1().ClusterRoles()},
			}).Run()
			return err
		}))
	}
	for _, binding := range DefaultClusterRoleBindings() {
		errs = errors.Join(errs, again(ctx, "cluster role binding "+binding.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{
				RoleBinding: reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: binding.DeepCopy()}, Confirm: true,
				Client: reconciliation.ClusterRoleBindingClientAdapter{Client: client.RbacV1().ClusterRoleBindings()},
			}).Run()
			return err
		}))
	}
	for _, role := range DefaultRoles() {
		errs = errors.Join(errs, again(ctx, "role "+role.Namespace+"/"+role.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{
				Role: reconciliation.RoleRuleOwner{Role: role.DeepCopy()}, Confirm: true,
				Client: reconciliation.RoleModifier{Client: client.RbacV1(), NamespaceClient: client.CoreV1().Namespaces()},
			}).Run()
			return err
		}))
	}
	for _, binding := range DefaultRoleBindings() {
		errs = errors.Join(errs, again(ctx, "role binding "+binding.Namespace+"/"+binding.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{
				RoleBinding: reconciliation.RoleBindingAdapter{RoleBinding: binding.DeepCopy()}, Confirm: true,
				Client: reconciliation.RoleBindingClientAdapter{Client: client.RbacV1(), NamespaceClient: client.CoreV1().Namespaces()},
			}).Run()
			return err
		}))
	}
	// Last, since the steps above make the namespace if it is missing.
	return errors.Join(errs, token.EnsureAdmin(ctx, client))
}

// again repeats an act that lost a write race, a few times.
func again(ctx context.Context, what string, act func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := retry.RetryOnConflict(retry.DefaultRetry, act); err != nil {
		return fmt.Errorf("reconcile %s: %w", what, err)
	}
	return nil
}
