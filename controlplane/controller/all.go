package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"

	"perch/controlplane/controller/reconcile"
	"perch/controlplane/event"
)

// Clients reach the API server.
type Clients struct {
	Kube     kubernetes.Interface
	Metadata metadata.Interface // for kinds known only by discovery: custom resources
}

// deps is what every controller is built from.
type deps struct {
	cfg       Config
	kube      kubernetes.Interface
	metadata  metadata.Interface
	informers informers.SharedInformerFactory
	tell      event.Tell
	log       *slog.Logger
}

func (d deps) keeper(component string, kind schema.GroupVersionKind, pods corelisters.PodLister) podKeeper {
	return podKeeper{component: component, kind: kind, kube: d.kube, pods: pods, tell: d.tell, expect: reconcile.NewExpectations()}
}

// Set is all controllers of one server.
type Set struct {
	loops   []*reconcile.Controller
	log     *slog.Logger
	metrics *reconcile.Metrics
}

// All builds every controller. It starts nothing; factory must be started after
// All returned and before or while Run runs.
func All(cfg Config, clients Clients, factory informers.SharedInformerFactory, tell event.Tell, log *slog.Logger, reg prometheus.Registerer) (*Set, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := deps{cfg, clients.Kube, clients.Metadata, factory, tell, log}
	return &Set{loops: loops(d), log: log, metrics: reconcile.NewMetrics(reg)}, nil
}

// Run runs all controllers until ctx ends or one of them fails.
func (s *Set) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		errs  error
	)
	for _, loop := range s.loops {
		group.Go(func() {
			if err := loop.Run(ctx, s.log, s.metrics); err != nil {
				mu.Lock()
				errs = errors.Join(errs, fmt.Errorf("controller %s: %w", loop.Name, err))
				mu.Unlock()
				cancel()
			}
		})
	}
	group.Wait()
	return errs
}
