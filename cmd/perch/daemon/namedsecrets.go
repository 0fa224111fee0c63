package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	rbacinformers "k8s.io/client-go/informers/rbac/v1"
	"k8s.io/client-go/kubernetes"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"

	"perch/controlplane/auth/rbac"
)

// secretsRole is the Role in every namespace whose monitoring objects name
// Secrets.
const secretsRole = "perch:monitoring-secrets"

// namedSecrets lets the telemetry role read exactly the Secrets that monitoring
// objects name, each only in the namespace of the object. It runs in the server
// role; what it grants is there to see as Roles.
type namedSecrets struct {
	client kubernetes.Interface
	roles  rbaclisters.RoleLister
	names  func() map[string][]string // by namespace
	listed func() bool                // roles are there
	known  func() bool                // names are complete too, asked until they are
	log    *slog.Logger
	stale  atomic.Bool
}

func (n *namedSecrets) changed() { n.stale.Store(true) }

// Run looks after changes, and every 30 s. Until all objects are known it grants
// only: what nobody is seen to name may still be named.
func (n *namedSecrets) Run(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last, all := time.Time{}, false
	for {
		if !all && n.listed() && n.known() {
			all = true
			n.changed()
		}
		if n.listed() && (n.stale.Swap(false) || time.Since(last) > 30*time.Second) {
			last = time.Now()
			if err := n.apply(ctx, all); err != nil && ctx.Err() == nil {
				n.log.Warn("rights to read secrets for monitoring objects were not all written", "err", err)
				n.changed()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *namedSecrets) apply(ctx context.Context, all bool) error {
	roles, err := n.roles.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list Roles: %w", err)
	}
	have := map[string][]string{}
	for _, r := range roles {
		if r.Name == secretsRole {
			have[r.Namespace] = nil
			for _, rule := range r.Rules {
				have[r.Namespace] = append(have[r.Namespace], rule.ResourceNames...)
			}
		}
	}
	grant, remove := decideSecrets(have, n.names(), all)
	var errs []error
	for _, namespace := range remove {
		errs = append(errs, n.remove(ctx, namespace))
	}
	for _, namespace := range slices.Sorted(maps.Keys(grant)) {
		errs = append(errs, n.grant(ctx, namespace, grant[namespace]))
	}
	return errors.Join(errs...)
}

// decideSecrets compares the names of Secrets that may be read with those that are
// wanted, by namespace. As long as not all that are wanted are known, what is there
// stays.
func decideSecrets(have, want map[string][]string, all bool) (grant map[string][]string, remove []string) {
	grant = map[string][]string{}
	for namespace, names := range want {
		if !all {
			names = slices.Concat(names, have[namespace])
			slices.Sort(names)
			names = slices.Compact(names)
		}
		if old, there := have[namespace]; !there || !slices.Equal(old, names) {
			grant[namespace] = names
		}
	}
	for namespace := range have {
		if _, wanted := want[namespace]; !wanted && all {
			remove = append(remove, namespace)
		}
	}
	slices.Sort(remove)
	return grant, remove
}

func (n *namedSecrets) grant(ctx context.Context, namespace string, names []string) error {
	api := n.client.RbacV1()
	meta := metav1.ObjectMeta{Name: secretsRole, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": "perch"}}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: names, Verbs: []string{"get"}}}}
	if _, err := api.Roles(namespace).Create(ctx, role, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		if _, err := api.Roles(namespace).Update(ctx, role, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update Role %s/%s: %w", namespace, secretsRole, err)
		}
	} else if err != nil {
		return fmt.Errorf("create Role %s/%s: %w", namespace, secretsRole, err)
	}
	bind := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: secretsRole},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: rbac.TelemetryUser}}}
	if _, err := api.RoleBindings(namespace).Create(ctx, bind, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create RoleBinding %s/%s: %w", namespace, secretsRole, err)
	}
	return nil
}

func (n *namedSecrets) remove(ctx context.Context, namespace string) error {
	api := n.client.RbacV1()
	for _, del := range []func(context.Context, string, metav1.DeleteOptions) error{api.RoleBindings(namespace).Delete, api.Roles(namespace).Delete} {
		if err := del(ctx, secretsRole, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete Role %s/%s: %w", namespace, secretsRole, err)
		}
	}
	return nil
}

// openNamedSecrets watches the objects that name Secrets.
func (r role) openNamedSecrets(loop clients, roles rbacinformers.RoleInformer) (*namedSecrets, error) {
	n := &namedSecrets{client: loop.kube, roles: roles.Lister(), log: r.part("objects")}
	scrapes, err := r.watchScrapeObjects(loop.dynamic, n.changed)
	if err != nil {
		return nil, err
	}
	routes := watchObjects(loop.dynamic, alertRoutes, r.part("objects"))
	if err := onChange(routes.informer, n.changed); err != nil {
		return nil, err
	}
	r.group.Go(alertRoutes.Resource, routes.Run)
	n.listed = roles.Informer().HasSynced
	n.known = complete(n.listed, func() bool { return scrapes.known() && routes.informer.HasSynced() })
	n.names = func() map[string][]string {
		sets := map[string]map[string]bool{}
		add := func(namespace, name string) {
			if sets[namespace] == nil {
				sets[namespace] = map[string]bool{}
			}
			sets[namespace][name] = true
		}
		for _, o := range scrapes.list() {
			for _, ref := range o.Refs() {
				if !ref.ConfigMap {
					add(o.Namespace, ref.Name)
				}
			}
		}
		for _, o := range alertRouteObjects(routes) {
			for _, ref := range o.Refs() {
				if !ref.ConfigMap {
					add(o.Namespace, ref.Name)
				}
			}
		}
		out := map[string][]string{}
		for ns, set := range sets {
			out[ns] = slices.Sorted(maps.Keys(set))
		}
		return out
	}
	return n, nil
}
