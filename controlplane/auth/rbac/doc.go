// Package rbac owns role-based access: who may do what by Role, ClusterRole and
// their bindings; the check that nobody grants more than they hold; the default
// roles; and the ClusterRoles that are made of others.
//
// It decides from informers only and never asks the API server during a
// request. Bindings are indexed by subject, so that a decision costs the
// bindings of one user and not all of them.
//
//	roles, err := rbac.New(informers)                 before the informers start
//	roles is an authorizer.Authorizer and an authorizer.RuleResolver
//	rbac.Reconcile(ctx, client)                     default roles, at each start
//	rbac.NewAggregation(client, informers, log, reg).Run(ctx)
//	rbac.RoleEscalation, rbac.BindingEscalation     used by auth/admission
//
// Start reading at Authorize in authorizer.go; decide.go holds the rules.
package rbac
