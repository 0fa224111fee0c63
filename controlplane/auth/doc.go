// Package auth answers two questions for every request to the API server: who
// is asking, and may they. Its subpackages each own one noun; this package only
// puts them in order.
//
//	auth/pki        the CA, certificates, kubeconfigs, join tokens (standard library only)
//	auth/token      ServiceAccount and bootstrap tokens
//	auth/rbac       roles: decisions, escalation check, default roles, aggregation
//	auth/node       what a node may see and do
//	auth/admission  what a write must look like; changes to pods on their way in
//	auth/quota      how much of a namespace's quota is used
//	auth/sign       certificate signing requests
//
// The API server takes only library types from here: authenticator.Request,
// authorizer.Authorizer, authorizer.RuleResolver and admission plugins.
//
// Start reading at Authenticator and Authorizer in auth.go.
package auth
