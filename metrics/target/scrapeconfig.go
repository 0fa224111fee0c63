package target

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	promlabels "github.com/prometheus/prometheus/model/labels"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// configSpec is the spec of a ScrapeConfig.
type configSpec struct {
	JobName       string `json:"jobName"`
	StaticConfigs []struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	} `json:"staticConfigs"`
	KubernetesSDConfigs []discovery  `json:"kubernetesSDConfigs"`
	HTTPSDConfigs       []httpSearch `json:"httpSDConfigs"`
	DNSSDConfigs        []dnsSearch  `json:"dnsSDConfigs"`

	// These are known and not followed.
	FileSDConfigs         []any `json:"fileSDConfigs"`
	ConsulSDConfigs       []any `json:"consulSDConfigs"`
	EC2SDConfigs          []any `json:"ec2SDConfigs"`
	AzureSDConfigs        []any `json:"azureSDConfigs"`
	GCESDConfigs          []any `json:"gceSDConfigs"`
	OpenStackSDConfigs    []any `json:"openstackSDConfigs"`
	DigitalOceanSDConfigs []any `json:"digitalOceanSDConfigs"`
	KumaSDConfigs         []any `json:"kumaSDConfigs"`
	EurekaSDConfigs       []any `json:"eurekaSDConfigs"`
	DockerSDConfigs       []any `json:"dockerSDConfigs"`
	DockerSwarmSDConfigs  []any `json:"dockerSwarmSDConfigs"`
	LinodeSDConfigs       []any `json:"linodeSDConfigs"`
	HetznerSDConfigs      []any `json:"hetznerSDConfigs"`
	NomadSDConfigs        []any `json:"nomadSDConfigs"`
	PuppetDBSDConfigs     []any `json:"puppetDBSDConfigs"`
	LightSailSDConfigs    []any `json:"lightSailSDConfigs"`
	OVHCloudSDConfigs     []any `json:"ovhcloudSDConfigs"`
	ScalewaySDConfigs     []any `json:"scalewaySDConfigs"`
	IonosSDConfigs        []any `json:"ionosSDConfigs"`

	Relabelings              []relabeling        `json:"relabelings"`
	MetricRelabelings        []relabeling        `json:"metricRelabelings"`
	MetricsPath              string              `json:"metricsPath"`
	Scheme                   string              `json:"scheme"`
	Params                   map[string][]string `json:"params"`
	ScrapeInterval           string              `json:"scrapeInterval"`
	ScrapeTimeout            string              `json:"scrapeTimeout"`
	HonorLabels              *bool               `json:"honorLabels"`
	HonorTimestamps          *bool               `json:"honorTimestamps"`
	TrackTimestampsStaleness *bool               `json:"trackTimestampsStaleness"`
	EnableCompression        *bool               `json:"enableCompression"`
	HTTP2                    *bool               `json:"enableHTTP2"`
	NameValidationScheme     string              `json:"nameValidationScheme"`
	NameEscapingScheme       string              `json:"nameEscapingScheme"`
	ScrapeClassName          string              `json:"scrapeClassName"`
	clientSpec
	limitSpec
}

// discovery is one way to find targets among the objects of this cluster.
type discovery struct {
	Role       string `json:"role"`
	Namespaces *struct {
		OwnNamespace *bool    `json:"ownNamespace"`
		Names        []string `json:"names"`
	} `json:"namespaces"`
	Selectors []struct {
		Role  string `json:"role"`
		Label string `json:"label"`
		Field string `json:"field"`
	} `json:"selectors"`
	AttachMetadata struct {
		Node bool `json:"node"`
	} `json:"attachMetadata"`
	APIServer string `json:"apiServer"`

	// Credentials for another API server.
	BasicAuth       any `json:"basicAuth"`
	Authorization   any `json:"authorization"`
	OAuth2          any `json:"oauth2"`
	TLSConfig       any `json:"tlsConfig"`
	FollowRedirects any `json:"followRedirects"`
	EnableHTTP2     any `json:"enableHTTP2"`
	proxySpec
}

func (s *configSpec) settings() wireSettings {
	client := s.clientSpec
	if s.HTTP2 != nil {
		client.EnableHTTP2 = s.HTTP2
	}
	return wireSettings{interval: s.ScrapeInterval, timeout: s.ScrapeTimeout, intervalField: "scrapeInterval", timeoutField: "scrapeTimeout",
		honorLabels: s.HonorLabels, honorTimestamps: s.HonorTimestamps, trackTimestamps: s.TrackTimestampsStaleness, compression: s.EnableCompression,
		nameValidation: s.NameValidationScheme, nameEscaping: s.NameEscapingScheme,
		metricRelabelings: s.MetricRelabelings, params: s.Params, client: client, limits: s.limitSpec}
}

func (s *configSpec) check(c *check) {
	if v := strings.ToLower(s.Scheme); v != "" && v != "http" && v != "https" {
		c.bad("spec.scheme", "%q, want http or https", s.Scheme)
	}
	c.does(len(s.FileSDConfigs) > 0, "spec.fileSDConfigs", "objects do not read files of the machine; a file of --scrape-config may name them, and httpSDConfigs a service")
	for field, list := range map[string][]any{"consulSDConfigs": s.ConsulSDConfigs, "ec2SDConfigs": s.EC2SDConfigs, "azureSDConfigs": s.AzureSDConfigs,
		"gceSDConfigs": s.GCESDConfigs, "openstackSDConfigs": s.OpenStackSDConfigs, "digitalOceanSDConfigs": s.DigitalOceanSDConfigs, "kumaSDConfigs": s.KumaSDConfigs,
		"eurekaSDConfigs": s.EurekaSDConfigs, "dockerSDConfigs": s.DockerSDConfigs, "dockerSwarmSDConfigs": s.DockerSwarmSDConfigs, "linodeSDConfigs": s.LinodeSDConfigs,
		"hetznerSDConfigs": s.HetznerSDConfigs, "nomadSDConfigs": s.NomadSDConfigs, "puppetDBSDConfigs": s.PuppetDBSDConfigs, "lightSailSDConfigs": s.LightSailSDConfigs,
		"ovhcloudSDConfigs": s.OVHCloudSDConfigs, "scalewaySDConfigs": s.ScalewaySDConfigs, "ionosSDConfigs": s.IonosSDConfigs} {
		c.does(len(list) > 0, "spec."+field, "only staticConfigs, kubernetesSDConfigs, httpSDConfigs and dnsSDConfigs are followed")
	}
	c.does(s.ScrapeClassName != "", "spec.scrapeClassName", "there are no scrape classes")
	if _, _, err := steps("spec.relabelings", s.Relabelings); err != nil {
		c.wrong = append(c.wrong, err.Error())
	}
	for i, st := range s.StaticConfigs {
		for k, t := range st.Targets {
			if why := notAddress(t); why != "" {
				c.bad(fmt.Sprintf("spec.staticConfigs[%d].targets[%d]", i, k), "%s", why)
			}
		}
	}
	for i, d := range s.KubernetesSDConfigs {
		at := fmt.Sprintf("spec.kubernetesSDConfigs[%d]", i)
		switch strings.ToLower(d.Role) {
		case "pod", "service", "endpoints", "endpointslice", "node":
		case "ingress":
			c.does(true, at, "role Ingress is not followed; a Probe takes URLs")
		default:
			c.bad(at+".role", "%q, want Pod, Service, Endpoints, EndpointSlice or Node", d.Role)
		}
		c.does(d.APIServer != "", at, "apiServer names another cluster; only this one is followed")
		for k, sel := range d.Selectors {
			if _, err := labels.Parse(sel.Label); err != nil {
				c.bad(fmt.Sprintf("%s.selectors[%d].label", at, k), "%v", err)
			}
			c.does(sel.Field != "", fmt.Sprintf("%s.selectors[%d].field", at, k), "select by label, or drop by relabelings")
		}
	}
	for i, h := range s.HTTPSDConfigs {
		h.check(c, i)
	}
	for i, d := range s.DNSSDConfigs {
		d.check(c, i)
	}
	s.settings().check(c)
}

// notAddress says why a static target is none.
func notAddress(t string) string {
	if strings.Contains(t, "/") || t == "" {
		return fmt.Sprintf("%q: write host:port; path and scheme have fields of their own", t)
	}
	if _, p, err := net.SplitHostPort(t); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return fmt.Sprintf("%q has no port from 1 to 65535", t)
		}
	}
	if GuardedAddress(t) {
		return fmt.Sprintf("%q is the machine that scrapes, which objects may not name; a file of --scrape-config may", t)
	}
	return ""
}

func (p *planner) config(o Object) {
	s := o.config
	run, _, err := steps("spec.relabelings", s.Relabelings)
	if err != nil {
		p.tell(o, "%v", err)
		return
	}
	var found []candidate
	base := func() *promlabels.Builder {
		b := promlabels.NewBuilder(promlabels.EmptyLabels())
		b.Set("job", cmp.Or(s.JobName, o.pool())).Set("__scheme__", cmp.Or(strings.ToLower(s.Scheme), "http")).Set("__metrics_path__", cmp.Or(s.MetricsPath, "/metrics"))
		for k, v := range s.Params {
			if len(v) > 0 {
				b.Set("__param_"+k, v[0])
			}
		}
		return b
	}
	for _, st := range s.StaticConfigs {
		for _, t := range st.Targets {
			found = append(found, p.addressed(o, base(), st.Labels, t))
		}
	}
	for _, d := range s.KubernetesSDConfigs {
		if d.APIServer == "" {
			found = append(found, p.discover(o, d, base)...)
		}
	}
	more, told := p.searched(o, base)
	found = append(found, more...)
	for _, reason := range told {
		p.left = append(p.left, Dropped{From: o.From(), Reason: reason, Partly: len(found) > 0})
	}
	if len(found) == 0 {
		if len(told) == 0 {
			p.tell(o, "it finds no target")
		}
		return
	}
	p.add(o, o.pool(), s.settings(), found, run)
}

// selects says whether an object of the role is selected.
func (d discovery) selects(role string, set map[string]string) bool {
	for _, s := range d.Selectors {
		if strings.EqualFold(s.Role, role) {
			if sel, err := labels.Parse(s.Label); err != nil || !sel.Matches(labels.Set(set)) {
				return false
			}
		}
	}
	return true
}

// where are the namespaces that a discovery of an object looks into; nodes are in none.
func (d discovery) where(own string) (_ namespaceSelector, follows bool) {
	switch strings.ToLower(d.Role) {
	case "pod", "service", "endpoints", "endpointslice":
	default:
		return namespaceSelector{}, false
	}
	n := d.Namespaces
	if n == nil {
		return namespaceSelector{Any: true}, true
	}
	names := n.Names
	if n.OwnNamespace != nil && *n.OwnNamespace {
		names = append(names[:len(names):len(names)], own)
	}
	return namespaceSelector{Any: len(names) == 0, MatchNames: names}, true
}

func (p *planner) discover(o Object, d discovery, base func() *promlabels.Builder) []candidate {
	where, _ := d.where(o.Namespace)
	var out []candidate
	switch strings.ToLower(d.Role) {
	case "node":
		for _, n := range p.Nodes {
			if c, ok := nodeCandidate(base(), n); ok && d.selects("node", n.Labels) {
				out = append(out, c)
			}
		}
	case "pod":
		for _, ns := range namespaces(where, o.Namespace, p.pods) {
			for _, pod := range p.pods[ns] {
				if alive(pod) && d.selects("pod", pod.Labels) {
					out = append(out, p.podCandidates(d, pod, base)...)
				}
			}
		}
	case "service", "endpoints", "endpointslice":
		for _, ns := range namespaces(where, o.Namespace, p.services) {
			for _, s := range p.services[ns] {
				if !d.selects("service", s.Labels) {
					continue
				}
				for _, port := range s.Spec.Ports {
					if strings.EqualFold(d.Role, "service") {
						out = append(out, p.serviceCandidate(s, port, base()))
					} else {
						out = append(out, p.behind(d, s, port, base)...)
					}
				}
			}
		}
	}
	return out
}

func nodeCandidate(b *promlabels.Builder, n *corev1.Node) (candidate, bool) {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			port := cmp.Or(n.Status.DaemonEndpoints.KubeletEndpoint.Port, 10250)
			metaNode(b, n)
			b.Set("__address__", net.JoinHostPort(a.Address, strconv.Itoa(int(port)))).Set("instance", n.Name)
			return candidate{labels: b, node: n.Name, what: "node " + n.Name}, true
		}
	}
	return candidate{}, false
}

func (p *planner) attach(d discovery, b *promlabels.Builder, pod *corev1.Pod) {
	metaPod(b, pod)
	if n := p.nodes[pod.Spec.NodeName]; n != nil && d.AttachMetadata.Node {
		metaNode(b, n)
	}
}

func (p *planner) podCandidates(d discovery, pod *corev1.Pod, base func() *promlabels.Builder) []candidate {
	var out []candidate
	add := func(c corev1.Container, port *corev1.ContainerPort) {
		b := base()
		p.attach(d, b, pod)
		metaPort(b, c, port)
		address := pod.Status.PodIP
		if port != nil {
			address = net.JoinHostPort(address, strconv.Itoa(int(port.ContainerPort)))
		}
		out = append(out, candidate{b.Set("__address__", address), pod.Spec.NodeName, "pod " + pod.Namespace + "/" + pod.Name, pod.Status.PodIP, pod.Namespace})
	}
	for _, c := range pod.Spec.Containers {
		if len(c.Ports) == 0 {
			add(c, nil)
		}
		for i := range c.Ports {
			add(c, &c.Ports[i])
		}
	}
	return out
}

func (p *planner) serviceCandidate(s *corev1.Service, port corev1.ServicePort, b *promlabels.Builder) candidate {
	metaService(b, s)
	b.Set(metaPrefix+"service_port_name", port.Name).Set(metaPrefix+"service_port_number", strconv.Itoa(int(port.Port)))
	b.Set(metaPrefix+"service_port_protocol", string(protocolOf(port.Protocol)))
	b.Set("__address__", net.JoinHostPort(s.Name+"."+s.Namespace+".svc", strconv.Itoa(int(port.Port))))
	return candidate{labels: b, node: p.Home, what: "service " + s.Namespace + "/" + s.Name, home: s.Namespace}
}

// behind are the pods or written addresses of one port of a Service.
func (p *planner) behind(d discovery, s *corev1.Service, sp corev1.ServicePort, base func() *promlabels.Builder) []candidate {
	var out []candidate
	add := func(b *promlabels.Builder, address, node, what, ip string) {
		metaService(b, s)
		for _, kind := range []string{"endpoints", "endpointslice"} {
			b.Set(metaPrefix+kind+"_name", s.Name)
		}
		for _, kind := range []string{"endpoint_", "endpointslice_"} {
			b.Set(metaPrefix+kind+"port_name", sp.Name).Set(metaPrefix+kind+"port_protocol", string(protocolOf(sp.Protocol)))
		}
		b.Set(metaPrefix+"endpoint_ready", "true").Set(metaPrefix+"endpointslice_endpoint_conditions_ready", "true")
		out = append(out, candidate{b.Set("__address__", address), node, what, ip, s.Namespace})
	}
	if len(s.Spec.Selector) == 0 {
		for _, pl := range p.written(s) {
			for _, port := range pl.ports {
				if port.Name == sp.Name {
					add(base(), net.JoinHostPort(pl.address, strconv.Itoa(int(port.Port))), p.Home, "address "+pl.address, "")
				}
			}
		}
		return out
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for _, pod := range p.pods[s.Namespace] {
		if !alive(pod) || !selector.Matches(labels.Set(pod.Labels)) || !d.selects("pod", pod.Labels) {
			continue
		}
		target := sp.TargetPort
		number, container, why := endpoint{TargetPort: &target, PortNumber: &sp.Port}.port(place{pod: pod})
		if why != "" {
			continue // a pod of the Service without that port
		}
		b := base()
		p.attach(d, b, pod)
		for _, c := range pod.Spec.Containers {
			if c.Name == container {
				metaPort(b, c, nil)
			}
		}
		for _, kind := range []string{"endpoint_", "endpointslice_"} {
			b.Set(metaPrefix+kind+"address_target_kind", "Pod").Set(metaPrefix+kind+"address_target_name", pod.Name)
		}
		b.Set(metaPrefix+"endpoint_node_name", pod.Spec.NodeName)
		add(b, net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(number))), pod.Spec.NodeName, "pod "+pod.Namespace+"/"+pod.Name, pod.Status.PodIP)
	}
	return out
}
