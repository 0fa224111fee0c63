package target

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	corev1 "k8s.io/api/core/v1"
)

// World is what Plan looks at. The lists are of all nodes and namespaces.
type World struct {
	Pods      []*corev1.Pod
	Services  []*corev1.Service
	Endpoints []*corev1.Endpoints // of Services without a selector
	Nodes     []*corev1.Node

	// Home is the node that scrapes what runs on none: static targets, probes.
	Home string
	// Prober is the address of the built-in prober on that node.
	Prober string
	// Value reads a key of a Secret or ConfigMap.
	Value func(Ref) (string, error)
	// Account is for monitors that name the files of a pod's account.
	Account Account
	// Found answers what is known of a search of an object, by its Key; false: it was
	// not asked yet. nil: none was.
	Found func(key string) (Found, bool)
	// Limit bounds the targets of all objects together, OfOne those of the objects of
	// one namespace, OfNode those of them on one node; 0 = none. So a namespace does
	// not take the place of all others.
	Limit, OfOne, OfNode int
}

// Job is one scrape pool: an endpoint of one object and its targets.
type Job struct {
	Name     string   `json:"name"` // of the pool
	From     string   `json:"from"` // the object
	Settings Settings `json:"settings"`
	Targets  []Target `json:"targets"`
}

// Plan lists what the objects ask for on all nodes, sorted by name, and what of
// it is left out or does nothing, with the reason. A broken object costs nothing
// but itself.
func Plan(w World, objects []Object) ([]Job, []Dropped) {
	p := &planner{World: w, nodes: map[string]*corev1.Node{}, pods: map[string][]*corev1.Pod{}, services: map[string][]*corev1.Service{}, endpoints: map[string]*corev1.Endpoints{},
		ofOne: map[string]int{}, ofNode: map[[2]string]int{}}
	for _, n := range w.Nodes {
		p.nodes[n.Name] = n
	}
	for _, pod := range w.Pods {
		p.pods[pod.Namespace] = append(p.pods[pod.Namespace], pod)
	}
	for _, s := range w.Services {
		p.services[s.Namespace] = append(p.services[s.Namespace], s)
	}
	for _, e := range w.Endpoints {
		p.endpoints[e.Namespace+"/"+e.Name] = e
	}
	for _, o := range objects {
		p.object(o)
	}
	slices.SortFunc(p.jobs, func(a, b Job) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(p.left, func(a, b Dropped) int { return cmp.Compare(a.From, b.From) })
	return p.jobs, p.left
}

// Of are the jobs with the targets of one node only.
func Of(node string, jobs []Job) []Job {
	var out []Job
	for _, j := range jobs {
		j.Targets = slices.DeleteFunc(slices.Clone(j.Targets), func(t Target) bool { return t.Node != node })
		if len(j.Targets) > 0 {
			out = append(out, j)
		}
	}
	return out
}

type planner struct {
	World
	nodes     map[string]*corev1.Node
	pods      map[string][]*corev1.Pod // by namespace
	services  map[string][]*corev1.Service
	endpoints map[string]*corev1.Endpoints
	jobs      []Job
	left      []Dropped
	count     int
	ofOne     map[string]int
	ofNode    map[[2]string]int // by namespace and node
}

func (p *planner) tell(o Object, format string, a ...any) {
	p.left = append(p.left, Dropped{From: o.From(), Reason: fmt.Sprintf(format, a...)})
}

func (p *planner) object(o Object) {
	wrong, idle := o.Check()
	for _, i := range idle {
		p.left = append(p.left, Dropped{From: o.From(), Reason: i, Partly: true})
	}
	if len(wrong) > 0 {
		p.tell(o, "%s", strings.Join(wrong, "; "))
		return
	}
	switch {
	case o.monitor != nil:
		p.monitor(o)
	case o.probe != nil:
		p.probe(o)
	case o.config != nil:
		p.config(o)
	}
}

// value reads keys in the namespace of the object only.
func (p *planner) value(o Object) func(Ref) (string, error) {
	return func(r Ref) (string, error) {
		r.Namespace = o.Namespace
		if p.Value == nil {
			return "", fmt.Errorf("%s %w", r, errAbsent)
		}
		return p.Value(r)
	}
}

// add is one pool with what candidates of it remain after relabelling.
func (p *planner) add(o Object, name string, s wireSettings, candidates []candidate, run []*relabel.Config) {
	s.account = p.Account
	settings, err := s.ready(p.value(o))
	if err != nil {
		p.tell(o, "%v", err)
		return
	}
	j := Job{Name: name, From: o.From(), Settings: settings}
	seen := map[string]bool{}
	for _, c := range candidates {
		t, why := c.target(o, run)
		if why != "" {
			p.tell(o, "%s", why)
			continue
		}
		if key := t.Key() + fmt.Sprint(t.Labels); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		if why := p.full(o.Namespace, t.Node); why != "" {
			p.tell(o, "%s is left out: %s", t.Address, why)
			continue
		}
		j.Targets = append(j.Targets, t)
	}
	slices.SortFunc(j.Targets, func(a, b Target) int { return cmp.Compare(a.Key(), b.Key()) })
	if len(j.Targets) > 0 {
		p.jobs = append(p.jobs, j)
	}
}

// full says why a namespace's objects cannot have one more target on a node, and
// counts it when they can.
func (p *planner) full(namespace, node string) string {
	on := [2]string{namespace, node}
	switch {
	case p.OfNode > 0 && p.ofNode[on] >= p.OfNode:
		return fmt.Sprintf("objects of namespace %q have more than %d targets on node %s", namespace, p.OfNode, node)
	case p.OfOne > 0 && p.ofOne[namespace] >= p.OfOne:
		return fmt.Sprintf("objects of namespace %q have more than %d targets", namespace, p.OfOne)
	case p.Limit > 0 && p.count >= p.Limit:
		return fmt.Sprintf("all objects together have more than %d targets", p.Limit)
	}
	p.count++
	p.ofOne[namespace]++
	p.ofNode[on]++
	return ""
}

// bytesOf is the length of all labels, without making one text of them.
func bytesOf(b *promlabels.Builder) (n int) {
	b.Range(func(l promlabels.Label) { n += len(l.Name) + len(l.Value) })
	return n
}

// candidate is a target before relabelling.
type candidate struct {
	labels *promlabels.Builder
	node   string
	what   string // for people
	ip     string // of the pod, if it is one
	home   string // the namespace of the pod or Service
}

// mostBytes is how long the labels of one target may be together, names and values;
// those that stay and those that relabeling sees.
const mostBytes, mostSeen = 16 << 10, 1 << 20

func (c candidate) target(o Object, run []*relabel.Config) (Target, string) {
	found := c.labels.Get("__address__")
	for _, step := range run { // one step could make a label of any length
		if !relabel.ProcessBuilder(c.labels, step) {
			return Target{}, c.what + " is dropped by relabelings"
		}
		if n := bytesOf(c.labels); n > mostSeen {
			return Target{}, fmt.Sprintf("%s is left out: relabelings make labels of %d bytes of it, %d are allowed", c.what, n, mostSeen)
		}
	}
	t := Target{From: o.From(), Node: c.node, Namespace: o.Namespace, Labels: map[string]string{}}
	size := 0
	c.labels.Range(func(l promlabels.Label) {
		switch {
		case l.Name == "__address__":
			t.Address = l.Value
		case l.Name == "__scheme__":
			t.Scheme = l.Value
		case l.Name == "__metrics_path__":
			t.Path = l.Value
		case strings.HasPrefix(l.Name, "__param_"), strings.HasPrefix(l.Name, "__scrape_"), !strings.HasPrefix(l.Name, "__"):
			t.Labels[l.Name] = l.Value
		default:
			return
		}
		size += len(l.Name) + len(l.Value)
	})
	if size > mostBytes {
		return Target{}, fmt.Sprintf("%s is left out: it has labels of %d bytes, %d are allowed", c.what, size, mostBytes)
	}
	if text := t.Labels[model.ScrapeIntervalLabel]; text != "" {
		if d, err := model.ParseDuration(text); err != nil || time.Duration(d) < time.Second {
			return Target{}, fmt.Sprintf("%s is left out: its label %s is %q, want 1s or more", c.what, model.ScrapeIntervalLabel, text)
		}
	}
	if t.Address == "" {
		return t, c.what + " has no address after relabelings"
	}
	host, _, err := net.SplitHostPort(t.Address)
	t.OfPod = err == nil && c.ip != "" && host == c.ip
	if t.OfPod || t.Address == found { // else it is not what was found there
		t.Namespace = cmp.Or(c.home, o.Namespace)
	} else {
		t.Found = c.home
	}
	if t.Labels["instance"] == "" {
		t.Labels["instance"] = t.Address
	}
	return t, ""
}
