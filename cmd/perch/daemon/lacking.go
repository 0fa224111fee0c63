package daemon

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"perch/metrics/promapi"
)

// lacking is what answers over a server's series lack. A server that has just begun
// knows neither its nodes nor the state of objects, and after an outage that is longer
// than a query looks back it has none of its own numbers either: what fired would seem
// to have ended.
type lacking struct {
	self    string
	nodes   corelisters.NodeLister
	synced  []cache.InformerSynced
	silent  func(want []string, now time.Time, patience time.Duration) []string // workers without recent samples
	gather  func(context.Context) error                                         // stores the state of objects
	stopped func(now time.Time) time.Time                                       // until when the store takes nothing
	fewTo   time.Time                                                           // until then this machine's samples are too few

	sampled atomic.Bool
}

const (
	// fewSamples is how long after an outage the sources of this machine take to be
	// sampled twice.
	fewSamples = 35 * time.Second

	// firstEvaluation is how long rules wait at most for what they read: longer, and
	// nobody would hear of what is wrong now.
	firstEvaluation = 45 * time.Second
)

// unreadObjects stands where names of nodes do.
const unreadObjects = "nodes and objects, which are not read yet"

// newLacking begins to count; newest is the time of the store's newest sample in ms
// when it was opened, math.MinInt64 for none.
func newLacking(self string, f informers.SharedInformerFactory, newest int64, now time.Time) *lacking {
	core, apps := f.Core().V1(), f.Apps().V1()
	l := &lacking{self: self, nodes: core.Nodes().Lister()}
	for _, i := range []cache.SharedIndexInformer{core.Nodes().Informer(), core.Pods().Informer(), apps.Deployments().Informer(), apps.ReplicaSets().Informer(), apps.StatefulSets().Informer(),
		apps.DaemonSets().Informer(), f.Batch().V1().Jobs().Informer(), f.Autoscaling().V2().HorizontalPodAutoscalers().Informer()} {
		l.synced = append(l.synced, i.HasSynced)
	}
	if newest != math.MinInt64 && now.Sub(time.UnixMilli(newest)) > promapi.Default().Lookback-fewSamples {
		l.fewTo = now.Add(fewSamples)
	}
	return l
}

// now names the nodes without recent samples, and says in words what else is missing.
func (l *lacking) now(context.Context) []string {
	if !l.sampled.Load() {
		return []string{unreadObjects}
	}
	now := time.Now()
	var workers []string
	for _, n := range all(l.nodes.List) {
		if n.Name != l.self {
			workers = append(workers, n.Name)
		}
	}
	out := l.silent(workers, now, nodePatience)
	if until := l.stopped(now); !until.IsZero() {
		out = append(out, takesNothing(until))
	}
	if now.Before(l.fewTo) {
		out = append(out, l.self)
		slices.Sort(out)
	}
	return out
}

// takesNothing stands where names of nodes do.
func takesNothing(until time.Time) string {
	return "the store of this server, which takes none until " + until.UTC().Format(time.RFC3339) + ": its clock was ahead, or is behind now"
}

// run has the state of objects stored once they are read.
func (l *lacking) run(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		read := !slices.ContainsFunc(l.synced, func(synced cache.InformerSynced) bool { return !synced() })
		if read && l.gather(ctx) == nil { // a store that refuses is asked again
			l.sampled.Store(true)
			<-ctx.Done()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// wait returns when nothing is lacking, or after limit. What begins then sees what it
// saw before the restart: an alert that waits to fire goes on to wait from where it was.
func (l *lacking) wait(ctx context.Context, limit time.Duration, log *slog.Logger) {
	end := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		lacks := l.now(ctx)
		if len(lacks) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-end:
			log.Warn("rules are evaluated although recent samples are missing: what fired before goes on to fire", "of", strings.Join(lacks, ", "))
			return
		case <-tick.C:
		}
	}
}
