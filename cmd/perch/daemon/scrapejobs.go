package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"perch/cmd/perch/daemon/config"
	"perch/controlplane/event"
	"perch/metrics/assign"
	"perch/metrics/discovery"
	"perch/metrics/scrape"
	"perch/metrics/target"
)

// scrapeJobs is what this node scrapes for objects: of its own desk on a server,
// told by the server's on a worker.
type scrapeJobs struct {
	desk   *assign.Desk    // servers
	values *values         // servers
	found  *discovery.Loop // servers
	client *assign.Client
}

// openScrapeJobs prepares them; follow begins when the scraper is there.
func (r role) openScrapeJobs(api clients, f informers.SharedInformerFactory) (*scrapeJobs, error) {
	if r.cfg.Kind != config.Server {
		door, err := nodeClient(r.cfg)
		if err != nil {
			return nil, err
		}
		return &scrapeJobs{client: assign.NewClient(assign.ClientConfig{URL: r.cfg.Web + "/perch/v1/targets", Timeout: 30 * time.Second, Retry: time.Second}, door, r.part("targets"), r.reg)}, nil
	}
	var desk atomic.Pointer[assign.Desk]
	changed := func() {
		if d := desk.Load(); d != nil { // else it has not planned yet
			d.Changed()
		}
	}
	var searches atomic.Pointer[discovery.Loop]
	asked := func() { // what objects say, or may read
		if l := searches.Load(); l != nil {
			l.Changed()
		}
		changed()
	}
	objects, err := r.watchScrapeObjects(api.dynamic, asked)
	if err != nil {
		return nil, fmt.Errorf("watch objects that ask for scrapes: %w", err)
	}
	ca, err := os.ReadFile(r.cfg.Path("ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	core := f.Core().V1()
	seen := map[string]cache.SharedIndexInformer{"pods": core.Pods().Informer(), "services": core.Services().Informer(), "endpoints": core.Endpoints().Informer(), "nodes": core.Nodes().Informer()}
	known := complete(func() bool {
		for _, i := range seen {
			if !i.HasSynced() {
				return false
			}
		}
		return true
	}, objects.known)
	for what, i := range seen {
		if what == "nodes" {
			continue // their heartbeats change no target; the next plan sees them
		}
		if err := onChange(i, changed); err != nil {
			return nil, fmt.Errorf("watch %s for targets: %w", what, err)
		}
	}
	pods, services, nodes, endpoints := core.Pods().Lister(), core.Services().Lister(), core.Nodes().Lister(), core.Endpoints().Lister()
	values, account := newValues(api.kube, asked), newScrapeAccount(api.kube, asked, r.part("targets"))
	r.group.Go("scrape account", account.Run)
	ofAccount := func() target.Account { return target.Account{CA: string(ca), Token: account.now()} }
	found, err := discovery.New(discovery.Default(), discovery.Parts{
		Searches: func(ctx context.Context) (out []target.Search) {
			w := target.World{Value: values.value, Account: ofAccount()}
			for _, o := range objects.list() {
				if ctx.Err() != nil {
					return nil
				}
				out = append(out, o.Searches(w)...)
			}
			return out
		},
		Changed: changed, Resolve: r.clusterHost(core.Services().Lister()),
		Cluster: clusterDNS(r.cfg), Domain: r.cfg.ClusterDomain, Machine: &net.Resolver{PreferGo: true},
	}, r.part("discovery"), r.reg)
	if err != nil {
		return nil, err
	}
	searches.Store(found)
	cfg := assign.Default()
	cfg.Node = r.cfg.NodeName
	made, err := assign.NewDesk(cfg, assign.Parts{
		World: func() target.World {
			return target.World{Pods: all(pods.List), Services: all(services.List), Nodes: all(nodes.List), Endpoints: all(endpoints.List),
				Home: r.cfg.NodeName, Prober: proberHost, Value: values.value, Account: ofAccount(), Found: found.Found,
				Limit: 20_000, OfOne: 15_000, OfNode: scrape.Default().TargetLimit * 3 / 4}
		},
		Objects: objects.list, Known: known, NodeOf: nodeOfCaller,
	}, r.part("targets"), r.reg)
	if err != nil {
		return nil, err
	}
	desk.Store(made)
	return &scrapeJobs{desk: made, values: values, found: found}, nil
}

// parts adds the jobs to what a scraper needs.
func (s *scrapeJobs) parts(p *scrape.Parts) {
	if s.desk != nil {
		p.Jobs, p.Others = s.desk.Jobs, s.desk.Others
		return
	}
	p.Jobs = s.client.Jobs
}

func (s *scrapeJobs) follow(r role, l *scrape.Loop) {
	if s.desk != nil {
		r.group.Go("discovery", s.found.Run)
		r.group.Go("targets", s.desk.Run)
		return
	}
	r.group.Go("targets", func(ctx context.Context) error {
		return s.client.Run(ctx, func() ([]scrape.Status, []target.Dropped) { return l.Here(), l.Dropped() })
	})
}

// tellCutOff makes an event of a target whose answers are cut off.
func tellCutOff(tell event.Tell, pods corelisters.PodLister) func(scrape.Status) {
	return func(s scrape.Status) {
		about := corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: s.Node}
		if kind, rest, ok := strings.Cut(s.From, "/"); ok {
			if namespace, name, ok := strings.Cut(rest, "/"); ok {
				about = scrapeRef(kind, namespace, name)
			}
		}
		if p, err := pods.Pods(s.Labels["namespace"]).Get(s.Labels["pod"]); err == nil {
			about = event.Ref(p, "v1", "Pod")
		}
		tell(event.Record{Component: "perch-scrape", Object: about, Type: event.Warning, Reason: "ScrapeCutOff",
			Message: fmt.Sprintf("what %s answers is not or not wholly stored (%s): %s", s.URL, s.CutOff, s.Error)})
	}
}

// scrapeRef names an object that asks for scrapes, from a listing's words.
func scrapeRef(kind, namespace, name string) corev1.ObjectReference {
	ref := corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: namespace, Name: name}
	for k, resource := range scrapeKinds() {
		if strings.EqualFold(k, kind) {
			ref.Kind, ref.APIVersion = k, resource.GroupVersion().String()
		}
	}
	if kind == "pod" {
		ref.Kind = "Pod"
	}
	return ref
}
