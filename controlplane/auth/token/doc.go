// Package token owns the bearer tokens of the API server: ServiceAccount tokens
// (signed JWTs), bootstrap tokens (the credential inside a join token), and the
// account that `perch token` speaks for.
//
// It signs and checks; it never decides what a user may do. Keys come from
// controlplane/auth/pki, objects from the API server itself.
//
// Invariants: a ServiceAccount token is good only while the account and the
// object it is bound to exist with the same uid. A join token gives one
// certificate: claimed when a CSR is approved, spent when the node appeared.
//
//	issuer, err := token.NewIssuer(token.URL(domain), key, token.Cached(informers, client))
//	rest := token.NewREST(issuer)                    storage of serviceaccounts/token
//	issuer.Configuration(url), issuer.Keys()         OIDC discovery documents
//	token.NewVerifier(url, public).Signed(text)      for doors: what need not be asked about
//	bootstrap := token.NewBootstrap(client)          authenticator; Explain wraps the door
//	join, err := token.CreateJoin(ctx, client, pin, now, ttl)
//	text, err := token.Admin(ctx, client, ttl)       what `perch token` prints
//
// All are safe for concurrent use. Start reading at AuthenticateToken in issuer.go.
package token
