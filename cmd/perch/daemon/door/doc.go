// Package door is the web door of a server (:9443): it finds out who is
// calling and what the caller may see, then hands the request to the part that
// answers it.
//
// It owns sessions and one-time login codes. It never decides about rights
// itself: tokens and permissions are reviewed by the API server, and answers
// are kept for a few seconds only (reviewTTL).
//
// A caller is known by client certificate of the cluster's CA, bearer token or
// the page's session cookie. Every route but the page's own files needs one.
// Routes that answer from logs or metrics get a Scope: the namespaces whose
// pods' logs (get pods/log) or pods (get pods) the caller may read.
//
// Join tokens are nobody here, as is every token that the cluster did not sign: the
// door knows that itself. The others are asked about a few at once (Reviews); those
// that nobody has are remembered for unknownTTL, maxUnknown of them.
//
// A request has 30 s to arrive until it is known whose it is; connections of
// strangers make room for others (Crowd).
//
// Start reading at Door.ServeHTTP in door.go.
package door
