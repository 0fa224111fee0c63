package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/agent/stats"

	"perch/cmd/perch/trial"
)

// The pods of collectCost: some wait, some start a program each second, some
// are scraped.
const (
	waitingPods = 30
	busyPods    = 10
	scrapedPods = 10
)

// source is who made a cost. Those below are collection, all others are not.
type source string

const (
	fastCgroups source = "cgroups, fast"
	restCgroups source = "cgroups, the rest"
	wayToStore  source = "agent's samples to the store"
	objectState source = "state of objects"
	machine     source = "machine (node_exporter's)"
	localStored source = "these and telemetry's own, stored"
	scrapes     source = "scrapes"
	answers     source = "answers to scrapes, pulses"
	upkeep      source = "store: blocks, chunks, WAL"

	garbage  source = "garbage collection"
	waking   source = "runtime, no goroutine"
	theOther source = "other work"
)

func collectors() []source {
	return []source{fastCgroups, restCgroups, wayToStore, objectState, machine, localStored, scrapes, answers, upkeep}
}

// sourceOf names who a stack of a role works for. What asks the store is not
// collection, though it runs the store's code; so it comes first.
func sourceOf(role string) func(frames []string) string {
	return func(frames []string) string { return string(decideSource(role, frames)) }
}

func decideSource(role string, frames []string) source {
	const prom = "github.com/prometheus/prometheus/"
	switch {
	case has(frames, "runtime.gcBgMarkWorker", "runtime.bgsweep", "runtime.bgscavenge"):
		return garbage
	case has(frames, "perch/alerts/", "perch/metrics/promapi", "perch/metrics/custom", prom+"promql.", prom+"rules."):
		return theOther
	case has(frames, "perch/agent/stats.(*outbox)", "perch/metrics/stream."):
		return wayToStore
	case has(frames, "perch/agent/stats.(*Stats).look", "perch/agent/stats.(*Stats).runRest", "perch/agent/stats.(*Stats).found"):
		return restCgroups
	case has(frames, "perch/agent/stats."):
		return fastCgroups
	case has(frames, "perch/metrics/exporter.(*Objects)"):
		return objectState
	case has(frames, "perch/metrics/exporter."):
		return machine
	case has(frames, "perch/metrics/scrape.(*Loop).runLocal"):
		return localStored
	case has(frames, prom+"scrape.", "perch/metrics/scrape.", "perch/metrics/target."):
		return scrapes
	case has(frames, "github.com/prometheus/client_golang/prometheus.", "github.com/prometheus/client_golang/prometheus/promhttp."):
		return answers
	case has(frames, prom+"tsdb"):
		return upkeep
	case has(frames, "net/http.(*persistConn)") && role == "agent":
		return wayToStore // its one client that speaks HTTP/1
	case has(frames, "net/http.(*persistConn)") && role == "telemetry":
		return scrapes
	case onlyRuntime(frames):
		return waking
	}
	return theOther
}

func onlyRuntime(frames []string) bool {
	for _, f := range frames {
		if !has([]string{f}, "runtime.", "runtime/internal", "internal/runtime") {
			return false
		}
	}
	return true
}

// shareOut gives what nobody asked for to those who caused it: garbage
// collection by what they allocated, the runtime's own by what they used.
func shareOut(cpu, allocated map[string]float64) map[string]float64 {
	out, used, made := map[string]float64{}, 0.0, 0.0
	for k, v := range cpu {
		if source(k) != garbage && source(k) != waking {
			out[k] = v
			used += v
		}
	}
	for _, v := range allocated {
		made += v
	}
	for k := range out {
		out[k] += cpu[string(waking)] * out[k] / max(used, 1e-9)
	}
	for k, v := range allocated {
		out[k] += cpu[string(garbage)] * v / max(made, 1e-9)
	}
	return out
}

// collectCost measures whole processes while 50 pods run, and says what of it
// is collection by what the profiler saw meanwhile.
func collectCost(ctx context.Context, b *bench) (err error) {
	remove, err := b.startCollected(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if err := trial.Pause(ctx, settle); err != nil {
		return err
	}
	procs, err := b.processes(ctx)
	if err != nil {
		return err
	}
	const stored = "prometheus_tsdb_head_samples_appended_total"
	samples, err := b.metric(ctx, "telemetry", stored)
	if err != nil {
		return err
	}
	before, err := b.usage(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	seen, err := b.watchRoles(ctx)
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := b.usage(ctx)
	if err != nil {
		return err
	}
	more, err := b.metric(ctx, "telemetry", stored)
	if err != nil {
		return err
	}
	used := after.since(before)
	cost := map[source]float64{} // CPU seconds
	for role, of := range seen {
		for who, share := range of {
			cost[source(who)] += share * used[role].Seconds()
		}
	}
	sum := 0.0
	for _, s := range collectors() {
		sum += cost[s]
		b.table.add("collect: "+string(s), fmt.Sprintf("%.2f %% of a core", 100*cost[s]/took.Seconds()), "")
	}
	b.table.add("collect: all of collection", fmt.Sprintf("%.2f %% of a core", 100*sum/took.Seconds()), "4 %")
	b.table.add("collect: the rest of the roles", fmt.Sprintf("%.2f %% of a core", 100*cost[theOther]/took.Seconds()), "")
	series, err := b.metric(ctx, "telemetry", "prometheus_tsdb_head_series")
	if err != nil {
		return err
	}
	b.table.add("collect: samples stored", fmt.Sprintf("%.0f /s of %.0f series, %.1f cpu-s/M samples over all", (more-samples)/took.Seconds(), series, sum/(more-samples)*1e6), "")
	if err := b.pathCost(ctx, cost, took); err != nil {
		return err
	}
	return b.collectMemory(ctx, procs)
}

// watchRoles profiles all roles for some minutes: whose work their CPU time was.
func (b *bench) watchRoles(ctx context.Context) (map[string]map[string]float64, error) {
	roles := []string{"runtime", "server", "telemetry", "agent"}
	out := map[string]map[string]float64{}
	var mu sync.Mutex
	var all sync.WaitGroup
	var failed error
	for _, role := range roles {
		all.Go(func() {
			var cpu, allocs profile
			var errs [2]error
			var both sync.WaitGroup
			span := "?seconds=" + strconv.Itoa(int(b.collect.Seconds()))
			both.Go(func() { cpu, errs[0] = b.profile(ctx, role, "profile"+span) })
			both.Go(func() { allocs, errs[1] = b.profile(ctx, role, "allocs"+span) })
			both.Wait()
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, errs[0], errs[1])
			out[role] = shareOut(cpu.shares("cpu", sourceOf(role)), allocs.shares("alloc_space", sourceOf(role)))
		})
	}
	all.Wait()
	return out, failed
}

// pathCost says what a sample of a container costs on its way from the cgroup's
// files to the store.
func (b *bench) pathCost(ctx context.Context, cost map[source]float64, took time.Duration) error {
	counts, err := b.vector(ctx, `count by (__name__) (last_over_time({metrics_path="/metrics/cadvisor"}[30s]))`) // those that go on
	if err != nil {
		return err
	}
	producers, pace := stats.Producers(), stats.Default()
	fast, rest := 0.0, 0.0 // samples
	for name, n := range counts {
		if producers[name] == stats.Fast {
			fast += n * took.Seconds() / pace.Warm.Seconds()
		} else {
			rest += n * took.Seconds() / pace.Cold.Seconds()
		}
	}
	if fast == 0 || rest == 0 {
		return fmt.Errorf("count samples of containers: %v", counts)
	}
	way := cost[wayToStore] / (fast + rest)
	perSecond := func(n float64) float64 { return n / took.Seconds() }
	ring, err := b.ringPoints(ctx)
	if err != nil {
		return err
	}
	least, err := b.leastReading(ctx)
	if err != nil {
		return err
	}
	million := func(seconds, samples float64) string { return fmt.Sprintf("%.2f cpu-s/M samples", seconds/samples*1e6) }
	b.table.add("collect: cgroup file to TSDB, fast path", fmt.Sprintf("%s stored (%.0f /s, of it the way to the store %.2f)",
		million(cost[fastCgroups]+way*fast, fast), perSecond(fast), way*1e6), "1.2")
	b.table.add("collect: the same, by sample looked at", fmt.Sprintf("%s for the ring or stored (%.0f /s, of them %.0f for the ring)",
		million(cost[fastCgroups]+way*fast, fast+ring*took.Seconds()), perSecond(fast)+ring, ring), "")
	b.table.add("collect: bound, fast path", fmt.Sprintf("%s stored: a pread of each of %d files every %s, nothing else; over and over %s",
		million(least.hot, perSecond(fast)*pace.Warm.Seconds()), least.hotFiles, pace.Warm, million(least.hotAgain, perSecond(fast)*pace.Warm.Seconds())), "")
	b.table.add("collect: cgroup file to TSDB, the rest", fmt.Sprintf("%s (%.0f /s)", million(cost[restCgroups]+way*rest, rest), perSecond(rest)), "6")
	b.table.add("collect: bound, the rest", fmt.Sprintf("%s: %d files opened, read and closed, %d links read, every %s, nothing else",
		million(least.cold, perSecond(rest)*pace.Cold.Seconds()), least.coldFiles, least.links, pace.Cold), "")
	return nil
}

// collectMemory shares out what the processes hold in memory by what their heaps
// hold. A process's code is not counted: it is one file, mapped by all.
func (b *bench) collectMemory(ctx context.Context, procs map[string]int) error {
	sum := 0.0
	parts := ""
	for _, role := range []string{"agent", "telemetry", "server"} {
		own, err := smaps(procs[role], "Pss_Anon:")
		if err != nil {
			return err
		}
		files, err := mapped(procs[role], b.cluster.dir+"/metrics/")
		if err != nil {
			return err
		}
		heap, err := b.profile(ctx, role, "heap?gc=1")
		if err != nil {
			return err
		}
		share, of := 0.0, heap.shares("inuse_space", sourceOf(role))
		for _, s := range collectors() {
			share += of[string(s)]
		}
		sum += share*float64(own) + float64(files)
		parts += fmt.Sprintf(", %s %s (%.0f %% of %s, %s of mapped blocks)", role, mib(int64(share*float64(own))+files), 100*share, mib(own), mib(files))
	}
	b.table.add("collect: memory of TSDB and collectors", mib(int64(sum))+parts, "90 MB")
	return nil
}

// series is one series of the answer to a query.
type series struct {
	Metric map[string]string
	Value  [2]any // time, text
}

// query asks the telemetry role for the newest values.
func (b *bench) query(ctx context.Context, expr string) ([]series, error) {
	body, err := b.ask(ctx, "telemetry", "/prometheus/api/v1/query?query="+url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var answer struct{ Data struct{ Result []series } }
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("read answer to %s: %w", expr, err)
	}
	return answer.Data.Result, nil
}

// vector is the answer to a query, by name.
func (b *bench) vector(ctx context.Context, expr string) (map[string]float64, error) {
	list, err := b.query(ctx, expr)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for _, r := range list {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("read answer to %s: %w", expr, err)
		}
		out[r.Metric["__name__"]] += v
	}
	return out, nil
}

func (b *bench) loadBusybox(ctx context.Context) error {
	_, err := b.cluster.run(ctx, "images", "load", "--data-dir", b.cluster.dir, filepath.Join(b.images(b.root), "busybox.tar"))
	return err
}

// startCollected starts the pods of collectCost; remove deletes them.
func (b *bench) startCollected(ctx context.Context) (remove func() error, err error) {
	client, err := b.client()
	if err != nil {
		return nil, err
	}
	if _, err := within(ctx, time.Minute, 20*time.Millisecond, "the ServiceAccount default is there", func() bool {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	}); err != nil {
		return nil, err
	}
	if err := b.loadBusybox(ctx); err != nil {
		return nil, err
	}
	pods := client.CoreV1().Pods("default")
	all := waitingPods + busyPods + scrapedPods
	for i := range all {
		p := pod(fmt.Sprintf("collected-%d", i))
		switch {
		case i < busyPods:
			p.Spec.Containers[0].Image = "docker.io/library/busybox:latest"
			p.Spec.Containers[0].ImagePullPolicy = corev1.PullIfNotPresent
			p.Spec.Containers[0].Args = []string{"sh", "-c", "while :; do sleep 1; done"}
		case i < busyPods+scrapedPods:
			p.Spec.Containers[0].Args = []string{"web"}
			p.Annotations = map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}
		}
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("create pod: %w", err)
		}
	}
	gone := func() error { return removePods(ctx, client) }
	_, err = within(ctx, 2*time.Minute, 200*time.Millisecond, "all pods run", func() bool {
		list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		return err == nil && len(list.Items) == all
	})
	if err != nil {
		return nil, errors.Join(err, gone())
	}
	return gone, nil
}
