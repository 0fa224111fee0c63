package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	recountEvery = time.Minute
	// settle lets several endings be answered by one count.
	settle = 500 * time.Millisecond
	page   = 500
)

// Controller keeps the status of ResourceQuotas true. It writes nothing else.
type Controller struct {
	client   kubernetes.Interface
	objects  metadata.Interface
	quotas   corelisters.ResourceQuotaLister
	informer cache.SharedIndexInformer
	enders   []cache.SharedIndexInformer // whose objects give something back
	registry quota.Registry
	log      *slog.Logger
	counts   *prometheus.CounterVec
	queue    workqueue.TypedRateLimitingInterface[string] // at most one entry per quota
}

// New must be called before the informers start. objects lists kinds of which
// only the number matters.
func New(client kubernetes.Interface, objects metadata.Interface, f informers.SharedInformerFactory, log *slog.Logger, reg prometheus.Registerer) *Controller {
	core := f.Core().V1()
	c := &Controller{
		client: client, objects: objects, log: log,
		quotas: core.ResourceQuotas().Lister(), informer: core.ResourceQuotas().Informer(),
		enders: []cache.SharedIndexInformer{core.Pods().Informer(), core.Services().Informer(), core.PersistentVolumeClaims().Informer()},
		counts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_quota_counts_total", Help: "Counts of a quota's usage by result.",
		}, []string{"result"}),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
	length := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "perch_quota_queue_length", Help: "Quotas that wait for a count; never more than there are quotas.",
	}, func() float64 { return float64(c.queue.Len()) })
	reg.MustRegister(c.counts, length)
	pods, services, claims := core.Pods().Lister(), core.Services().Lister(), core.PersistentVolumeClaims().Lister()
	c.registry = generic.NewRegistry(Configuration(func(gvr schema.GroupVersionResource) generic.ListFuncByNamespace {
		switch gvr.GroupResource() {
		case corev1.Resource("pods"):
			return func(ns string) ([]runtime.Object, error) { return plain(pods.Pods(ns).List(labels.Everything())) }
		case corev1.Resource("services"):
			return func(ns string) ([]runtime.Object, error) {
				return plain(services.Services(ns).List(labels.Everything()))
			}
		case corev1.Resource("persistentvolumeclaims"):
			return func(ns string) ([]runtime.Object, error) {
				return plain(claims.PersistentVolumeClaims(ns).List(labels.Everything()))
			}
		}
		return c.number(gvr)
	}).Evaluators())
	return c
}

func plain[T runtime.Object](list []T, err error) ([]runtime.Object, error) {
	out := make([]runtime.Object, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out, err
}

// number lists as many nothings as there are objects: the evaluator of such
// kinds looks at their number only.
func (c *Controller) number(gvr schema.GroupVersionResource) generic.ListFuncByNamespace {
	return func(namespace string) ([]runtime.Object, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		n, options := int64(0), metav1.ListOptions{Limit: page}
		for {
			list, err := c.objects.Resource(gvr).Namespace(namespace).List(ctx, options)
			if err != nil {
				return nil, fmt.Errorf("count %s in %s: %w", gvr.Resource, namespace, err)
			}
			n += int64(len(list.Items))
			if list.RemainingItemCount != nil {
				n += *list.RemainingItemCount
				break
			}
			if list.Continue == "" {
				break
			}
			options.Continue = list.Continue
		}
		return make([]runtime.Object, n), nil
	}
}

// Run counts until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	defer c.queue.ShutDown()
	quotaEvents, err := c.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { c.enqueue(o, 0) },
		UpdateFunc: func(old, now any) {
			if !equality.Semantic.DeepEqual(old.(*corev1.ResourceQuota).Spec, now.(*corev1.ResourceQuota).Spec) {
				c.enqueue(now, 0)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch quotas: %w", err)
	}
	defer func() { _ = c.informer.RemoveEventHandler(quotaEvents) }() // the informer may be stopped already
	synced := []cache.InformerSynced{quotaEvents.HasSynced}
	for _, informer := range c.enders {
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			UpdateFunc: func(old, now any) {
				if givesBack(old, now) {
					c.enqueueNamespace(now)
				}
			},
			DeleteFunc: c.enqueueNamespace,
		})
		if err != nil {
			return fmt.Errorf("watch objects under quota: %w", err)
		}
		defer func() { _ = informer.RemoveEventHandler(registration) }() // as above
		synced = append(synced, registration.HasSynced)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	worker := make(chan struct{})
	go func() {
		defer close(worker)
		for c.next(ctx) {
		}
	}()
	defer func() { c.queue.ShutDown(); <-worker }()
	tick := time.NewTicker(recountEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			all, err := c.quotas.List(labels.Everything())
			if err != nil {
				return fmt.Errorf("list quotas: %w", err)
			}
			for _, q := range all {
				c.enqueue(q, 0)
			}
		}
	}
}

// givesBack reports changes after which an object may cost less.
func givesBack(old, now any) bool {
	if before, ok := old.(*corev1.Pod); ok {
		return !ended(before) && ended(now.(*corev1.Pod))
	}
	if before, ok := old.(*corev1.Service); ok {
		return !equality.Semantic.DeepEqual(before.Spec, now.(*corev1.Service).Spec)
	}
	return false
}

func (c *Controller) enqueue(object any, after time.Duration) {
	if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
		c.queue.AddAfter(key, after)
	}
}

func (c *Controller) enqueueNamespace(object any) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
	if err != nil {
		return // not an object of ours
	}
	namespace, _, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return // as above
	}
	all, err := c.quotas.ResourceQuotas(namespace).List(labels.Everything())
	if err != nil {
		return // a lister of an informer does not fail; the minute's count would heal it
	}
	for _, q := range all {
		c.enqueue(q, settle)
	}
}

func (c *Controller) next(ctx context.Context) bool {
	key, down := c.queue.Get()
	if down {
		return false
	}
	defer c.queue.Done(key)
	err := c.count(ctx, key)
	switch {
	case err == nil:
		c.counts.WithLabelValues("ok").Inc()
		c.queue.Forget(key)
	case ctx.Err() != nil:
	case apierrors.IsConflict(err):
		c.counts.WithLabelValues("conflict").Inc()
		c.queue.AddRateLimited(key)
	default:
		c.counts.WithLabelValues("error").Inc()
		c.log.Warn("quota not counted", "quota", key, "err", err)
		c.queue.AddRateLimited(key)
	}
	return true
}

func (c *Controller) count(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return fmt.Errorf("read key %q: %w", key, err)
	}
	have, err := c.quotas.ResourceQuotas(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get quota %s: %w", key, err)
	}
	hard := quota.Add(corev1.ResourceList{}, have.Spec.Hard)
	used, countErr := quota.CalculateUsage(namespace, have.Spec.Scopes, hard, c.registry, have.Spec.ScopeSelector)
	// What could not be counted keeps its last number.
	status := Next(have, used)
	if status == nil {
		return countErr
	}
	update := have.DeepCopy()
	update.Status = *status
	if _, err := c.client.CoreV1().ResourceQuotas(namespace).UpdateStatus(ctx, update, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return errors.Join(countErr, err)
	}
	return countErr
}

// Next is the status that a quota should have, nil when it has it already.
func Next(have *corev1.ResourceQuota, used corev1.ResourceList) *corev1.ResourceQuotaStatus {
	next := corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{}, Used: corev1.ResourceList{}}
	for name, q := range have.Spec.Hard {
		next.Hard[name] = q
		if u, ok := used[name]; ok {
			next.Used[name] = u
		} else if u, ok := have.Status.Used[name]; ok {
			next.Used[name] = u
		}
	}
	if quota.Equals(next.Hard, have.Status.Hard) && quota.Equals(next.Used, have.Status.Used) {
		return nil
	}
	return &next
}
