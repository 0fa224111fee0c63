package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"perch/agent"
	"perch/agent/dns"
	"perch/agent/door"
	"perch/agent/pod"
	"perch/agent/probe"
	"perch/agent/runtime"
	"perch/agent/stats"
	"perch/cmd/perch/daemon/component"
	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/crowd"
	webdoor "perch/cmd/perch/daemon/door"
	"perch/logs/replica"
)

// openNodeDoor opens the kubelet API of this node, and the socket on which this
// machine's telemetry role reads the agent's own numbers.
func (r role) openNodeDoor(reviews clients, cri *runtime.Client, pods *agent.Agent, numbers *stats.Stats, probes *probeNumbers, telemetry *http.Client) error {
	text, err := os.ReadFile(r.cfg.Path("ca.crt"))
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	cert := reloading(r.cfg.Path("pki", "node-serving.crt"), r.cfg.Path("pki", "node-serving.key"))
	who := door.Reviews(reviews.kube, r.cfg.NodeName)
	handlers := map[string]http.Handler{
		"/metrics": component.Plain(prometheus.Gatherers{r.reg, dns.Library()}), "/metrics/cadvisor": numbers.CadvisorHandler(), "/metrics/resource": numbers.ResourceHandler(),
		"/metrics/probes": promhttp.HandlerFor(probes.reg, promhttp.HandlerOpts{}), "/stats/summary": numbers.SummaryHandler(),
		"/perch/v1/seconds": numbers.SecondsHandler(), "/logs/api/v1/": towards(telemetry, r.part("door")),
		"/metrics/node": towards(telemetry, r.part("door")), "/metrics/objects": towards(telemetry, r.part("door")),
		replica.Prefix: towards(telemetry, r.part("door")), replica.ReadPrefix: towards(telemetry, r.part("door")), seriesPrefix: towards(telemetry, r.part("door")),
	}
	if r.cfg.Kind == config.Server {
		server := towards(unixClient(r.cfg.Socket("server")), r.part("door"))
		handlers[etcdMetrics] = server
		for _, c := range component.Server() {
			handlers[c.Path] = server
		}
	}
	d, err := door.New(door.Config{
		Listen: net.JoinHostPort("", strconv.Itoa(r.cfg.AgentPort)), Node: r.cfg.NodeName, ClientCA: pool,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert() },
		Places:      pod.Places{Pods: r.cfg.Path("pods"), Logs: r.cfg.Path("podlogs"), Seccomp: r.cfg.Path("seccomp")},
		Crowd:       crowd.New("node", 1024, r.reg),
	}, door.Parts{Pods: pods.Pods, Runtime: cri, Authenticate: who.Authenticate, Authorize: mayCopy(who.Authorize), Handlers: handlers}, r.part("door"), r.reg)
	if err != nil {
		return refused{fmt.Errorf("%w: move it with --agent-port", err)}
	}
	r.group.Go("door", d.Run)
	mux := http.NewServeMux()
	for path, h := range component.Handlers(prometheus.Gatherers{r.reg, probes.reg, dns.Library()}, component.Agent()) {
		mux.Handle("GET "+path, h)
	}
	socket, err := newUnixDoor(r.cfg.Socket("agent"), mux)
	if err != nil {
		return err
	}
	r.group.Go("socket", socket.Run)
	r.group.Go("probe numbers", probes.forget(pods.Pods))
	return nil
}

// towards hands a request to a role of this machine.
func towards(client *http.Client, log *slog.Logger) http.Handler {
	return webdoor.HandOn(client.Transport, log, func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: "perch"})
		p.Out.Header.Del("Authorization")
	})
}

// probeNumbers counts probe results with kubelet's names.
type probeNumbers struct {
	reg   *prometheus.Registry
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec

	mu   sync.Mutex
	seen map[types.UID]types.NamespacedName // pods that have series
}

func newProbeNumbers() *probeNumbers {
	labels := []string{"probe_type", "container", "pod", "namespace", "pod_uid"}
	p := &probeNumbers{reg: prometheus.NewRegistry(), seen: map[types.UID]types.NamespacedName{},
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "prober_probe_total", Help: "Results of probes by container."}, append([]string{"result"}, labels...)),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "prober_probe_duration_seconds", Help: "Duration of probes by container.",
			Buckets: []float64{.001, .01, .1, 1, 10}}, labels[:4])}
	p.reg.MustRegister(p.total, p.took)
	return p
}

// observe takes one result.
func (p *probeNumbers) observe(r probe.Result) {
	result := "successful"
	if !r.OK {
		result = "failed"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[r.UID] = types.NamespacedName{Namespace: r.Namespace, Name: r.Pod}
	p.total.WithLabelValues(result, string(r.Kind), r.Container, r.Pod, r.Namespace, string(r.UID)).Inc()
	p.took.WithLabelValues(string(r.Kind), r.Container, r.Pod, r.Namespace).Observe(r.Took.Seconds())
}

// forget drops the series of pods that are gone, so that they do not grow with
// uptime.
func (p *probeNumbers) forget(pods func() []*corev1.Pod) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				p.keep(pods())
			}
		}
	}
}

// keep drops the series of all pods but these, of those too that came and went
// since it was called last.
func (p *probeNumbers) keep(pods []*corev1.Pod) {
	here, named := map[types.UID]bool{}, map[types.NamespacedName]bool{}
	for _, pd := range pods {
		here[pd.UID], named[types.NamespacedName{Namespace: pd.Namespace, Name: pd.Name}] = true, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid, name := range p.seen {
		if here[uid] {
			continue
		}
		delete(p.seen, uid)
		p.total.DeletePartialMatch(prometheus.Labels{"pod_uid": string(uid)})
		if !named[name] { // durations have no uid
			p.took.DeletePartialMatch(prometheus.Labels{"namespace": name.Namespace, "pod": name.Name})
		}
	}
}
