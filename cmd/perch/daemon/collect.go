package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"perch/cmd/perch/daemon/component"
	"perch/cmd/perch/daemon/config"
	"perch/controlplane/event"
	"perch/metrics/exporter"
	"perch/metrics/scrape"
	"perch/metrics/target"
)

// collect scrapes the pods of this node, reads the machine, perch's own parts, the
// counts of lines and, on servers, the state of all objects.
func (r role) collect(factory informers.SharedInformerFactory, pods corelisters.PodLister, n numbers, jobs *scrapeJobs, counts prometheus.Gatherer, tell event.Tell, own *http.ServeMux) (*scrape.Loop, error) {
	services := factory.Core().V1().Services().Lister()

	cfg := scrape.Default()
	cfg.File = r.cfg.ScrapeConfig
	cfg.Node = r.cfg.NodeName
	machine, err := exporter.NewNode(exporter.DefaultNode(), r.part("exporter"))
	if err != nil {
		return nil, fmt.Errorf("read machine: %w", err)
	}
	// For a Prometheus elsewhere, by the node's door; read from this machine only.
	own.Handle("GET /metrics/node", promhttp.HandlerFor(registryOf(machine), promhttp.HandlerOpts{}))
	instance := r.cfg.NodeName
	local := func(job string, gather prometheus.Gatherer) scrape.Local {
		return scrape.Local{Labels: map[string]string{"job": job, "instance": instance}, Gather: gather}
	}
	ofLines := local("perch-logs", counts)
	ofLines.Honor = true
	cfg.Local = []scrape.Local{local("node-exporter", registryOf(machine)), local("perch-telemetry", r.reg), ofLines}
	cfg.Own = append([]scrape.Own{{Name: "perch-agent", Labels: map[string]string{"job": "perch-agent", "instance": instance}, Socket: r.cfg.Socket("agent")},
		{Name: "perch-supervisor", Labels: map[string]string{"job": "perch-supervisor", "instance": instance}, Socket: r.cfg.Socket("supervisor")}},
		components(component.Agent(), r.cfg.Socket("agent"), nodeAddress(r.cfg))...)
	if r.cfg.Kind == config.Server {
		state, objects := local("kube-state-metrics", nil), exporter.NewObjects(objectLists(factory))
		state.Samples, state.Labels["node"], state.Interval, state.Now = objects.Samples, "", 5*time.Second, n.state
		state.Families = objects.Families().List
		own.Handle("GET /metrics/objects", promhttp.HandlerFor(registryOf(objects), promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
		cfg.Local = append(cfg.Local, state)
		api := scrape.Own{Name: "apiserver", Labels: map[string]string{"job": "apiserver", "instance": instance}, Scheme: "https", Address: fmt.Sprintf("127.0.0.1:%d", r.cfg.APIPort),
			CA: r.cfg.Path("ca.crt"), Cert: r.cfg.Path("pki", "telemetry.crt"), Key: r.cfg.Path("pki", "telemetry.key"),
			Keep: scrape.APIServerSeries, Drop: scrape.APIServerBuckets}
		etcd := scrape.Own{Name: "etcd", Labels: map[string]string{"job": "etcd", "instance": instance}, Socket: r.cfg.Socket("server"), Path: etcdMetrics, Keep: scrape.EtcdSeries}
		if r.cfg.AllServerSeries {
			api.Keep, api.Drop, etcd.Keep = "", "", ""
		}
		cfg.Sockets = map[string]string{proberHost: r.cfg.Socket("prober")}
		cfg.Own = append(cfg.Own, api, etcd,
			scrape.Own{Name: "perch-server", Labels: map[string]string{"job": "perch-server", "instance": instance}, Socket: r.cfg.Socket("server")})
		cfg.Own = append(cfg.Own, components(component.Server(), r.cfg.Socket("server"), instance)...)
	}
	parts := scrape.Parts{
		Into: n.store,
		Inlet: func() func(context.Context, []scrape.Sample) error {
			inlet := n.store.Inlet("local")
			return func(ctx context.Context, batch []scrape.Sample) error {
				_, err := inlet.Append(ctx, batch)
				return err
			}
		},
		Objects: func() ([]*corev1.Pod, []*corev1.Service) { return all(pods.List), all(services.List) },
		Resolve: r.clusterHost(services), CutOff: tellCutOff(tell, pods),
	}
	if cfg.File != "" {
		parts.Refused = r.inForce("scrape-config")
	}
	jobs.parts(&parts)
	knowingNamespaces(&parts, factory)
	loop, err := scrape.New(cfg, parts, r.part("scrape"), r.reg)
	if err != nil {
		return nil, err
	}
	r.group.Go("scrape", loop.Run)
	jobs.follow(r, loop)
	r.group.Go("series budgets", tellOffenders(n.store, r.cfg.NodeName, tell))
	r.group.Go("store's clock", tellStopped(n.store.Stopped, r.cfg.NodeName, n.store.Dir(), tell, r.part("metrics")))
	return loop, nil
}

// nodeAddress is where a node's kubelet API is; the label instance of its series.
func nodeAddress(cfg config.Config) string {
	return fmt.Sprintf("%s:%d", cfg.AdvertiseAddress, cfg.AgentPort)
}

// components are what a role is in the words of other clusters, to be scraped.
func components(of []component.Component, socket, instance string) (out []scrape.Own) {
	for _, c := range of {
		labels := map[string]string{"job": c.Job, "instance": instance}
		if c.MetricsPath != "" {
			labels["metrics_path"] = c.MetricsPath
		}
		out = append(out, scrape.Own{Name: strings.ReplaceAll(strings.Trim(c.Path, "/"), "/", "-"), Labels: labels, Socket: socket, Path: c.Path})
	}
	return out
}

func registryOf(c prometheus.Collector) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	return reg
}

// all lists from memory, which cannot fail.
func all[T any](list func(labels.Selector) ([]T, error)) []T {
	out, err := list(labels.Everything())
	if err != nil {
		return nil
	}
	return out
}

func objectLists(f informers.SharedInformerFactory) exporter.Lists {
	core, apps := f.Core().V1(), f.Apps().V1()
	nodes, namespaces, pods, services := core.Nodes().Lister(), core.Namespaces().Lister(), core.Pods().Lister(), core.Services().Lister()
	deployments, sets, stateful, daemons := apps.Deployments().Lister(), apps.ReplicaSets().Lister(), apps.StatefulSets().Lister(), apps.DaemonSets().Lister()
	jobs, scalers := f.Batch().V1().Jobs().Lister(), f.Autoscaling().V2().HorizontalPodAutoscalers().Lister()
	batch, net := f.Batch().V1(), f.Networking().V1()
	_ = core.ConfigMaps().Informer().SetTransform(withoutData) // fails only once it runs
	return exporter.Lists{
		Nodes: of(nodes.List), Namespaces: of(namespaces.List), Pods: of(pods.List), Services: of(services.List),
		Deployments: of(deployments.List), ReplicaSets: of(sets.List), StatefulSets: of(stateful.List), DaemonSets: of(daemons.List),
		Jobs: of(jobs.List), HorizontalPodAutoscalers: of(scalers.List),
		CronJobs: of(batch.CronJobs().Lister().List), ReplicationControllers: of(core.ReplicationControllers().Lister().List),
		Endpoints: of(core.Endpoints().Lister().List), Ingresses: of(net.Ingresses().Lister().List), NetworkPolicies: of(net.NetworkPolicies().Lister().List),
		PersistentVolumes: of(core.PersistentVolumes().Lister().List), PersistentVolumeClaims: of(core.PersistentVolumeClaims().Lister().List),
		StorageClasses: of(f.Storage().V1().StorageClasses().Lister().List), ConfigMaps: of(core.ConfigMaps().Lister().List),
		ResourceQuotas: of(core.ResourceQuotas().Lister().List), LimitRanges: of(core.LimitRanges().Lister().List),
		PodDisruptionBudgets: of(f.Policy().V1().PodDisruptionBudgets().Lister().List), Leases: of(f.Coordination().V1().Leases().Lister().List),
		SigningRequests:    of(f.Certificates().V1().CertificateSigningRequests().Lister().List),
		MutatingWebhooks:   of(f.Admissionregistration().V1().MutatingWebhookConfigurations().Lister().List),
		ValidatingWebhooks: of(f.Admissionregistration().V1().ValidatingWebhookConfigurations().Lister().List),
		VolumeAttachments:  of(f.Storage().V1().VolumeAttachments().Lister().List),
	}
}

// withoutData keeps of a ConfigMap what its series tell: what it holds is large.
func withoutData(o any) (any, error) {
	if x, ok := o.(*corev1.ConfigMap); ok {
		x.Data, x.BinaryData, x.ManagedFields, x.Annotations = nil, nil, nil, nil
	}
	return o, nil
}

func of[T any](list func(labels.Selector) ([]T, error)) func() []T {
	return func() []T { return all(list) }
}

// knowingNamespaces tells a scraper which namespaces are wide, and lets it ask for
// targets of objects only when that is known: before, an object could make series of
// a namespace that is not its own, or those of a wide one would be others.
func knowingNamespaces(p *scrape.Parts, factory informers.SharedInformerFactory) {
	known := factory.Core().V1().Namespaces()
	list, synced := known.Lister(), known.Informer().HasSynced
	p.Wide = func(namespace string) bool { return wide(list, namespace) }
	jobs := p.Jobs
	p.Jobs = func() ([]target.Job, []target.Dropped) {
		if !synced() {
			return nil, nil
		}
		return jobs()
	}
}
