package daemon

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

// TestRightsToReadSecretsOutliveAStart: before objects are known nothing is taken
// away; what nobody names any more goes then.
func TestRightsToReadSecretsOutliveAStart(t *testing.T) {
	for name, c := range map[string]struct {
		knownAfter time.Duration
		names      map[string][]string
		early      bool // the Role is there after a minute
		late       bool // after three
	}{
		"the objects are read soon":             {5 * time.Second, map[string][]string{"shop": {"login"}}, true, true},
		"a kind of objects is not there at all": {time.Hour, map[string][]string{"shop": {"login"}}, true, true},
		"nobody names it any more":              {5 * time.Second, nil, false, false},
		"nobody, and a kind is not there":       {time.Hour, nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				have := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: secretsRole}, Rules: []rbacv1.PolicyRule{{ResourceNames: []string{"login"}}}}
				api, roles := fake.NewClientset(have), cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
				if err := roles.Add(have); err != nil {
					t.Fatal(err)
				}
				var known atomic.Bool
				time.AfterFunc(c.knownAfter, func() { known.Store(true) })
				n := &namedSecrets{client: api, roles: rbaclisters.NewRoleLister(roles), log: slog.New(slog.DiscardHandler), known: known.Load,
					names: func() map[string][]string {
						if !known.Load() && c.knownAfter < time.Hour {
							return nil
						}
						out := map[string][]string{}
						for k, v := range c.names {
							out[k] = v
						}
						return out
					}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- n.Run(ctx) }()
				there := func() bool {
					_, err := api.RbacV1().Roles("shop").Get(t.Context(), secretsRole, metav1.GetOptions{})
					return err == nil
				}
				<-time.After(time.Second) // of the bubble
				if !there() {
					t.Error("taken away at once")
				}
				<-time.After(time.Minute)
				if there() != c.early {
					t.Error("after a minute:", there())
				}
				<-time.After(2 * time.Minute)
				if there() != c.late {
					t.Error("after three minutes:", there())
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
