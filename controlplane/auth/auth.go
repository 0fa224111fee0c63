package auth

import (
	"fmt"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/path"
	authzunion "k8s.io/apiserver/pkg/authorization/union"

	"perch/controlplane/auth/token"
)

// healthPaths are open to everybody, so that a load balancer can ask.
func healthPaths() []string { return []string{"/livez", "/readyz", "/healthz"} }

// remembered is how long the verdict about a ServiceAccount token is reused; a
// token may outlive its pod by that much.
const remembered = 10 * time.Second

// Authenticator recognises client certificates of the CA that verify knows now
// (it may rotate), ServiceAccount tokens and join tokens. Without credentials a
// request is anonymous, and that only on the health paths. Bootstrap tokens are
// not cached: a spent one ends at once.
func Authenticator(verify x509request.VerifyOptionFunc, issuer *token.Issuer, bootstrap *token.Bootstrap) authenticator.Request {
	tokens := tokenunion.New(
		cache.New(issuer, false, remembered, 0),
		authenticator.WrapAudienceAgnosticToken(issuer.Audiences(), bootstrap),
	)
	known := union.New(
		authenticator.WrapAudienceAgnosticRequest(issuer.Audiences(), x509request.NewDynamic(verify, x509request.CommonNameUserConversion)),
		bearertoken.New(tokens),
		websocket.NewProtocolAuthenticator(tokens),
	)
	var open []apiserver.AnonymousAuthCondition
	for _, p := range healthPaths() {
		open = append(open, apiserver.AnonymousAuthCondition{Path: p})
	}
	return union.NewFailOnError(group.NewAuthenticatedGroupAdder(known), anonymous.NewAuthenticator(open))
}

// Authorizer asks in this order: health paths, system:masters, the node
// authorizer, RBAC. The first that allows or denies decides.
func Authorizer(node, rbac authorizer.Authorizer) (authorizer.Authorizer, error) {
	var health []string
	for _, p := range healthPaths() {
		health = append(health, p, p+"/*")
	}
	open, err := path.NewAuthorizer(health)
	if err != nil {
		return nil, fmt.Errorf("open health paths: %w", err)
	}
	return authzunion.New(open, authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup), node, rbac), nil
}
