package daemon

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/prometheus/prometheus/storage"

	"perch/alerts/evidence"
	"perch/alerts/route"
	"perch/alerts/rule"
	"perch/metrics/promapi"
	"perch/metrics/target"
)

// evaluation is how often rules are evaluated where a group says nothing.
const evaluation = 5 * time.Second

// alerts are the rules and what takes their alerts to people.
type alerts struct {
	router  *route.Router
	courier *evidence.Courier
	rules   *rule.Rules
	whose   func(file string) promapi.RuleSource
}

// openAlerts opens silences and notification log; watchAlerts begins to use
// them.
func openAlerts(r role, page *url.URL, services func(host string) (string, bool)) (*alerts, error) {
	a := &alerts{}
	router, err := route.New(route.Config{Dir: r.cfg.Path("alerts"), ExternalURL: page.JoinPath("alertmanager"), Resolve: services, Guarded: target.Guarded, Outside: func(ctx context.Context, in ...route.Alert) error {
		return a.courier.Deliver(ctx, byOthers(ctx, in)...)
	}}, r.part("alerts"), r.reg)
	if err != nil {
		return nil, err
	}
	if err := router.Restore(); err != nil {
		return nil, err
	}
	a.router = router
	return a, nil
}

// fromOutside are the alerts that fire now and that no rule makes.
func (a *alerts) fromOutside() []promapi.Alert { return outside(a.router.Active(), time.Now()) }

// watch evaluates the rules over the store and sends their alerts.
func (a *alerts) watch(r role, api clients, factory informers.SharedInformerFactory, n numbers, everywhere storage.Queryable, prom *promapi.API, lines *lines, page *url.URL, lacks *lacking) error {
	a.courier = newCourier(r, a.router, lookups(prom, lines), lines.told.note, page)
	objects := ruleObjects{watchObjects(api.dynamic, prometheusRules, r.part("objects"))}
	from, err := newRuleSources(objects, api.dynamic, factory.Core().V1().Namespaces(), r.cfg.Path("rule-objects.json"), r.part("objects"))
	if err != nil {
		return err
	}
	a.rules = rule.New(rule.Config{Interval: evaluation, Dir: r.cfg.RulesDir, ExternalURL: page},
		rule.Data{Query: forRules(prom), Queryable: everywhere, Append: n.store, Within: withinNamespace,
			Refresh: func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, evaluation)
				defer cancel()
				return n.state.Gather(ctx)
			}},
		from.sources, func(ctx context.Context, in ...rule.Alert) error {
			return a.courier.Send(ctx, byRules(in)...)
		}, r.part("rules"), r.reg)
	a.whose = from.whose
	others := rule.NewOutside(evaluation, func() (out []map[string]string) {
		for _, x := range a.fromOutside() {
			out = append(out, x.Labels)
		}
		return out
	}, n.store, r.part("rules"), r.reg)
	for what, informer := range map[string]cache.SharedIndexInformer{
		"pods": factory.Core().V1().Pods().Informer(), "nodes": factory.Core().V1().Nodes().Informer(), "deployments": factory.Apps().V1().Deployments().Informer(),
	} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			UpdateFunc: func(old, now any) {
				if otherState(old, now) {
					a.rules.Changed()
				}
			},
			DeleteFunc: func(any) { a.rules.Changed() },
		}); err != nil {
			return fmt.Errorf("watch %s for alerts: %w", what, err)
		}
	}
	r.group.Go("route", a.router.Run)
	r.group.Go("evidence", a.courier.Run)
	r.group.Go("ruleobjects", objects.Run)
	r.group.Go("rulesources", from.Run)
	r.group.Go("rules", func(ctx context.Context) error {
		if lacks.wait(ctx, firstEvaluation, r.part("rules")); ctx.Err() != nil {
			return nil
		}
		return a.rules.Run(ctx)
	})
	r.group.Go("outside", others.Run)
	r.group.Go("silenceends", newSilenceEnds(a.router, lines, r.part("alerts")).Run)
	return nil
}

// otherState answers whether what rules may look at differs: heartbeats and
// annotations are not state.
func otherState(old, now any) bool {
	switch now := now.(type) {
	case *corev1.Pod:
		old, ok := old.(*corev1.Pod)
		return ok && (old.Status.Phase != now.Status.Phase || old.Status.Reason != now.Status.Reason || (old.DeletionTimestamp == nil) != (now.DeletionTimestamp == nil) ||
			!slices.EqualFunc(old.Status.Conditions, now.Status.Conditions, func(a, b corev1.PodCondition) bool {
				return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason
			}) ||
			!slices.EqualFunc(old.Status.InitContainerStatuses, now.Status.InitContainerStatuses, sameContainer) ||
			!slices.EqualFunc(old.Status.ContainerStatuses, now.Status.ContainerStatuses, sameContainer))
	case *corev1.Node:
		old, ok := old.(*corev1.Node)
		return ok && (old.Spec.Unschedulable != now.Spec.Unschedulable ||
			!slices.EqualFunc(old.Status.Conditions, now.Status.Conditions, func(a, b corev1.NodeCondition) bool {
				return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason
			}))
	case *appsv1.Deployment:
		old, ok := old.(*appsv1.Deployment)
		a, b := old.Status, now.Status
		return ok && (old.Generation != now.Generation || a.Replicas != b.Replicas || a.ReadyReplicas != b.ReadyReplicas || a.AvailableReplicas != b.AvailableReplicas ||
			a.UpdatedReplicas != b.UpdatedReplicas || a.UnavailableReplicas != b.UnavailableReplicas ||
			!slices.EqualFunc(a.Conditions, b.Conditions, func(a, b appsv1.DeploymentCondition) bool {
				return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason
			}))
	}
	return false
}

func sameContainer(a, b corev1.ContainerStatus) bool {
	return a.Name == b.Name && a.RestartCount == b.RestartCount && a.Ready == b.Ready && containerState(a.State) == containerState(b.State) && containerState(a.LastTerminationState) == containerState(b.LastTerminationState)
}

// containerState writes a state with the instance it belongs to.
func containerState(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return "waiting " + s.Waiting.Reason
	case s.Terminated != nil:
		return "terminated " + s.Terminated.Reason + " " + s.Terminated.ContainerID
	case s.Running != nil:
		return "running"
	}
	return ""
}
