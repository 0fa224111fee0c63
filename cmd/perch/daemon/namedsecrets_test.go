package daemon

import (
	"context"
	"log/slog"
	"maps"
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
		names map[string][]string
		after bool // the Role is there once they are known
	}{
		"somebody names it":        {map[string][]string{"shop": {"login"}}, true},
		"nobody names it any more": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				have := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: secretsRole}, Rules: []rbacv1.PolicyRule{{ResourceNames: []string{"login"}}}}
				api, roles := fake.NewClientset(have), cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
				if err := roles.Add(have); err != nil {
					t.Fatal(err)
				}
				var known atomic.Bool
				time.AfterFunc(time.Minute, func() { known.Store(true) })
				n := &namedSecrets{client: api, roles: rbaclisters.NewRoleLister(roles), log: slog.New(slog.DiscardHandler), known: known.Load,
					names: func() map[string][]string {
						if !known.Load() {
							return nil
						}
						return maps.Clone(c.names)
					}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- n.Run(ctx) }()
				there := func() bool {
					_, err := api.RbacV1().Roles("shop").Get(t.Context(), secretsRole, metav1.GetOptions{})
					return err == nil
				}
				<-time.After(30 * time.Second) // of the bubble
				if !there() {
					t.Error("taken away before the objects were known")
				}
				<-time.After(time.Minute)
				if there() != c.after {
					t.Error("once they are known:", there())
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
