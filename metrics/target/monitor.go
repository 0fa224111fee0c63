package target

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The kinds of Monitor.
const (
	ServiceMonitor = "ServiceMonitor"
	PodMonitor     = "PodMonitor"
)

// Monitor is a ServiceMonitor or PodMonitor of monitoring.coreos.com/v1: which
// pods to scrape and how. What is not here is refused or told, see Endpoint.
type Monitor struct {
	Kind     string
	Metadata metav1.ObjectMeta
	Spec     MonitorSpec
}

// MonitorSpec has the fields of both kinds.
type MonitorSpec struct {
	JobLabel          string               `json:"jobLabel"`
	TargetLabels      []string             `json:"targetLabels"`    // labels of the Service to carry over
	PodTargetLabels   []string             `json:"podTargetLabels"` // labels of the pod to carry over
	Selector          metav1.LabelSelector `json:"selector"`
	NamespaceSelector struct {
		Any        bool     `json:"any"`
		MatchNames []string `json:"matchNames"`
	} `json:"namespaceSelector"`
	Endpoints           []Endpoint `json:"endpoints"`           // ServiceMonitor
	PodMetricsEndpoints []Endpoint `json:"podMetricsEndpoints"` // PodMonitor
}

// Endpoint is one port of a Monitor.
type Endpoint struct {
	Port          string              `json:"port"`
	PortNumber    int32               `json:"portNumber"`
	TargetPort    *intstr.IntOrString `json:"targetPort"`
	Path          string              `json:"path"`
	Scheme        string              `json:"scheme"`
	Params        map[string][]string `json:"params"`
	Interval      string              `json:"interval"`
	ScrapeTimeout string              `json:"scrapeTimeout"`
	Relabelings   []Relabeling        `json:"relabelings"`

	// These need credentials this role may not read: such an endpoint is left out.
	TLSConfig         map[string]any `json:"tlsConfig"`
	BasicAuth         map[string]any `json:"basicAuth"`
	Authorization     map[string]any `json:"authorization"`
	OAuth2            map[string]any `json:"oauth2"`
	BearerTokenFile   string         `json:"bearerTokenFile"`
	BearerTokenSecret map[string]any `json:"bearerTokenSecret"`

	// These are not applied yet: the endpoint is scraped and that is told.
	HonorLabels       bool             `json:"honorLabels"`
	MetricRelabelings []map[string]any `json:"metricRelabelings"`
}

// Relabeling is one step of target relabelling.
type Relabeling struct {
	SourceLabels []string `json:"sourceLabels"`
	Separator    *string  `json:"separator"`
	TargetLabel  string   `json:"targetLabel"`
	Regex        string   `json:"regex"`
	Modulus      uint64   `json:"modulus"`
	Replacement  *string  `json:"replacement"`
	Action       string   `json:"action"`
}

// Monitored lists what the monitors ask for on a node, and what of it is left
// out or not done and why. It goes on where one monitor is broken.
func Monitored(node string, monitors []Monitor, pods []*corev1.Pod, services []*corev1.Service) ([]Target, []Dropped) {
	var out []Target
	var dropped []Dropped
	for _, m := range monitors {
		from := strings.ToLower(m.Kind) + "/" + m.Metadata.Namespace + "/" + m.Metadata.Name
		tell := func(format string, a ...any) { dropped = append(dropped, Dropped{from, fmt.Sprintf(format, a...)}) }
		selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
		if err != nil {
			tell("selector: %v", err)
			continue
		}
		endpoints := m.Spec.Endpoints
		if m.Kind == PodMonitor {
			endpoints = m.Spec.PodMetricsEndpoints
		}
		if len(endpoints) == 0 {
			tell("it names no endpoint")
		}
		pairs := m.match(node, selector, pods, services)
		if len(pairs) == 0 {
			tell("no pod on node %s matches: selector %s in %s", node, cmp.Or(selector.String(), "{}"), m.scope())
		}
		for i, e := range endpoints {
			if why := e.refused(); why != "" {
				tell("endpoint %d: %s", i, why)
				continue
			}
			steps, err := e.steps()
			if err != nil {
				tell("endpoint %d: %v", i, err)
				continue
			}
			if e.HonorLabels || len(e.MetricRelabelings) > 0 {
				tell("endpoint %d is scraped, but honorLabels and metricRelabelings are not applied", i)
			}
			for _, p := range pairs {
				t, why := m.target(from, node, e, steps, p)
				if why != "" {
					tell("endpoint %d: %s", i, why)
					continue
				}
				out = append(out, t)
			}
		}
	}
	slices.SortFunc(out, func(a, b Target) int { return cmp.Compare(a.Key()+a.From, b.Key()+b.From) })
	return out, dropped
}

// scope says in words which namespaces a monitor looks at.
func (m Monitor) scope() string {
	switch s := m.Spec.NamespaceSelector; {
	case s.Any:
		return "any namespace"
	case len(s.MatchNames) > 0:
		return "namespaces " + strings.Join(s.MatchNames, ", ")
	}
	return "namespace " + m.Metadata.Namespace
}

func (m Monitor) looksAt(namespace string) bool {
	switch s := m.Spec.NamespaceSelector; {
	case s.Any:
		return true
	case len(s.MatchNames) > 0:
		return slices.Contains(s.MatchNames, namespace)
	}
	return namespace == m.Metadata.Namespace
}

type pair struct {
	pod     *corev1.Pod
	service *corev1.Service // nil for a PodMonitor
}

func (m Monitor) match(node string, selector labels.Selector, pods []*corev1.Pod, services []*corev1.Service) []pair {
	var out []pair
	live := func(p *corev1.Pod) bool {
		return p.Spec.NodeName == node && p.Status.PodIP != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
	}
	if m.Kind == PodMonitor {
		for _, p := range pods {
			if live(p) && m.looksAt(p.Namespace) && selector.Matches(labels.Set(p.Labels)) {
				out = append(out, pair{p, nil})
			}
		}
		return out
	}
	for _, s := range services {
		if !m.looksAt(s.Namespace) || len(s.Spec.Selector) == 0 || !selector.Matches(labels.Set(s.Labels)) {
			continue
		}
		behind := labels.SelectorFromSet(s.Spec.Selector)
		for _, p := range pods {
			if live(p) && p.Namespace == s.Namespace && behind.Matches(labels.Set(p.Labels)) {
				out = append(out, pair{p, s})
			}
		}
	}
	return out
}

// refused says why an endpoint cannot be scraped.
func (e Endpoint) refused() string {
	if e.BasicAuth != nil || e.Authorization != nil || e.OAuth2 != nil || e.BearerTokenSecret != nil || e.BearerTokenFile != "" || len(e.TLSConfig) > 0 {
		return "it needs credentials or TLS settings, which are not supported"
	}
	if s := strings.ToLower(e.Scheme); s != "" && s != "http" && s != "https" {
		return fmt.Sprintf("scheme is %q, want http or https", e.Scheme)
	}
	every, why := duration("interval", e.Interval)
	if why != "" {
		return why
	}
	limit, why := duration("scrapeTimeout", e.ScrapeTimeout)
	if why == "" && every > 0 && limit > every {
		why = fmt.Sprintf("scrapeTimeout %s is longer than interval %s", e.ScrapeTimeout, e.Interval)
	}
	return why
}

// duration reads a time in Prometheus' words; zero when it is not given.
func duration(name, text string) (model.Duration, string) {
	if text == "" {
		return 0, ""
	}
	d, err := model.ParseDuration(text)
	if err != nil || d == 0 {
		return 0, fmt.Sprintf("%s is %q, want for example 30s", name, text)
	}
	return d, ""
}

func (e Endpoint) steps() ([]*relabel.Config, error) {
	var out []*relabel.Config
	for i, r := range e.Relabelings {
		c := relabel.DefaultRelabelConfig
		c.NameValidationScheme = model.UTF8Validation
		for _, l := range r.SourceLabels {
			c.SourceLabels = append(c.SourceLabels, model.LabelName(l))
		}
		if r.Separator != nil {
			c.Separator = *r.Separator
		}
		if r.Regex != "" {
			regex, err := relabel.NewRegexp(r.Regex)
			if err != nil {
				return nil, fmt.Errorf("relabeling %d: %w", i, err)
			}
			c.Regex = regex
		}
		if r.Replacement != nil {
			c.Replacement = *r.Replacement
		}
		c.TargetLabel, c.Modulus, c.Action = r.TargetLabel, r.Modulus, cmp.Or(relabel.Action(strings.ToLower(r.Action)), relabel.Replace)
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("relabeling %d: %w", i, err)
		}
		out = append(out, &c)
	}
	return out, nil
}

// target is one endpoint of one pod with the labels prometheus-operator gives.
func (m Monitor) target(from, node string, e Endpoint, steps []*relabel.Config, p pair) (Target, string) {
	number, container, why := e.port(p)
	if why != "" {
		return Target{}, why
	}
	address := net.JoinHostPort(p.pod.Status.PodIP, strconv.Itoa(int(number)))
	b := promlabels.NewBuilder(promlabels.EmptyLabels())
	meta := func(prefix string, set map[string]string) {
		for k, v := range set {
			name := safe(k)
			b.Set(prefix+"label_"+name, v)
			b.Set(prefix+"labelpresent_"+name, "true")
		}
	}
	meta("__meta_kubernetes_pod_", p.pod.Labels)
	for k, v := range p.pod.Annotations {
		b.Set("__meta_kubernetes_pod_annotation_"+safe(k), v)
	}
	job := m.Metadata.Namespace + "/" + m.Metadata.Name
	for k, v := range map[string]string{
		"__meta_kubernetes_namespace": p.pod.Namespace, "__meta_kubernetes_pod_name": p.pod.Name, "__meta_kubernetes_pod_ip": p.pod.Status.PodIP,
		"__meta_kubernetes_pod_node_name": node, "__meta_kubernetes_pod_container_name": container, "__meta_kubernetes_pod_uid": string(p.pod.UID),
		"__address__": address, "namespace": p.pod.Namespace, "pod": p.pod.Name, "container": container, "node": node,
		"endpoint": cmp.Or(e.Port, strconv.Itoa(int(number))), "instance": address,
	} {
		b.Set(k, v)
	}
	carry := func(names []string, set map[string]string) {
		for _, k := range names {
			b.Set(safe(k), set[k])
		}
	}
	if p.service != nil {
		meta("__meta_kubernetes_service_", p.service.Labels)
		b.Set("__meta_kubernetes_service_name", p.service.Name).Set("__meta_kubernetes_endpoint_port_name", e.Port)
		b.Set("service", p.service.Name)
		carry(m.Spec.TargetLabels, p.service.Labels)
		job = cmp.Or(p.service.Labels[m.Spec.JobLabel], p.service.Name)
	} else {
		job = cmp.Or(p.pod.Labels[m.Spec.JobLabel], job)
	}
	carry(m.Spec.PodTargetLabels, p.pod.Labels)
	b.Set("job", job).Set("__scheme__", cmp.Or(strings.ToLower(e.Scheme), "http")).Set("__metrics_path__", cmp.Or(e.Path, "/metrics"))
	for k, v := range e.Params {
		if len(v) > 0 {
			b.Set("__param_"+k, v[0])
		}
	}
	if e.Interval != "" {
		b.Set("__scrape_interval__", e.Interval)
		if e.ScrapeTimeout == "" { // the default may be longer
			b.Set("__scrape_timeout__", e.Interval)
		}
	}
	if e.ScrapeTimeout != "" {
		b.Set("__scrape_timeout__", e.ScrapeTimeout)
	}
	if !relabel.ProcessBuilder(b, steps...) {
		return Target{}, fmt.Sprintf("pod %s is dropped by relabelings", p.pod.Name)
	}
	t := Target{From: from, Labels: map[string]string{}}
	b.Labels().Range(func(l promlabels.Label) {
		switch {
		case l.Name == "__address__":
			t.Address = l.Value
		case l.Name == "__scheme__":
			t.Scheme = l.Value
		case l.Name == "__metrics_path__":
			t.Path = l.Value
		case strings.HasPrefix(l.Name, "__param_"), strings.HasPrefix(l.Name, "__scrape_"), !strings.HasPrefix(l.Name, "__"):
			t.Labels[l.Name] = l.Value
		}
	})
	return t, ""
}

// port finds the number behind the endpoint's port, and its container.
func (e Endpoint) port(p pair) (int32, string, string) {
	named := func(name string) (int32, string, string) {
		for _, c := range p.pod.Spec.Containers {
			for _, have := range c.Ports {
				if have.Name == name {
					return have.ContainerPort, c.Name, ""
				}
			}
		}
		return 0, "", fmt.Sprintf("pod %s has no port named %q", p.pod.Name, name)
	}
	numbered := func(n int32) (int32, string, string) {
		var declared []port
		for _, c := range p.pod.Spec.Containers {
			for _, have := range c.Ports {
				declared = append(declared, port{have.ContainerPort, c.Name})
			}
		}
		return n, owner(p.pod, declared, n), ""
	}
	at := e.TargetPort
	if p.service != nil && e.Port != "" {
		found := false
		for _, s := range p.service.Spec.Ports {
			if s.Name == e.Port {
				target := s.TargetPort
				if target.IntVal == 0 && target.StrVal == "" {
					target = intstr.FromInt32(s.Port)
				}
				at, found = &target, true
			}
		}
		if !found {
			return 0, "", fmt.Sprintf("service %s has no port named %q", p.service.Name, e.Port)
		}
	} else if e.Port != "" {
		return named(e.Port)
	}
	switch {
	case at != nil && at.StrVal != "":
		return named(at.StrVal)
	case at != nil && at.IntVal > 0:
		return numbered(at.IntVal)
	case e.PortNumber > 0:
		return numbered(e.PortNumber)
	}
	return 0, "", "it names neither port nor targetPort"
}

// safe is a Kubernetes label's name as a Prometheus label's.
func safe(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
			return c
		}
		return '_'
	}, name)
}
