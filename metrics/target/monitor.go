package target

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	promlabels "github.com/prometheus/prometheus/model/labels"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type namespaceSelector struct {
	Any        bool     `json:"any"`
	MatchNames []string `json:"matchNames"`
}

// monitorSpec has the fields of ServiceMonitor and PodMonitor.
type monitorSpec struct {
	JobLabel          string               `json:"jobLabel"`
	TargetLabels      []string             `json:"targetLabels"`    // labels of the Service to carry over
	PodTargetLabels   []string             `json:"podTargetLabels"` // labels of the pod to carry over
	Selector          metav1.LabelSelector `json:"selector"`
	NamespaceSelector namespaceSelector    `json:"namespaceSelector"`
	AttachMetadata    struct {
		Node bool `json:"node"`
	} `json:"attachMetadata"`
	Endpoints           []endpoint `json:"endpoints"`           // ServiceMonitor
	PodMetricsEndpoints []endpoint `json:"podMetricsEndpoints"` // PodMonitor

	// How Prometheus finds the pods; here they are known anyway.
	SelectorMechanism    string `json:"selectorMechanism"`
	ServiceDiscoveryRole string `json:"serviceDiscoveryRole"`
	limitSpec
}

// endpoint is one port of a monitor.
type endpoint struct {
	Port                     string              `json:"port"`
	PortNumber               *int32              `json:"portNumber"`
	TargetPort               *intstr.IntOrString `json:"targetPort"`
	Path                     string              `json:"path"`
	Scheme                   string              `json:"scheme"`
	Params                   map[string][]string `json:"params"`
	Interval                 string              `json:"interval"`
	ScrapeTimeout            string              `json:"scrapeTimeout"`
	HonorLabels              *bool               `json:"honorLabels"`
	HonorTimestamps          *bool               `json:"honorTimestamps"`
	TrackTimestampsStaleness *bool               `json:"trackTimestampsStaleness"`
	Relabelings              []relabeling        `json:"relabelings"`
	MetricRelabelings        []relabeling        `json:"metricRelabelings"`
	FilterRunning            *bool               `json:"filterRunning"` // without it pods that ended are left out
	clientSpec
}

func (m *monitorSpec) list(kind string) (string, []endpoint) {
	if kind == PodMonitor {
		return "spec.podMetricsEndpoints", m.PodMetricsEndpoints
	}
	return "spec.endpoints", m.Endpoints
}

func (m *monitorSpec) settings(path string, e endpoint) wireSettings {
	return wireSettings{path: path, interval: e.Interval, timeout: e.ScrapeTimeout, intervalField: "interval", timeoutField: "scrapeTimeout",
		honorLabels: e.HonorLabels, honorTimestamps: e.HonorTimestamps, trackTimestamps: e.TrackTimestampsStaleness,
		metricRelabelings: e.MetricRelabelings, params: e.Params, client: e.clientSpec, limits: m.limitSpec}
}

// settings are those of all endpoints.
func (o Object) settings() []wireSettings {
	var out []wireSettings
	switch {
	case o.broken != nil:
	case o.monitor != nil:
		path, list := o.monitor.list(o.Kind)
		for i, e := range list {
			out = append(out, o.monitor.settings(fmt.Sprintf("%s[%d]", path, i), e))
		}
	case o.probe != nil:
		out = append(out, o.probe.settings())
	case o.config != nil:
		out = append(out, o.config.settings())
		for i, h := range o.config.HTTPSDConfigs {
			out = append(out, h.settings(i))
		}
	}
	return out
}

func (m *monitorSpec) check(c *check, kind string) {
	if _, err := metav1.LabelSelectorAsSelector(&m.Selector); err != nil {
		c.bad("spec.selector", "%v", err)
	}
	path, list := m.list(kind)
	if len(list) == 0 {
		c.bad(path, "names no endpoint")
	}
	if kind == PodMonitor {
		c.does(len(m.Endpoints) > 0, "spec.endpoints", "a PodMonitor has podMetricsEndpoints")
		c.does(len(m.TargetLabels) > 0, "spec.targetLabels", "a PodMonitor has no Service")
	} else {
		c.does(len(m.PodMetricsEndpoints) > 0, "spec.podMetricsEndpoints", "a ServiceMonitor has endpoints")
	}
	for i, e := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if s := strings.ToLower(e.Scheme); s != "" && s != "http" && s != "https" {
			c.bad(at+".scheme", "%q, want http or https", e.Scheme)
		}
		if e.Port == "" && e.TargetPort == nil && e.PortNumber == nil && kind == ServiceMonitor {
			c.bad(at, "names neither port nor targetPort")
		}
		if _, _, err := steps(at+".relabelings", e.Relabelings); err != nil {
			c.wrong = append(c.wrong, err.Error())
		}
		m.settings(at, e).check(c)
	}
}

// scope says in words which namespaces a selector looks at.
func (s namespaceSelector) scope(own string) string {
	switch {
	case s.Any:
		return "any namespace"
	case len(s.MatchNames) > 0:
		return "namespaces " + strings.Join(s.MatchNames, ", ")
	}
	return "namespace " + own
}

// namespaces lists those of have, sorted, that a selector looks at.
func namespaces[T any](s namespaceSelector, own string, have map[string][]T) []string {
	switch {
	case s.Any:
		return slices.Sorted(maps.Keys(have))
	case len(s.MatchNames) > 0:
		return s.MatchNames
	}
	return []string{own}
}

// place is where an endpoint may be scraped: a pod, or an address somebody wrote
// into the Endpoints of a Service without a selector.
type place struct {
	pod     *corev1.Pod
	service *corev1.Service // nil for a PodMonitor
	address string          // when pod is nil
	ports   []corev1.EndpointPort
}

func (p *planner) monitor(o Object) {
	m := o.monitor
	selector, err := metav1.LabelSelectorAsSelector(&m.Selector)
	if err != nil {
		p.tell(o, "spec.selector: %v", err)
		return
	}
	places := p.places(o, selector)
	path, list := m.list(o.Kind)
	for i, e := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		run, _, err := steps(at+".relabelings", e.Relabelings)
		if err != nil {
			p.tell(o, "%v", err)
			continue
		}
		var found []candidate
		told := map[string]bool{}
		for _, pl := range places {
			c, why := p.candidate(o, e, pl)
			if why != "" {
				if !told[why] {
					told[why] = true
					p.tell(o, "%s: %s", at, why)
				}
				continue
			}
			found = append(found, c...)
		}
		p.add(o, o.pool(i), m.settings(at, e), found, run)
	}
}

// places are what a monitor selects; where there is nothing it is told why.
func (p *planner) places(o Object, selector labels.Selector) []place {
	m := o.monitor
	words := fmt.Sprintf("selector %s in %s", cmp.Or(selector.String(), "{}"), m.NamespaceSelector.scope(o.Namespace))
	var out []place
	if o.Kind == PodMonitor {
		matched := 0
		for _, ns := range namespaces(m.NamespaceSelector, o.Namespace, p.pods) {
			for _, pod := range p.pods[ns] {
				if selector.Matches(labels.Set(pod.Labels)) {
					if matched++; alive(pod) {
						out = append(out, place{pod: pod})
					}
				}
			}
		}
		switch {
		case matched == 0:
			p.tell(o, "no pod matches: %s", words)
		case len(out) == 0:
			p.tell(o, "none of the %d pods that match is running with an address: %s", matched, words)
		}
		return out
	}
	matched := 0
	for _, ns := range namespaces(m.NamespaceSelector, o.Namespace, p.services) {
		for _, s := range p.services[ns] {
			if !selector.Matches(labels.Set(s.Labels)) {
				continue
			}
			matched++
			before := len(out)
			if len(s.Spec.Selector) == 0 {
				out = append(out, p.written(s)...)
				if len(out) == before {
					p.tell(o, "service %s/%s has no selector, and no Endpoints object of its name has addresses", s.Namespace, s.Name)
				}
				continue
			}
			behind := labels.SelectorFromSet(s.Spec.Selector)
			for _, pod := range p.pods[s.Namespace] {
				if alive(pod) && behind.Matches(labels.Set(pod.Labels)) {
					out = append(out, place{pod: pod, service: s})
				}
			}
			if len(out) == before {
				p.tell(o, "service %s/%s has no running pod", s.Namespace, s.Name)
			}
		}
	}
	if matched == 0 {
		p.tell(o, "no service matches: %s", words)
	}
	return out
}

// written are the addresses that somebody wrote for a Service without a selector.
func (p *planner) written(s *corev1.Service) []place {
	var out []place
	if e := p.endpoints[s.Namespace+"/"+s.Name]; e != nil {
		for _, set := range e.Subsets {
			for _, a := range set.Addresses {
				out = append(out, place{service: s, address: a.IP, ports: set.Ports})
			}
		}
	}
	return out
}

func alive(p *corev1.Pod) bool {
	return p.Spec.NodeName != "" && p.Status.PodIP != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// candidate is one endpoint at one place with the labels prometheus-operator
// gives. A PodMonitor's endpoint without a port means every port of the pod.
func (p *planner) candidate(o Object, e endpoint, pl place) ([]candidate, string) {
	if pl.pod != nil && o.Kind == PodMonitor && e.Port == "" && e.TargetPort == nil && e.PortNumber == nil {
		var out []candidate
		for _, c := range pl.pod.Spec.Containers {
			for _, have := range c.Ports {
				one := e
				one.PortNumber = &have.ContainerPort
				more, why := p.candidate(o, one, pl)
				if why != "" {
					return nil, why
				}
				out = append(out, more...)
			}
		}
		if len(out) == 0 {
			return nil, fmt.Sprintf("pod %s declares no port, and the endpoint names none", pl.pod.Name)
		}
		return out, ""
	}
	b := promlabels.NewBuilder(promlabels.EmptyLabels())
	var number int32
	var container, why string
	if pl.pod != nil {
		if number, container, why = e.port(pl); why != "" {
			return nil, why
		}
		p.fromPod(b, o.monitor, pl.pod, number, container)
	} else if number, why = e.writtenPort(pl); why != "" {
		return nil, why
	}
	host, node := pl.address, p.Home
	if pl.pod != nil {
		host, node = pl.pod.Status.PodIP, pl.pod.Spec.NodeName
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(number)))
	job := o.Namespace + "/" + o.Name
	b.Set("__address__", address).Set("instance", address).Set("endpoint", cmp.Or(e.Port, e.targetText(), strconv.Itoa(int(number))))
	carry := func(names []string, set map[string]string) {
		for _, k := range names {
			b.Set(safe(k), set[k])
		}
	}
	if s := pl.service; s != nil {
		metaService(b, s)
		b.Set(metaPrefix+"endpoint_port_name", e.Port).Set(metaPrefix+"endpoints_name", s.Name).Set(metaPrefix+"endpoint_ready", "true")
		b.Set("namespace", s.Namespace).Set("service", s.Name)
		carry(o.monitor.TargetLabels, s.Labels)
		job = cmp.Or(s.Labels[o.monitor.JobLabel], s.Name)
	} else {
		job = cmp.Or(pl.pod.Labels[o.monitor.JobLabel], job)
	}
	if pl.pod != nil {
		carry(o.monitor.PodTargetLabels, pl.pod.Labels)
	}
	b.Set("job", job).Set("__scheme__", cmp.Or(strings.ToLower(e.Scheme), "http")).Set("__metrics_path__", cmp.Or(e.Path, "/metrics"))
	for k, v := range e.Params {
		if len(v) > 0 {
			b.Set("__param_"+k, v[0])
		}
	}
	c := candidate{labels: b, node: node, what: "address " + address}
	if pl.service != nil {
		c.home = pl.service.Namespace
	}
	if pl.pod != nil {
		c.home = pl.pod.Namespace
		c.what, c.ip = "pod "+pl.pod.Namespace+"/"+pl.pod.Name, pl.pod.Status.PodIP
	}
	return []candidate{c}, ""
}

func (p *planner) fromPod(b *promlabels.Builder, m *monitorSpec, pod *corev1.Pod, number int32, container string) {
	metaPod(b, pod)
	for _, c := range pod.Spec.Containers {
		if c.Name == container {
			var at *corev1.ContainerPort
			for _, have := range c.Ports {
				if have.ContainerPort == number {
					at = &have
				}
			}
			metaPort(b, c, at)
		}
	}
	b.Set(metaPrefix+"endpoint_address_target_kind", "Pod").Set(metaPrefix+"endpoint_address_target_name", pod.Name)
	if n := p.nodes[pod.Spec.NodeName]; n != nil && m.AttachMetadata.Node {
		metaNode(b, n)
	}
	b.Set("namespace", pod.Namespace).Set("pod", pod.Name).Set("container", container).Set("node", pod.Spec.NodeName)
}

func (e endpoint) targetText() string {
	if e.TargetPort == nil {
		return ""
	}
	return e.TargetPort.String()
}

// writtenPort finds the number behind the endpoint's port where no pod is known.
func (e endpoint) writtenPort(pl place) (int32, string) {
	for _, p := range pl.ports {
		if e.Port != "" && p.Name == e.Port || e.Port == "" && e.TargetPort != nil && (e.TargetPort.StrVal != "" && p.Name == e.TargetPort.StrVal || e.TargetPort.IntVal == p.Port) {
			return p.Port, ""
		}
	}
	return 0, fmt.Sprintf("the Endpoints of service %s have no port %q", pl.service.Name, cmp.Or(e.Port, e.targetText()))
}

// port finds the number behind the endpoint's port, and its container.
func (e endpoint) port(pl place) (int32, string, string) {
	named := func(name string) (int32, string, string) {
		for _, c := range pl.pod.Spec.Containers {
			for _, have := range c.Ports {
				if have.Name == name {
					return have.ContainerPort, c.Name, ""
				}
			}
		}
		return 0, "", fmt.Sprintf("pod %s has no port named %q", pl.pod.Name, name)
	}
	numbered := func(n int32) (int32, string, string) {
		var declared []port
		for _, c := range pl.pod.Spec.Containers {
			for _, have := range c.Ports {
				declared = append(declared, port{have.ContainerPort, c.Name})
			}
		}
		return n, owner(pl.pod, declared, n), ""
	}
	at := e.TargetPort
	if pl.service != nil && e.Port != "" {
		found := false
		for _, s := range pl.service.Spec.Ports {
			if s.Name == e.Port {
				target := s.TargetPort
				if target.IntVal == 0 && target.StrVal == "" {
					target = intstr.FromInt32(s.Port)
				}
				at, found = &target, true
			}
		}
		if !found {
			return 0, "", fmt.Sprintf("service %s has no port named %q", pl.service.Name, e.Port)
		}
	} else if e.Port != "" {
		return named(e.Port)
	}
	switch {
	case at != nil && at.StrVal != "":
		return named(at.StrVal)
	case at != nil && at.IntVal > 0:
		return numbered(at.IntVal)
	case e.PortNumber != nil && *e.PortNumber > 0:
		return numbered(*e.PortNumber)
	}
	return 0, "", "it names neither port nor targetPort"
}
