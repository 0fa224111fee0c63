package door

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// Reviews asks a Kubernetes API.
type Reviews struct {
	API        kubernetes.Interface
	NamespaceL corelisters.NamespaceLister
}

// User implements Reviewer by a TokenReview.
func (r Reviews) User(ctx context.Context, token string) (User, error) {
	got, err := r.API.AuthenticationV1().TokenReviews().Create(ctx,
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
func (r Reviews) Allowed(ctx context.Context, u User, want Right) (bool, error) {
	ask := authorizationv1.SubjectAccessReviewSpec{User: u.Name, Groups: u.Groups}
	if want.Path != "" {
		ask.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: want.Verb, Path: want.Path}
	} else {
		ask.ResourceAttributes = &authorizationv1.ResourceAttributes{Verb: want.Verb, Resource: want.Resource, Subresource: want.Subresource, Namespace: want.Namespace, Name: want.Name}
	}
	got, err := r.API.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: ask}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review right of %s: %w", u.Name, err)
	}
	return got.Status.Allowed, nil
}

// Namespaces implements Reviewer from the watch cache.
func (r Reviews) Namespaces(context.Context) ([]string, error) {
	all, err := r.NamespaceL.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = n.Name
	}
	return out, nil
}
