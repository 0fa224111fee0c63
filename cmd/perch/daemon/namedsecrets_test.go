package daemon

import (
	"context"
	"log/slog"
	"maps"
	"slices"
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
				n := &namedSecrets{client: api, roles: rbaclisters.NewRoleLister(roles), log: slog.New(slog.DiscardHandler), listed: func() bool { return true }, known: known.Load,
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

func TestSecretsAreGrantedAtOnceAndTakenAwayWhenAllIsKnown(t *testing.T) {
	type rights = map[string][]string
	for name, c := range map[string]struct {
		have, want rights
		all        bool
		grant      rights
		remove     []string
	}{
		"one more, not all known":                 {rights{"a": {"x"}}, rights{"a": {"y"}}, false, rights{"a": {"x", "y"}}, nil},
		"one instead of another, all known":       {rights{"a": {"x"}}, rights{"a": {"y"}}, true, rights{"a": {"y"}}, nil},
		"the first of a namespace":                {nil, rights{"a": {"x"}}, false, rights{"a": {"x"}}, nil},
		"nobody names it, not all known":          {rights{"a": {"x"}}, nil, false, rights{}, nil},
		"nobody names it, all known":              {rights{"a": {"x"}, "b": nil}, nil, true, rights{}, []string{"a", "b"}},
		"as it is":                                {rights{"a": {"x", "y"}}, rights{"a": {"x", "y"}}, true, rights{}, nil},
		"as it is with another, not all is known": {rights{"a": {"x", "y"}}, rights{"a": {"x"}}, false, rights{}, nil},
	} {
		grant, remove := decideSecrets(c.have, c.want, c.all)
		if !maps.EqualFunc(grant, c.grant, slices.Equal) || !slices.Equal(remove, c.remove) {
			t.Errorf("%s: grant %v, remove %v", name, grant, remove)
		}
	}
}
