package door

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// How many tokens are asked about at once, how long one waits for its turn, and how
// long the API server has for an answer.
const (
	maxReviewing   = 16
	reviewPatience = 5 * time.Second
	reviewLimit    = 10 * time.Second
)

// errBusy says that too many tokens are being asked about.
var errBusy = errors.New("too many callers are being checked: try again in a moment")

// Reviews asks a Kubernetes API.
type Reviews struct {
	api        kubernetes.Interface
	namespaces corelisters.NamespaceLister
	signed     func(token string) bool
	turn       chan struct{} // maxReviewing

	patience, limit time.Duration
}

// NewReviews asks api, which should be a client of its own: strangers cause
// requests. signed tells which tokens can be anybody's; others are not asked about.
func NewReviews(api kubernetes.Interface, namespaces corelisters.NamespaceLister, signed func(token string) bool, reg prometheus.Registerer) *Reviews {
	r := &Reviews{api: api, namespaces: namespaces, signed: signed, turn: make(chan struct{}, maxReviewing), patience: reviewPatience, limit: reviewLimit}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_door_reviews",
		Help: "Tokens that the API server is being asked about."}, func() float64 { return float64(len(r.turn)) }))
	return r
}

// User implements Reviewer by a TokenReview.
func (r *Reviews) User(ctx context.Context, token string) (User, error) {
	if !r.signed(token) {
		return User{}, ErrUnknown
	}
	patience := time.NewTimer(r.patience)
	defer patience.Stop()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-patience.C:
		return User{}, errBusy
	case <-ctx.Done():
		return User{}, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	got, err := r.api.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return User{}, fmt.Errorf("review token: %w", err)
	}
	if !got.Status.Authenticated {
		return User{}, ErrUnknown
	}
	return User{Name: got.Status.User.Username, Groups: got.Status.User.Groups}, nil
}

// Allowed implements Reviewer by a SubjectAccessReview.
func (r *Reviews) Allowed(ctx context.Context, u User, want Right) (bool, error) {
	ask := authorizationv1.SubjectAccessReviewSpec{User: u.Name, Groups: u.Groups}
	if want.Path != "" {
		ask.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: want.Verb, Path: want.Path}
	} else {
		ask.ResourceAttributes = &authorizationv1.ResourceAttributes{Verb: want.Verb, Resource: want.Resource, Subresource: want.Subresource, Namespace: want.Namespace, Name: want.Name}
	}
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	got, err := r.api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: ask}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review right of %s: %w", u.Name, err)
	}
	return got.Status.Allowed, nil
}

// Namespaces implements Reviewer from the watch cache.
func (r *Reviews) Namespaces(context.Context) ([]string, error) {
	all, err := r.namespaces.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = n.Name
	}
	return out, nil
}
