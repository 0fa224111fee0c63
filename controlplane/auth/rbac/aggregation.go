package rbac

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

// Aggregation keeps ClusterRoles with an aggregationRule equal to the sum of
// those that the rule selects. It is the only writer of their rules.
type Aggregation struct {
	client   kubernetes.Interface
	informer cache.SharedIndexInformer
	roles    rbaclisters.ClusterRoleLister
	log      *slog.Logger
	writes   *prometheus.CounterVec
}

// NewAggregation must be called before the informers start.
func NewAggregation(client kubernetes.Interface, f informers.SharedInformerFactory, log *slog.Logger, reg prometheus.Registerer) *Aggregation {
	roles := f.Rbac().V1().ClusterRoles()
	a := &Aggregation{
		client: client, informer: roles.Informer(), roles: roles.Lister(), log: log,
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_rbac_aggregation_writes_total", Help: "Writes of aggregated ClusterRoles by result.",
		}, []string{"result"}),
	}
	reg.MustRegister(a.writes)
	return a
}

// Sum is the rules that an aggregated role should have: those of the selected
// roles in order of their names, each once. A selector that cannot be read is an
// error, since it would silently take rights away.
func Sum(role *rbacv1.ClusterRole, others []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	var chosen []*rbacv1.ClusterRole
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("read selector %d of cluster role %s: %w", i, role.Name, err)
		}
		for _, other := range others {
			if other.Name != role.Name && selector.Matches(labels.Set(other.Labels)) && !slices.Contains(chosen, other) {
				chosen = append(chosen, other)
			}
		}
	}
	slices.SortFunc(chosen, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	rules := []rbacv1.PolicyRule{}
	for _, other := range chosen {
		for _, rule := range other.Rules {
			if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
				rules = append(rules, rule)
			}
		}
	}
	return rules, nil
}

// Run follows the ClusterRoles until ctx ends. Changes that come together are
// answered once; the queue is a single "look again", so that it cannot grow.
func (a *Aggregation) Run(ctx context.Context) error {
	look := make(chan struct{}, 1)
	again := func() {
		select {
		case look <- struct{}{}:
		default: // a look is due already
		}
	}
	registration, err := a.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { again() }, UpdateFunc: func(any, any) { again() }, DeleteFunc: func(any) { again() },
	})
	if err != nil {
		return fmt.Errorf("watch cluster roles: %w", err)
	}
	defer func() { _ = a.informer.RemoveEventHandler(registration) }() // the informer may be stopped already
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil
	}
	retryAt := time.NewTimer(0)
	defer retryAt.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look:
		case <-retryAt.C:
		}
		if err := a.sync(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("cluster roles not aggregated", "err", err)
			retryAt.Reset(5 * time.Second)
		}
	}
}

func (a *Aggregation) sync(ctx context.Context) error {
	roles, err := a.roles.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list cluster roles: %w", err)
	}
	var errs error
	for _, role := range roles {
		if role.AggregationRule == nil || role.DeletionTimestamp != nil {
			continue
		}
		rules, err := Sum(role, roles)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if equality.Semantic.DeepEqual(rules, role.Rules) {
			continue
		}
		update := role.DeepCopy()
		update.Rules = rules
		_, err = a.client.RbacV1().ClusterRoles().Update(ctx, update, metav1.UpdateOptions{})
		switch {
		case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
			a.writes.WithLabelValues("conflict").Inc() // the newer object is on its way to us
		case err != nil:
			a.writes.WithLabelValues("error").Inc()
			errs = errors.Join(errs, fmt.Errorf("update cluster role %s: %w", role.Name, err))
		default:
			a.writes.WithLabelValues("ok").Inc()
			a.log.Info("cluster role aggregated", "role", role.Name, "count", len(rules))
		}
	}
	return errs
}
