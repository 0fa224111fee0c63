package stats

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"perch/agent/cgroup"
)

// CadvisorHandler serves /metrics/cadvisor for an outside Prometheus: the same
// numbers that go to the sink, without the labels a scrape adds.
func (s *Stats) CadvisorHandler() http.Handler { return handler(s.gatherCadvisor) }

// ResourceHandler serves /metrics/resource as kubelet does.
func (s *Stats) ResourceHandler() http.Handler { return handler(s.gatherResource) }

func handler(gather func() []*dto.MetricFamily) http.Handler {
	return promhttp.HandlerFor(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		f := gather()
		slices.SortFunc(f, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return f, nil
	}), promhttp.HandlerOpts{})
}

func (s *Stats) gatherCadvisor() []*dto.MetricFamily {
	s.mu.Lock()
	defer s.mu.Unlock()
	byFamily := map[*family]*dto.MetricFamily{}
	var out []*dto.MetricFamily
	others := restTable()
	ofRest := make([]*dto.MetricFamily, len(others))
	addRest := func(r *rest) {
		for _, x := range r.list {
			if x.round != r.round {
				continue
			}
			f := ofRest[x.key.family]
			if f == nil {
				f = newFamily(others[x.key.family].name, others[x.key.family].help, others[x.key.family].kind)
				ofRest[x.key.family] = f
				out = append(out, f)
			}
			add(f, x.v, x.pairs...)
		}
	}
	addRest(&s.machine)
	for _, t := range s.sorted() {
		own := ownLabels(t.path, t.who)
		for i := range t.series {
			x := &t.series[i]
			if t.state.use.Has&x.row.has != x.row.has || !x.family.applies(t) {
				continue
			}
			f := byFamily[x.family]
			if f == nil {
				f = newFamily(x.family.name, x.family.help, x.family.kind)
				byFamily[x.family] = f
				out = append(out, f)
			}
			// The text format keeps empty labels, as kubelet does.
			add(f, x.row.value(&t.state), append(slices.Clone(own), x.row.pairs...)...)
		}
		addRest(&t.rest)
	}
	return out
}

func (s *Stats) gatherResource() []*dto.MetricFamily {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodeCPU := newFamily("node_cpu_usage_seconds_total", "CPU time used by the node.", Counter)
	nodeMemory := newFamily("node_memory_working_set_bytes", "Working set of the node.", Gauge)
	podCPU := newFamily("pod_cpu_usage_seconds_total", "CPU time used by the pod.", Counter)
	podMemory := newFamily("pod_memory_working_set_bytes", "Working set of the pod.", Gauge)
	cpu := newFamily("container_cpu_usage_seconds_total", "CPU time used by the container.", Counter)
	memory := newFamily("container_memory_working_set_bytes", "Working set of the container.", Gauge)
	start := newFamily("container_start_time_seconds", "When the container started, unix time.", Gauge)
	failed := newFamily("resource_scrape_error", "1 if the numbers could not be read.", Gauge)
	add(failed, 0)
	for _, t := range s.sorted() {
		used, set := ns(t.state.use.CPU.Usage), float64(t.state.use.Memory.WorkingSet)
		pod := []string{"namespace", t.who.Namespace, "pod", t.who.Pod}
		switch {
		case t.path == "/":
			add(nodeCPU, used)
			add(nodeMemory, set)
		case t.who.Container != "":
			own := append([]string{"container", t.who.Container}, pod...)
			add(cpu, used, own...)
			add(memory, set, own...)
			add(start, t.state.start, own...)
		case t.place.podUID != "" && t.place.containerID == "":
			add(podCPU, used, pod...)
			add(podMemory, set, pod...)
		}
	}
	var out []*dto.MetricFamily
	for _, f := range []*dto.MetricFamily{nodeCPU, nodeMemory, podCPU, podMemory, cpu, memory, start, failed} {
		if len(f.Metric) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// sorted lists named, living cgroups by path.
func (s *Stats) sorted() []*tracked {
	var out []*tracked
	for _, t := range s.tracked {
		if t.named && !t.stale && t.state.use.Has != 0 {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *tracked) int { return strings.Compare(a.path, b.path) })
	return out
}

func newFamily(name, help string, kind Kind) *dto.MetricFamily {
	t := [...]dto.MetricType{Gauge: dto.MetricType_GAUGE, Counter: dto.MetricType_COUNTER, Untyped: dto.MetricType_UNTYPED}[kind]
	return &dto.MetricFamily{Name: proto.String(name), Help: proto.String(help), Type: &t}
}

func add(f *dto.MetricFamily, v float64, pairs ...string) {
	m := &dto.Metric{}
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: proto.Float64(v)}
	case dto.MetricType_UNTYPED:
		m.Untyped = &dto.Untyped{Value: proto.Float64(v)}
	default:
		m.Gauge = &dto.Gauge{Value: proto.Float64(v)}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(pairs[i]), Value: proto.String(pairs[i+1])})
	}
	slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	f.Metric = append(f.Metric, m)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone otherwise
}

// The shape of /stats/summary, as far as perch fills it.
type (
	summary struct {
		Node nodeSummary  `json:"node"`
		Pods []podSummary `json:"pods"`
	}
	nodeSummary struct {
		NodeName  string         `json:"nodeName"`
		StartTime time.Time      `json:"startTime"`
		CPU       *cpuSummary    `json:"cpu,omitempty"`
		Memory    *memorySummary `json:"memory,omitempty"`
	}
	podSummary struct {
		Ref        podRef             `json:"podRef"`
		StartTime  time.Time          `json:"startTime"`
		Containers []containerSummary `json:"containers"`
		CPU        *cpuSummary        `json:"cpu,omitempty"`
		Memory     *memorySummary     `json:"memory,omitempty"`
	}
	podRef struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		UID       string `json:"uid"`
	}
	containerSummary struct {
		Name      string         `json:"name"`
		StartTime time.Time      `json:"startTime"`
		CPU       *cpuSummary    `json:"cpu,omitempty"`
		Memory    *memorySummary `json:"memory,omitempty"`
	}
	cpuSummary struct {
		Time      time.Time `json:"time"`
		NanoCores uint64    `json:"usageNanoCores"`
		Total     uint64    `json:"usageCoreNanoSeconds"`
	}
	memorySummary struct {
		Time        time.Time `json:"time"`
		Usage       uint64    `json:"usageBytes"`
		WorkingSet  uint64    `json:"workingSetBytes"`
		RSS         uint64    `json:"rssBytes"`
		Faults      uint64    `json:"pageFaults"`
		MajorFaults uint64    `json:"majorPageFaults"`
	}
)

// SummaryHandler serves /stats/summary: cpu and memory of node, pods and
// containers.
func (s *Stats) SummaryHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, s.summary()) })
}

func (s *Stats) summary() summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := summary{Node: nodeSummary{NodeName: s.cfg.Node}, Pods: []podSummary{}}
	pods := map[string]int{}
	for _, t := range s.sorted() { // a pod sorts before its containers
		start := time.UnixMilli(int64(t.state.start * 1e3)).UTC()
		c, m := t.summary()
		switch {
		case t.path == "/":
			out.Node.CPU, out.Node.Memory, out.Node.StartTime = c, m, start
		case t.place.podUID != "" && t.place.containerID == "":
			pods[t.place.podUID] = len(out.Pods)
			out.Pods = append(out.Pods, podSummary{podRef{t.who.Pod, t.who.Namespace, t.place.podUID}, start, []containerSummary{}, c, m})
		case t.who.Container != "":
			if i, ok := pods[t.place.podUID]; ok {
				out.Pods[i].Containers = append(out.Pods[i].Containers, containerSummary{t.who.Container, start, c, m})
			}
		}
	}
	return out
}

func (t *tracked) summary() (*cpuSummary, *memorySummary) {
	at := time.UnixMilli(int64(t.state.seen * 1e3)).UTC()
	var c *cpuSummary
	var m *memorySummary
	if t.state.use.Has&cgroup.HasCPU != 0 {
		c = &cpuSummary{Time: at, Total: t.state.use.CPU.Usage, NanoCores: rate(t.ring.since(t.lastMs() - 10_000))}
	}
	if t.state.use.Has&cgroup.HasMemory != 0 {
		u := t.state.use.Memory
		m = &memorySummary{at, u.Usage, u.WorkingSet, u.RSS, u.Faults, u.MajorFaults}
	}
	return c, m
}

func (t *tracked) lastMs() int64 { return int64(t.state.seen * 1e3) }

// rate is the cpu use over points, ns per second.
func rate(p []point) uint64 {
	if len(p) < 2 {
		return 0
	}
	first, last := p[0], p[len(p)-1]
	if last.t <= first.t || last.cpu < first.cpu {
		return 0
	}
	return (last.cpu - first.cpu) * 1000 / uint64(last.t-first.t)
}
