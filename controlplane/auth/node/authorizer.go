package node

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	nodeIndex = "perch/node/name" // pods by spec.nodeName

	// An agent hears of a pod through its watch at the same moment as our
	// informer, and asks for its secrets at once. We let the informer catch up
	// before we say no, which would cost the agent a whole back-off.
	patience = 100 * time.Millisecond
	glance   = 5 * time.Millisecond
)

// Authorizer decides for users that are nodes; others get no opinion.
type Authorizer struct {
	pods   cache.Indexer
	claims corelisters.PersistentVolumeClaimLister
}

var _ authorizer.Authorizer = (*Authorizer)(nil)

// New adds its index to the pod informer.
func New(f informers.SharedInformerFactory) (*Authorizer, error) {
	pods := f.Core().V1().Pods().Informer()
	if _, ok := pods.GetIndexer().GetIndexers()[nodeIndex]; !ok {
		err := pods.AddIndexers(cache.Indexers{nodeIndex: func(object any) ([]string, error) {
			pod, ok := object.(*corev1.Pod)
			if !ok || pod.Spec.NodeName == "" {
				return nil, nil
			}
			return []string{pod.Spec.NodeName}, nil
		}})
		if err != nil {
			return nil, fmt.Errorf("index pods by node: %w", err)
		}
	}
	return &Authorizer{pods: pods.GetIndexer(), claims: f.Core().V1().PersistentVolumeClaims().Lister()}, nil
}

// Authorize allows what Decide says yes to. It may wait up to patience when a
// pod that would justify the request is not known yet.
func (n *Authorizer) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	name, ok := NameOf(a.GetUser())
	if !ok {
		return authorizer.DecisionNoOpinion, "", nil
	}
	decision, reason := n.decide(a, name)
	if decision == NoReference {
		limit, tick := time.NewTimer(patience), time.NewTicker(glance)
		defer limit.Stop()
		defer tick.Stop()
		for waiting := true; waiting && decision == NoReference; {
			select {
			case <-ctx.Done():
				waiting = false
			case <-limit.C:
				waiting = false
			case <-tick.C:
				decision, reason = n.decide(a, name)
			}
		}
	}
	if decision == Yes {
		return authorizer.DecisionAllow, "node: " + reason, nil
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

func (n *Authorizer) decide(a authorizer.Attributes, name string) (Decision, string) {
	objects, err := n.pods.ByIndex(nodeIndex, name)
	if err != nil {
		panic("BUG: pods are not indexed by node: " + err.Error())
	}
	pods := make([]*corev1.Pod, 0, len(objects))
	for _, o := range objects {
		pods = append(pods, o.(*corev1.Pod))
	}
	return Decide(a, name, Facts{Pods: pods, Volume: func(namespace, claim string) string {
		have, err := n.claims.PersistentVolumeClaims(namespace).Get(claim)
		if err != nil {
			return "" // not there yet
		}
		return have.Spec.VolumeName
	}})
}
