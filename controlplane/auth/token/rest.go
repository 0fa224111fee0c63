package token

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// REST is the storage of the subresource serviceaccounts/token.
type REST struct{ issuer *Issuer }

var (
	_ rest.Storage                  = (*REST)(nil)
	_ rest.NamedCreater             = (*REST)(nil)
	_ rest.GroupVersionKindProvider = (*REST)(nil)
	_ rest.Scoper                   = (*REST)(nil)
)

// NewREST serves the issuer's tokens.
func NewREST(issuer *Issuer) *REST { return &REST{issuer} }

// New is an empty TokenRequest.
func (r *REST) New() runtime.Object { return &authenticationv1.TokenRequest{} }

// Destroy has nothing to release.
func (r *REST) Destroy() {}

// NamespaceScoped is that of the parent resource.
func (r *REST) NamespaceScoped() bool { return true }

// GroupVersionKind differs from that of the parent resource.
func (r *REST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
}

// Create answers a TokenRequest for the account called name.
func (r *REST) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	want, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("want a TokenRequest, got %T", obj))
	}
	namespace := genericapirequest.NamespaceValue(ctx)
	if want.Name != "" && want.Name != name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("metadata.name %q differs from the name in the URL, %q", want.Name, name))
	}
	want = want.DeepCopy()
	want.Name, want.Namespace = name, namespace // admission sees whom it is for
	if validate != nil {
		if err := validate(ctx, want); err != nil {
			return nil, err
		}
	}
	answer, err := r.issuer.Request(ctx, namespace, name, want)
	if err != nil {
		return nil, err
	}
	if len(options.DryRun) > 0 {
		answer.Status.Token = ""
	}
	audit.AddAuditAnnotation(ctx, "authentication.kubernetes.io/issued-for", namespace+"/"+name)
	return answer, nil
}
