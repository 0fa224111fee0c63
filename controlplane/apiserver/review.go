package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"perch/controlplane/api/legal"
)

// review is a virtual kind: creating one asks a question, nothing is stored.
type review[T runtime.Object] struct {
	make       func() T
	singular   string
	namespaced bool
	rules      *legal.Rules // nil when Kubernetes has no check
	answer     func(ctx context.Context, question T) (T, error)
}

// New is an empty question.
func (r *review[T]) New() runtime.Object { return r.make() }

// Destroy has nothing to release.
func (r *review[T]) Destroy() {}

// NamespaceScoped tells where the question is asked.
func (r *review[T]) NamespaceScoped() bool { return r.namespaced }

// GetSingularName is what a user may type.
func (r *review[T]) GetSingularName() string { return r.singular }

// Create answers the question.
func (r *review[T]) Create(ctx context.Context, o runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	q, ok := o.(T)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %s: %T", r.singular, o))
	}
	if r.rules != nil {
		if errs := r.rules.Create(ctx, q); len(errs) > 0 {
			kinds, _, err := r.rules.Scheme.ObjectKinds(q)
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			return nil, apierrors.NewInvalid(kinds[0].GroupKind(), "", errs)
		}
	}
	if validate != nil {
		if err := validate(ctx, q.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	return r.answer(ctx, q)
}

// addReviews serves the questions about identity and permission.
func (i *installer) addReviews(authn authenticator.Request, authz authorizer.Authorizer, resolver authorizer.RuleResolver) {
	i.add1(authenticationv1.SchemeGroupVersion, "tokenreviews", &review[*authenticationv1.TokenReview]{
		make: func() *authenticationv1.TokenReview { return &authenticationv1.TokenReview{} }, singular: "tokenreview",
		answer: func(ctx context.Context, q *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
			return reviewToken(ctx, authn, q)
		},
	})
	i.add1(authenticationv1.SchemeGroupVersion, "selfsubjectreviews", &review[*authenticationv1.SelfSubjectReview]{
		make: func() *authenticationv1.SelfSubjectReview { return &authenticationv1.SelfSubjectReview{} }, singular: "selfsubjectreview",
		answer: func(ctx context.Context, q *authenticationv1.SelfSubjectReview) (*authenticationv1.SelfSubjectReview, error) {
			u, err := caller(ctx)
			if err != nil {
				return nil, err
			}
			q.Status.UserInfo = userInfo(u)
			return q, nil
		},
	})
	az := authorizationv1.SchemeGroupVersion
	i.add1(az, "subjectaccessreviews", &review[*authorizationv1.SubjectAccessReview]{
		make: func() *authorizationv1.SubjectAccessReview { return &authorizationv1.SubjectAccessReview{} }, singular: "subjectaccessreview", rules: i.rules,
		answer: func(ctx context.Context, q *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
			q.Status = may(ctx, authz, subject(q.Spec), q.Spec.ResourceAttributes, q.Spec.NonResourceAttributes)
			return q, nil
		},
	})
	i.add1(az, "localsubjectaccessreviews", &review[*authorizationv1.LocalSubjectAccessReview]{
		make: func() *authorizationv1.LocalSubjectAccessReview { return &authorizationv1.LocalSubjectAccessReview{} }, singular: "localsubjectaccessreview", namespaced: true, rules: i.rules,
		answer: func(ctx context.Context, q *authorizationv1.LocalSubjectAccessReview) (*authorizationv1.LocalSubjectAccessReview, error) {
			if ns := genericapirequest.NamespaceValue(ctx); q.Spec.ResourceAttributes.Namespace != ns {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("spec.resourceAttributes.namespace must match namespace: %v", ns))
			}
			q.Status = may(ctx, authz, subject(q.Spec), q.Spec.ResourceAttributes, q.Spec.NonResourceAttributes)
			return q, nil
		},
	})
	i.add1(az, "selfsubjectaccessreviews", &review[*authorizationv1.SelfSubjectAccessReview]{
		make: func() *authorizationv1.SelfSubjectAccessReview { return &authorizationv1.SelfSubjectAccessReview{} }, singular: "selfsubjectaccessreview", rules: i.rules,
		answer: func(ctx context.Context, q *authorizationv1.SelfSubjectAccessReview) (*authorizationv1.SelfSubjectAccessReview, error) {
			u, err := caller(ctx)
			if err != nil {
				return nil, err
			}
			q.Status = may(ctx, authz, u, q.Spec.ResourceAttributes, q.Spec.NonResourceAttributes)
			return q, nil
		},
	})
	i.add1(az, "selfsubjectrulesreviews", &review[*authorizationv1.SelfSubjectRulesReview]{
		make: func() *authorizationv1.SelfSubjectRulesReview { return &authorizationv1.SelfSubjectRulesReview{} }, singular: "selfsubjectrulesreview",
		answer: func(ctx context.Context, q *authorizationv1.SelfSubjectRulesReview) (*authorizationv1.SelfSubjectRulesReview, error) {
			u, err := caller(ctx)
			if err != nil {
				return nil, err
			}
			if q.Spec.Namespace == "" {
				return nil, apierrors.NewBadRequest("no namespace on request")
			}
			q.Status = rulesFor(ctx, resolver, u, q.Spec.Namespace)
			return q, nil
		},
	})
}

func (i *installer) add1(gv schema.GroupVersion, resource string, s rest.Storage) {
	if i.served[gv] == nil {
		i.served[gv] = map[string]rest.Storage{}
		i.order = append(i.order, gv)
	}
	i.served[gv][resource] = s
}

func caller(ctx context.Context) (user.Info, error) {
	u, ok := genericapirequest.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	return u, nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

func subject(s authorizationv1.SubjectAccessReviewSpec) user.Info {
	extra := map[string][]string{}
	for k, v := range s.Extra {
		extra[k] = v
	}
	return &user.DefaultInfo{Name: s.User, UID: s.UID, Groups: s.Groups, Extra: extra}
}

// reviewToken asks the server's own authenticator about a bearer token.
func reviewToken(ctx context.Context, authn authenticator.Request, q *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	if q.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	if len(q.Spec.Audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, q.Spec.Audiences)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	r.Header.Set("Authorization", "Bearer "+q.Spec.Token)
	who, ok, err := authn.AuthenticateRequest(r)
	q.Status = authenticationv1.TokenReviewStatus{Authenticated: ok && who != nil && who.User != nil}
	if err != nil {
		q.Status.Error = err.Error()
	}
	if q.Status.Authenticated {
		q.Status.User = userInfo(who.User)
		q.Status.Audiences = who.Audiences
		if len(q.Spec.Audiences) > 0 && len(who.Audiences) == 0 {
			q.Status = authenticationv1.TokenReviewStatus{Error: "token audiences are unknown"}
		}
	}
	q.Spec.Token = ""
	return q, nil
}

func may(ctx context.Context, authz authorizer.Authorizer, u user.Info, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	a := authorizer.AttributesRecord{User: u}
	switch {
	case r != nil:
		a.Verb, a.Namespace, a.APIGroup, a.APIVersion = r.Verb, r.Namespace, r.Group, r.Version
		a.Resource, a.Subresource, a.Name, a.ResourceRequest = r.Resource, r.Subresource, r.Name, true
		if a.APIVersion == "" {
			a.APIVersion = "*"
		}
	case n != nil:
		a.Verb, a.Path = n.Verb, n.Path
	}
	d, reason, err := authz.Authorize(ctx, a)
	out := authorizationv1.SubjectAccessReviewStatus{Allowed: d == authorizer.DecisionAllow, Denied: d == authorizer.DecisionDeny, Reason: reason}
	if err != nil {
		out.EvaluationError = err.Error()
	}
	return out
}

func rulesFor(ctx context.Context, resolver authorizer.RuleResolver, u user.Info, namespace string) authorizationv1.SubjectRulesReviewStatus {
	if resolver == nil {
		return authorizationv1.SubjectRulesReviewStatus{Incomplete: true, EvaluationError: errors.New("rules cannot be listed").Error()}
	}
	resources, paths, incomplete, err := resolver.RulesFor(ctx, u, namespace)
	out := authorizationv1.SubjectRulesReviewStatus{Incomplete: incomplete, ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	if err != nil {
		out.EvaluationError = err.Error()
	}
	for _, r := range resources {
		out.ResourceRules = append(out.ResourceRules, authorizationv1.ResourceRule{Verbs: r.GetVerbs(), APIGroups: r.GetAPIGroups(), Resources: r.GetResources(), ResourceNames: r.GetResourceNames()})
	}
	for _, p := range paths {
		out.NonResourceRules = append(out.NonResourceRules, authorizationv1.NonResourceRule{Verbs: p.GetVerbs(), NonResourceURLs: p.GetNonResourceURLs()})
	}
	return out
}

// serviceAccountParts serves tokens, if somebody issues them.
func serviceAccountParts(i *installer, _ *genericregistry.Store, parts map[string]rest.Storage) {
	if i.tokens != nil {
		parts["serviceaccounts/token"] = i.tokens
	}
}
