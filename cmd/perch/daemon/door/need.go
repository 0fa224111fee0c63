package door

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"perch/logs/record"
)

// Anyone needs a known caller and nothing else: the handler reviews the rest,
// as the API server does behind /k8s.
func Anyone(_ *Door, ctx context.Context, _ User) (context.Context, error) { return ctx, nil }

// Logs limits a route to the namespaces whose pods' logs the caller may read.
func Logs(d *Door, ctx context.Context, u User) (context.Context, error) {
	s, err := d.scope(ctx, u, Right{Verb: "get", Resource: "pods", Subresource: "log"})
	return WithScope(ctx, s), err
}

// Metrics limits a route to the namespaces whose pods the caller may get;
// series without a namespace need the non-resource right get /metrics.
func Metrics(d *Door, ctx context.Context, u User) (context.Context, error) {
	s, err := d.scope(ctx, u, Right{Verb: "get", Resource: "pods"})
	if err != nil || !s.All {
		return WithScope(ctx, s), err
	}
	whole, err := d.allowed(ctx, u, Right{Verb: "get", Path: "/metrics"})
	if err != nil || whole {
		return WithScope(ctx, s), err
	}
	names, err := d.api.Namespaces(ctx)
	slices.Sort(names)
	return WithScope(ctx, Scope{Namespaces: names}), err
}

// ConfigMaps tells a route the namespaces whose ConfigMaps the caller may read.
func ConfigMaps(d *Door, ctx context.Context, u User) (context.Context, error) {
	s, err := d.scope(ctx, u, Right{Verb: "list", Resource: "configmaps"})
	return WithScope(ctx, s), err
}

// Path needs a non-resource right.
func Path(verb, path string) Need {
	return func(d *Door, ctx context.Context, u User) (context.Context, error) {
		ok, err := d.allowed(ctx, u, Right{Verb: verb, Path: path})
		if err == nil && !ok {
			err = refusal{http.StatusForbidden, fmt.Sprintf("%s may not %s %s", u.Name, verb, path)}
		}
		return ctx, err
	}
}

// Alerts lets in who has the non-resource right get /metrics, to all alerts. ScopeOf
// says afterwards whose lines the caller may read: alerts carry some.
func Alerts(d *Door, ctx context.Context, u User) (context.Context, error) {
	ctx, err := Path("get", "/metrics")(d, ctx, u)
	if err != nil {
		return ctx, err
	}
	return Logs(d, ctx, u)
}

// ServiceAccount tells whose service account a user is.
func ServiceAccount(u User) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(u.Name, "system:serviceaccount:")
	namespace, name, is := strings.Cut(rest, ":")
	return namespace, name, ok && is
}

// Push lets service accounts push lines, which then belong to their namespace,
// as what their pods print does. Others need the non-resource right to post. Who
// names another namespace needs the right to create pods/log there instead.
func Push(path string) Need {
	may := Path("post", path)
	return func(d *Door, ctx context.Context, u User) (context.Context, error) {
		if into := Into(ctx); into != "" {
			return ctx, d.mayPushInto(ctx, u, into)
		}
		if _, _, ok := ServiceAccount(u); ok {
			return ctx, nil
		}
		return may(d, ctx, u)
	}
}

func (d *Door) mayPushInto(ctx context.Context, u User, namespace string) error {
	ok, err := d.allowed(ctx, u, Right{Verb: "create", Resource: "pods", Subresource: "log", Namespace: namespace})
	if err != nil {
		return err
	}
	if !ok {
		return refusal{http.StatusForbidden, fmt.Sprintf("%s may not create pods/log in namespace %s, which pushing lines into it needs", u.Name, namespace)}
	}
	names, err := d.api.Namespaces(ctx)
	if err == nil && namespace != record.HostNamespace && !slices.Contains(names, namespace) {
		err = refusal{http.StatusForbidden, fmt.Sprintf("there is no namespace %s, which %s names", namespace, NamespaceHeader)}
	}
	return err
}

// Node lets in the cluster's own nodes, known by their certificates.
func Node(_ *Door, ctx context.Context, u User) (context.Context, error) {
	if !slices.Contains(u.Groups, "system:nodes") && !slices.Contains(u.Groups, "system:masters") {
		return ctx, refusal{http.StatusForbidden, u.Name + " is not a node of this cluster"}
	}
	return ctx, nil
}

// Has needs a right to an object. It is for routes that do what the right allows
// at the API as well, so that one rule governs both.
func Has(right Right) Need {
	return func(d *Door, ctx context.Context, u User) (context.Context, error) {
		ok, err := d.allowed(ctx, u, right)
		if err == nil && !ok {
			err = refusal{http.StatusForbidden, fmt.Sprintf("%s may not %s %s/%s %s in namespace %s", u.Name, right.Verb, right.Resource, right.Subresource, right.Name, right.Namespace)}
		}
		return ctx, err
	}
}
