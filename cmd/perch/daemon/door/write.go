package door

import (
	"context"
	"fmt"
	"net/http"
)

// Write lets in who has the non-resource right to post path, for all namespaces,
// and for one who may push there (see Push): a service account into its own, others
// into the one they name. Afterwards ScopeOf says All, or Into says which.
func Write(path string) Need {
	return func(d *Door, ctx context.Context, u User) (context.Context, error) {
		if into := Into(ctx); into != "" {
			return ctx, d.mayPushInto(ctx, u, into)
		}
		all, err := d.allowed(ctx, u, Right{Verb: "post", Path: path})
		if err != nil {
			return ctx, err
		}
		if all {
			return WithScope(ctx, Scope{All: true}), nil
		}
		namespace, _, ok := ServiceAccount(u)
		if !ok {
			return ctx, refusal{http.StatusForbidden, fmt.Sprintf("%s may not post %s; into one namespace may write who may create pods/log there and names it in the header %s", u.Name, path, NamespaceHeader)}
		}
		return context.WithValue(ctx, intoKey{}, namespace), nil
	}
}
