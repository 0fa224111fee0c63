package door

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
)

// guard lets in who is known and may.
func (d *Door) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := attributes(r)
		who, err := d.who(r)
		switch {
		case err != nil:
			d.requests.WithLabelValues(what.Subresource, "unavailable").Inc()
			http.Error(w, "who you are cannot be checked now: "+err.Error(), http.StatusServiceUnavailable)
			return
		case who == nil:
			d.requests.WithLabelValues(what.Subresource, "unauthenticated").Inc()
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		if d.cfg.Crowd != nil {
			d.cfg.Crowd.Known(r.RemoteAddr)
		}
		// Masters may everything, also while the API cannot be asked.
		if !slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
			ok, reason, err := d.parts.Authorize(r.Context(), who, what)
			if err != nil {
				d.requests.WithLabelValues(what.Subresource, "unavailable").Inc()
				http.Error(w, "your rights cannot be checked now: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
			if !ok {
				d.requests.WithLabelValues(what.Subresource, "forbidden").Inc()
				http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource=%s) %s", who.GetName(), what.Verb, what.Subresource, reason), http.StatusForbidden)
				return
			}
		}
		d.requests.WithLabelValues(what.Subresource, "ok").Inc()
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // what has none needs none
		next.ServeHTTP(w, r)
	})
}

// who reads the client certificate or the bearer token of a request.
func (d *Door) who(r *http.Request) (user.Info, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		subject := r.TLS.VerifiedChains[0][0].Subject
		return &user.DefaultInfo{Name: subject.CommonName, Groups: append(slices.Clone(subject.Organization), user.AllAuthenticated)}, nil
	}
	kind, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") || bearer == "" {
		return nil, nil
	}
	who, ok, err := d.parts.Authenticate(withCaller(r.Context(), r.RemoteAddr), strings.TrimSpace(bearer))
	if err != nil || !ok {
		return nil, err
	}
	return who, nil
}

// attributes maps a request to the right that kubelet asks for.
func attributes(r *http.Request) Attributes {
	a := Attributes{Path: r.URL.Path, Subresource: "proxy"}
	switch r.Method {
	case http.MethodPost:
		a.Verb = "create"
	case http.MethodGet, http.MethodHead:
		a.Verb = "get"
	case http.MethodPut:
		a.Verb = "update"
	case http.MethodPatch:
		a.Verb = "patch"
	case http.MethodDelete:
		a.Verb = "delete"
	}
	for _, s := range []struct{ path, subresource string }{{"/stats", "stats"}, {"/metrics", "metrics"}, {"/logs", "log"}} {
		if r.URL.Path == s.path || strings.HasPrefix(r.URL.Path, s.path+"/") {
			a.Subresource = s.subresource
		}
	}
	return a
}

// Reviewer asks the API who somebody is and what they may, and remembers the
// answers for a while.
type Reviewer struct {
	api    kubernetes.Interface
	node   string
	tokens *answers[user.Info]
	nobody *answers[struct{}] // tokens; apart, so that many bad ones make no good one forgotten
	rights *answers[verdict]

	seed     maphash.Seed
	turns    [64]chan struct{} // of callers, by their addresses
	patience time.Duration
}

type verdict struct {
	ok     bool
	reason string
}

// How long answers are remembered, as kubelet does; and how many.
const (
	rememberYes  = 2 * time.Minute
	rememberNo   = 30 * time.Second
	rememberMost = 1024
)

// A caller's address has this many tokens reviewed at once, and each waits so long
// for its turn.
const (
	reviewsOfOne   = 2
	reviewPatience = 5 * time.Second
)

// Reviews makes a Reviewer: TokenReview and SubjectAccessReview about nodes. api
// should be a client of its own: strangers cause requests.
func Reviews(api kubernetes.Interface, node string) *Reviewer {
	v := &Reviewer{api: api, node: node, tokens: newAnswers[user.Info](), nobody: newAnswers[struct{}](), rights: newAnswers[verdict](),
		seed: maphash.MakeSeed(), patience: reviewPatience}
	for i := range v.turns {
		v.turns[i] = make(chan struct{}, reviewsOfOne)
	}
	return v
}

type callerKey struct{}

// withCaller says from which address a request came.
func withCaller(ctx context.Context, remote string) context.Context {
	return context.WithValue(ctx, callerKey{}, remote)
}

// turn is where callers from this address wait. Some others may wait there as well.
func (v *Reviewer) turn(remote string) chan struct{} {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	return v.turns[maphash.String(v.seed, host)%uint64(len(v.turns))]
}

// Authenticate fits Parts.
func (v *Reviewer) Authenticate(ctx context.Context, bearer string) (user.Info, bool, error) {
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(bearer))) // the token itself is not kept
	if who, known := v.tokens.get(key, time.Now()); known {
		return who, true, nil
	}
	if _, known := v.nobody.get(key, time.Now()); known {
		return nil, false, nil
	}
	remote, _ := ctx.Value(callerKey{}).(string)
	turn, patience := v.turn(remote), time.NewTimer(v.patience)
	defer patience.Stop()
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-patience.C:
		return nil, false, errors.New("too many tokens from your address are being checked: try again in a moment")
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := v.api.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: bearer}}, metav1.CreateOptions{})
	if err != nil {
		return nil, false, fmt.Errorf("review token: %w", err)
	}
	if !got.Status.Authenticated {
		v.nobody.put(key, struct{}{}, time.Now().Add(rememberNo))
		return nil, false, nil
	}
	u := got.Status.User
	who := &user.DefaultInfo{Name: u.Username, UID: u.UID, Groups: u.Groups, Extra: map[string][]string{}}
	for k, e := range u.Extra {
		who.Extra[k] = e
	}
	v.tokens.put(key, who, time.Now().Add(rememberYes))
	return who, true, nil
}

// Authorize fits Parts.
func (v *Reviewer) Authorize(ctx context.Context, who user.Info, what Attributes) (bool, string, error) {
	key := strings.Join([]string{who.GetName(), who.GetUID(), strings.Join(who.GetGroups(), "\x01"), what.Verb, what.Subresource}, "\x00")
	if r, known := v.rights.get(key, time.Now()); known {
		return r.ok, r.reason, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: map[string]authorizationv1.ExtraValue{},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: what.Verb, Version: "v1", Resource: "nodes", Subresource: what.Subresource, Name: v.node},
	}
	for k, e := range who.GetExtra() {
		spec.Extra[k] = e
	}
	got, err := v.api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return false, "", fmt.Errorf("review access of %s: %w", who.GetName(), err)
	}
	r := verdict{got.Status.Allowed, got.Status.Reason}
	keep := rememberYes
	if !r.ok {
		keep = rememberNo
	}
	v.rights.put(key, r, time.Now().Add(keep))
	return r.ok, r.reason, nil
}

// answers remembers values until their time is over. When full it forgets all
// that is over, and if that is nothing, everything.
type answers[V any] struct {
	mu   sync.Mutex // guards have
	have map[string]remembered[V]
}

type remembered[V any] struct {
	value V
	until time.Time
}

func newAnswers[V any]() *answers[V] { return &answers[V]{have: map[string]remembered[V]{}} }

func (a *answers[V]) get(key string, now time.Time) (V, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.have[key]
	return r.value, ok && now.Before(r.until)
}

func (a *answers[V]) put(key string, value V, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.have) >= rememberMost {
		now := time.Now()
		for k, r := range a.have {
			if now.After(r.until) {
				delete(a.have, k)
			}
		}
		if len(a.have) >= rememberMost {
			clear(a.have)
		}
	}
	a.have[key] = remembered[V]{value, until}
}
