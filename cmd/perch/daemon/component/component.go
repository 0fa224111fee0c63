package component

import (
	"net/http"
	"regexp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Component is a program of other clusters whose work a role does.
type Component struct {
	Job         string
	Path        string // where its series are, on the role's socket
	MetricsPath string // the label metrics_path: a kubelet has several doors
	names       *regexp.Regexp
}

// Agent are the components that the agent role is.
func Agent() []Component {
	return []Component{
		{"kubelet", "/metrics/kubelet", "/metrics", names(`kubelet_|volume_manager_|storage_operation_|kubernetes_build_info$`)},
		{"kubelet", "/metrics/probes", "/metrics/probes", names(`prober_`)},
		// Its series go another way, without text; here it only tells that it is up.
		{"kubelet", "/metrics/cadvisor", "/metrics/cadvisor", names(`$`)},
		{"kube-proxy", "/metrics/kube-proxy", "", names(`kubeproxy_`)},
		{"coredns", "/metrics/coredns", "", names(`coredns_`)},
	}
}

// Server are the components that the server role is. The API server and etcd
// have registries of their own.
func Server() []Component {
	return []Component{
		{"kube-scheduler", "/metrics/kube-scheduler", "", names(`scheduler_`)},
		{"kube-controller-manager", "/metrics/kube-controller-manager", "", names(`workqueue_|node_collector_|cronjob_controller_|job_controller_`)},
	}
}

func names(prefix string) *regexp.Regexp { return regexp.MustCompile(`^(` + prefix + `)`) }

// shared tells of the process.
var shared = []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds", "go_goroutines"}

// Handlers are the series of each component by its path, and under /metrics
// what no component owns.
func Handlers(all prometheus.Gatherer, of []Component) map[string]http.Handler {
	out := map[string]http.Handler{"/metrics": text(all, func(name, job string) bool {
		return job == "" && !slices.ContainsFunc(of, func(c Component) bool { return c.names.MatchString(name) })
	})}
	for i, c := range of {
		first := !slices.ContainsFunc(of[:i], func(b Component) bool { return b.Job == c.Job })
		out[c.Path] = text(all, func(name, job string) bool {
			if job != "" {
				return first && job == c.Job
			}
			return c.names.MatchString(name) || first && slices.Contains(shared, name)
		})
	}
	return out
}

// Plain is a role's whole registry as text, for a role that is at most one
// component to the API.
func Plain(all prometheus.Gatherer) http.Handler {
	return text(all, func(string, string) bool { return true })
}

// Etcd is what etcd counts in this process, and what tells of the process. It counts
// where every library that knows no better does.
func Etcd() http.Handler {
	own := names(`etcd_|grpc_|os_fd_|process_|go_|promhttp_`)
	return text(prometheus.DefaultGatherer, func(name, _ string) bool { return own.MatchString(name) })
}

func text(all prometheus.Gatherer, keep func(name, job string) bool) http.Handler {
	return promhttp.HandlerFor(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := all.Gather()
		return choose(families, keep), err
	}), promhttp.HandlerOpts{})
}

// choose leaves the series for which keep holds, asked for the name and for the
// component of Count, whose label is taken off.
func choose(families []*dto.MetricFamily, keep func(name, job string) bool) []*dto.MetricFamily {
	var out []*dto.MetricFamily
	for _, f := range families {
		var series []*dto.Metric
		for _, m := range f.Metric {
			job, rest := without(m.Label)
			if !keep(f.GetName(), job) {
				continue
			}
			if job != "" {
				// A new one: the registry's own are shared with later gatherings.
				m = &dto.Metric{Label: rest, Counter: m.Counter, Histogram: m.Histogram, Gauge: m.Gauge, Summary: m.Summary, Untyped: m.Untyped, TimestampMs: m.TimestampMs}
			}
			series = append(series, m)
		}
		if len(series) > 0 {
			out = append(out, &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type, Unit: f.Unit, Metric: series})
		}
	}
	return out
}

func without(labels []*dto.LabelPair) (job string, rest []*dto.LabelPair) {
	at := slices.IndexFunc(labels, func(l *dto.LabelPair) bool { return l.GetName() == componentLabel })
	if at < 0 {
		return "", labels
	}
	return labels[at].GetValue(), slices.Concat(labels[:at], labels[at+1:])
}
