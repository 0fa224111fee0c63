package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/controlplane/event"
)

// Config of the scheduler.
type Config struct {
	Name    string // pods ask for it in spec.schedulerName
	Binders int    // bindings on their way at once; further ones wait
}

// Default is the scheduler pods ask for when they do not ask.
func Default() Config { return Config{Name: corev1.DefaultSchedulerName, Binders: 16} }

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs error
	if c.Name == "" {
		errs = errors.Join(errs, errors.New("scheduler name is missing"))
	}
	if c.Binders < 1 {
		errs = errors.Join(errs, fmt.Errorf("scheduler binders %d: want 1 or more", c.Binders))
	}
	return errs
}

// Scheduler binds waiting pods.
type Scheduler struct {
	cfg        Config
	kube       kubernetes.Interface
	sources    sources
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	tell       event.Tell
	log        *slog.Logger
	metrics    metrics

	cache *cache
	queue *queue
}

// New makes a scheduler and registers its needs with the factory, which must be
// started after New. It starts nothing.
func New(cfg Config, kube kubernetes.Interface, factory informers.SharedInformerFactory, tell event.Tell, log *slog.Logger, reg prometheus.Registerer) (*Scheduler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	core := factory.Core().V1()
	return &Scheduler{
		cfg: cfg, kube: kube, tell: tell, log: log, metrics: newMetrics(reg),
		sources: sources{
			pods: core.Pods().Informer(), nodes: core.Nodes().Informer(), namespaces: core.Namespaces().Informer(),
			claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(),
		},
		pods: core.Pods().Lister(), namespaces: core.Namespaces().Lister(),
		claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		cache: newCache(), queue: newQueue(),
	}, nil
}

// Run binds pods until ctx ends; then it waits for bindings on their way.
func (s *Scheduler) Run(ctx context.Context) error {
	s.cache, s.queue = newCache(), newQueue() // nothing is remembered from an earlier term
	stop, synced, err := s.sources.follow(s)
	defer stop()
	if err != nil {
		return fmt.Errorf("watch for scheduler: %w", err)
	}
	if !waitFor(ctx, synced) {
		return nil
	}
	var binders sync.WaitGroup
	defer binders.Wait()
	slots := make(chan struct{}, s.cfg.Binders)
	defer s.metrics.lengths(0, 0, 0) // another server's queue holds them now
	for {
		s.metrics.lengths(s.queue.lengths(time.Now()))
		next, wait, ok := s.queue.pop(time.Now())
		if !ok {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-s.queue.change:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		next.began = time.Now()
		pod, decision := s.decide(next)
		if pod == nil {
			continue
		}
		if len(pod.Spec.SchedulingGates) > 0 { // the removal of the gates queues it again
			s.condition(ctx, pod, corev1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates")
			continue
		}
		if decision.Node == "" {
			s.refuse(ctx, next, pod, decision)
			continue
		}
		s.cache.put(pod, decision.Node) // counted from now on
		select {
		case <-ctx.Done():
			return nil
		case slots <- struct{}{}:
		}
		binders.Go(func() {
			s.bind(ctx, next, pod, decision)
			<-slots
		})
	}
}

// decide looks at the newest state of a pod; nil when it does not wait any more.
func (s *Scheduler) decide(next item) (*corev1.Pod, Decision) {
	pod, err := s.pods.Pods(next.namespace).Get(next.name)
	if err != nil || pod.UID != next.uid || !s.waits(pod) || s.cache.has(pod.UID) {
		return nil, Decision{}
	}
	began := time.Now()
	decision := Decide(pod, s.snapshot())
	took := time.Since(began).Seconds()
	s.metrics.duration.Observe(took)
	s.metrics.algorithm.Observe(took)
	return pod, decision
}

func (s *Scheduler) snapshot() Snapshot {
	snapshot := Snapshot{
		Nodes: s.cache.snapshot(), Namespaces: map[string]labels.Set{},
		Claims: func(namespace, name string) *corev1.PersistentVolumeClaim {
			claim, err := s.claims.PersistentVolumeClaims(namespace).Get(name)
			if err != nil {
				return nil // a lister over a cache only misses
			}
			return claim
		},
		Volumes: func(name string) *corev1.PersistentVolume {
			volume, err := s.volumes.Get(name)
			if err != nil {
				return nil
			}
			return volume
		},
	}
	namespaces, err := s.namespaces.List(labels.Everything())
	if err == nil {
		for _, ns := range namespaces {
			snapshot.Namespaces[ns.Name] = ns.Labels
		}
	}
	return snapshot
}

func (s *Scheduler) waits(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && pod.Spec.SchedulerName == s.cfg.Name &&
		pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func (s *Scheduler) bind(ctx context.Context, next item, pod *corev1.Pod, decision Decision) {
	err := s.kube.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: decision.Node},
	}, metav1.CreateOptions{})
	if err == nil {
		s.metrics.ended(s.cfg.Name, "bound", next)
		s.say(pod, event.Normal, "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s (score %d, best of %d fitting among %d nodes)",
			pod.Namespace, pod.Name, decision.Node, decision.Score, decision.Fitting, decision.Nodes))
		return
	}
	s.metrics.ended(s.cfg.Name, "error", next)
	if fresh, getErr := s.pods.Pods(pod.Namespace).Get(pod.Name); getErr != nil || fresh.UID != pod.UID || fresh.Spec.NodeName != "" {
		if getErr != nil {
			s.cache.drop(pod.UID)
		}
		return // deleted, or the binding did arrive
	}
	s.cache.drop(pod.UID)
	if ctx.Err() != nil || apierrors.IsNotFound(err) {
		return
	}
	s.log.Warn("binding was refused", "namespace", pod.Namespace, "pod", pod.Name, "node", decision.Node, "err", err)
	s.say(pod, event.Warning, "FailedScheduling", fmt.Sprintf("binding to node %s: %v", decision.Node, err))
	s.queue.retry(time.Now(), next, false)
}

// refuse records why a pod has no node and parks it until something changes.
func (s *Scheduler) refuse(ctx context.Context, next item, pod *corev1.Pod, decision Decision) {
	s.metrics.ended(s.cfg.Name, "unschedulable", next)
	message := decision.Explain()
	s.say(pod, event.Warning, "FailedScheduling", message)
	s.queue.retry(time.Now(), next, true)
	s.condition(ctx, pod, corev1.PodReasonUnschedulable, message)
}

// condition writes PodScheduled=False with its reason, unless it says so already.
func (s *Scheduler) condition(ctx context.Context, pod *corev1.Pod, reason, message string) {
	since := metav1.Now()
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodScheduled {
			continue
		}
		if c.Status == corev1.ConditionFalse && c.Reason == reason && c.Message == message {
			return
		}
		if c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
			since = c.LastTransitionTime
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message,
			LastTransitionTime: since, ObservedGeneration: pod.Generation,
		}}},
	})
	if err == nil {
		_, err = s.kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.log.Warn("pod condition was not written", "namespace", pod.Namespace, "pod", pod.Name, "reason", reason, "err", err)
	}
}

func (s *Scheduler) say(pod *corev1.Pod, kind, reason, message string) {
	s.tell(event.Record{Component: s.cfg.Name, Object: event.Ref(pod, "v1", "Pod"), Type: kind, Reason: reason, Message: message})
}
