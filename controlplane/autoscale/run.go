package autoscale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	autoscalinglisters "k8s.io/client-go/listers/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"

	"perch/controlplane/event"
)

// Config of the judgement; the defaults are Kubernetes' but for the pace.
type Config struct {
	Every     time.Duration // how often all autoscalers are judged: at whole multiples, as samples are taken
	Lag       time.Duration // after each multiple, when its samples are stored
	Workers   int           // autoscalers judged at once
	Tolerance float64       // share of the goal that is close enough
	Timing    Timing
}

// Default looks every five seconds at numbers of the last fifteen: three
// samples of a node, ten seconds of work, and still two when one is late. A
// shorter window would judge by two neighbouring samples, that is by noise.
func Default() Config {
	return Config{Every: 5 * time.Second, Lag: 700 * time.Millisecond, Workers: 4, Tolerance: 0.1, Timing: Timing{
		CPUInitialization: 5 * time.Minute, InitialReadiness: 30 * time.Second, Window: 15 * time.Second,
	}}
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs error
	if c.Every < time.Second {
		errs = errors.Join(errs, fmt.Errorf("autoscale every %s: want 1s or more", c.Every))
	}
	if c.Lag < 0 || c.Lag >= c.Every {
		errs = errors.Join(errs, fmt.Errorf("autoscale lag %s: want less than every, %s", c.Lag, c.Every))
	}
	if c.Workers < 1 {
		errs = errors.Join(errs, fmt.Errorf("autoscale workers %d: want 1 or more", c.Workers))
	}
	if c.Tolerance < 0 || c.Tolerance >= 1 {
		errs = errors.Join(errs, fmt.Errorf("autoscale tolerance %g: want 0 to 1", c.Tolerance))
	}
	if c.Timing.Window < time.Second {
		errs = errors.Join(errs, fmt.Errorf("autoscale window %s: want 1s or more", c.Timing.Window))
	}
	return errs
}

// Scales makes the two clients New needs besides the common one.
func Scales(cfg *rest.Config, disco discovery.DiscoveryInterface) (scale.ScalesGetter, meta.ResettableRESTMapper, error) {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))
	scales, err := scale.NewForConfig(cfg, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(disco))
	if err != nil {
		return nil, nil, fmt.Errorf("make scale client: %w", err)
	}
	return scales, mapper, nil
}

// Autoscaler judges all HorizontalPodAutoscalers.
type Autoscaler struct {
	cfg         Config
	kube        kubernetes.Interface
	scales      scale.ScalesGetter
	mapper      meta.RESTMapper
	query       Query
	custom      Custom
	autoscalers autoscalinglisters.HorizontalPodAutoscalerLister
	pods        corelisters.PodLister
	synced      []cache.InformerSynced
	tell        event.Tell
	log         *slog.Logger
	metrics     metrics

	mu     sync.Mutex
	memory map[types.UID]Memory // one entry per autoscaler; dropped with it
}

// New makes an autoscaler and registers its needs with the factory, which must be
// started after New. It starts nothing.
func New(cfg Config, kube kubernetes.Interface, scales scale.ScalesGetter, mapper meta.RESTMapper, factory informers.SharedInformerFactory, query Query, custom Custom, tell event.Tell, log *slog.Logger, reg prometheus.Registerer) (*Autoscaler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	autoscalers, pods := factory.Autoscaling().V2().HorizontalPodAutoscalers(), factory.Core().V1().Pods()
	return &Autoscaler{
		cfg: cfg, kube: kube, scales: scales, mapper: mapper, query: query, custom: custom,
		autoscalers: autoscalers.Lister(), pods: pods.Lister(),
		synced: []cache.InformerSynced{autoscalers.Informer().HasSynced, pods.Informer().HasSynced},
		tell:   tell, log: log, metrics: newMetrics(reg), memory: map[types.UID]Memory{},
	}, nil
}

// Run judges all autoscalers at the configured pace until ctx ends.
func (a *Autoscaler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), a.synced...) {
		return nil
	}
	for {
		a.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.cfg.untilNext(time.Now())):
		}
	}
}

// untilNext is the time to the next look: Lag after a multiple of Every.
func (c Config) untilNext(now time.Time) time.Duration {
	next := now.Truncate(c.Every).Add(c.Lag)
	for !next.After(now) {
		next = next.Add(c.Every)
	}
	return next.Sub(now)
}

func (a *Autoscaler) look(ctx context.Context) {
	all, err := a.autoscalers.List(labels.Everything())
	if err != nil {
		return // a lister over a cache does not fail
	}
	a.metrics.targets.Set(float64(len(all)))
	present := map[types.UID]bool{}
	var group sync.WaitGroup
	slots := make(chan struct{}, a.cfg.Workers)
	for _, h := range all {
		present[h.UID] = true
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			began := time.Now()
			a.judge(ctx, began, h)
			a.metrics.duration.Observe(time.Since(began).Seconds())
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return
	}
	a.metrics.success.Set(float64(time.Now().Unix()))
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid := range a.memory {
		if !present[uid] {
			delete(a.memory, uid)
		}
	}
}

// judge looks at one autoscaler: read the scale, ask for numbers, decide, act, tell.
func (a *Autoscaler) judge(ctx context.Context, now time.Time, h *autoscalingv2.HorizontalPodAutoscaler) {
	status := *h.Status.DeepCopy()
	status.ObservedGeneration = &h.Generation
	target, resource, err := a.target(ctx, h)
	if err != nil {
		a.fail(ctx, h, "scale", "FailedGetScale", err)
		status.Conditions = setCondition(now, status.Conditions, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", "the HPA controller was unable to get the target's current scale: "+err.Error())
		a.write(ctx, h, status)
		return
	}
	status.Conditions = setCondition(now, status.Conditions, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	seen := h.DeepCopy()
	seen.Status.Conditions = status.Conditions
	in := Input{Autoscaler: seen, Current: target.Spec.Replicas, Memory: a.recall(h.UID)}
	in.Proposals, status.CurrentMetrics, in.Partial, in.IsPartial = a.measure(ctx, now, h, target)
	out := Decide(now, in)
	status.Conditions = out.Conditions
	status.CurrentReplicas, status.DesiredReplicas = target.Status.Replicas, out.Desired
	if out.Desired != in.Current {
		if err := a.rescale(ctx, h, target, resource, out); err != nil {
			a.fail(ctx, h, "scale", "FailedUpdateScale", err)
			status.Conditions = setCondition(now, status.Conditions, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", "the HPA controller was unable to update the target scale: "+err.Error())
			status.DesiredReplicas = in.Current
			a.write(ctx, h, status)
			return // nothing was done: nothing is remembered
		}
		stamp := metav1.NewTime(now)
		status.LastScaleTime = &stamp
		status.Conditions = setCondition(now, status.Conditions, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", out.Desired))
	}
	a.remember(h.UID, out.Memory)
	for _, p := range in.Proposals {
		if p.Err != nil && out.Desired == in.Current {
			a.fail(ctx, h, "query", failureReason(p.Err), p.Err)
			break
		}
	}
	a.write(ctx, h, status)
}

func (a *Autoscaler) recall(uid types.UID) Memory {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.memory[uid]
}

func (a *Autoscaler) remember(uid types.UID, m Memory) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.memory[uid] = m
}

func (a *Autoscaler) target(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) (*autoscalingv1.Scale, schema.GroupResource, error) {
	ref := h.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, schema.GroupResource{}, fmt.Errorf("read apiVersion %q of scaleTargetRef: %w", ref.APIVersion, err)
	}
	mapping, err := a.mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: ref.Kind}, gv.Version)
	if err != nil {
		meta.MaybeResetRESTMapper(a.mapper) // the kind may be newer than the mapper's knowledge
		return nil, schema.GroupResource{}, fmt.Errorf("find resource of kind %s: %w", ref.Kind, err)
	}
	resource := mapping.Resource.GroupResource()
	found, err := a.scales.Scales(h.Namespace).Get(ctx, resource, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, resource, fmt.Errorf("read scale of %s %s/%s: %w", ref.Kind, h.Namespace, ref.Name, err)
	}
	return found, resource, nil
}

func (a *Autoscaler) rescale(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, target *autoscalingv1.Scale, resource schema.GroupResource, out Output) error {
	fresh := target.DeepCopy()
	fresh.Spec.Replicas = out.Desired
	if _, err := a.scales.Scales(h.Namespace).Update(ctx, resource, fresh, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update scale of %s %s/%s: %w", h.Spec.ScaleTargetRef.Kind, h.Namespace, target.Name, err)
	}
	direction := "out"
	if out.Desired < target.Spec.Replicas {
		direction = "in"
	}
	a.metrics.rescales.WithLabelValues(direction).Inc()
	a.tell(event.Record{
		Component: "horizontal-pod-autoscaler", Object: event.Ref(h, "autoscaling/v2", "HorizontalPodAutoscaler"), Type: event.Normal, Reason: "SuccessfulRescale",
		Message: fmt.Sprintf("New size: %d; reason: %s → %d", out.Desired, out.Reason, out.Desired),
	})
	return nil
}

func (a *Autoscaler) write(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, status autoscalingv2.HorizontalPodAutoscalerStatus) {
	if apiequality.Semantic.DeepEqual(h.Status, status) {
		return
	}
	fresh := h.DeepCopy()
	fresh.Status = status
	_, err := a.kube.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		a.metrics.errors.WithLabelValues("status").Inc()
		a.log.Warn("autoscaler status was not written", "namespace", h.Namespace, "name", h.Name, "err", err)
	}
}

func (a *Autoscaler) fail(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, step, reason string, err error) {
	if ctx.Err() != nil {
		return
	}
	a.metrics.errors.WithLabelValues(step).Inc()
	for _, c := range h.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Reason == reason {
			return // told when it began; the condition goes on saying it
		}
	}
	a.tell(event.Record{
		Component: "horizontal-pod-autoscaler", Object: event.Ref(h, "autoscaling/v2", "HorizontalPodAutoscaler"),
		Type: event.Warning, Reason: reason, Message: err.Error(),
	})
}
