package target

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Target is one URL to scrape.
type Target struct {
	Scheme  string            `json:"scheme"`  // http or https
	Address string            `json:"address"` // host:port
	Path    string            `json:"path"`
	Labels  map[string]string `json:"labels"`          // job, instance, namespace, pod, container, node, service; __param_NAME, __scrape_*
	From    string            `json:"from"`            // the object that asks: pod/NAMESPACE/NAME or service/…
	Node    string            `json:"node,omitempty"`  // that scrapes it; set by Plan
	OfPod   bool              `json:"ofPod,omitempty"` // Address is that of a pod: no object's word

	// Namespace is that of the pod or Service found, whatever relabelings make of its
	// label; where these name another address, or nothing was found, that of the
	// object. A server of an older version tells none.
	Namespace string `json:"namespace,omitempty"`

	// Found is the namespace of what was found where relabelings name another address
	// instead; else empty. Labels may tell of it.
	Found string `json:"found,omitempty"`
}

// Key tells targets apart.
func (t Target) Key() string {
	key := t.Scheme + "://" + t.Address + t.Path + " " + t.Labels["job"]
	for _, name := range slices.Sorted(maps.Keys(t.Labels)) {
		if strings.HasPrefix(name, "__param_") {
			key += " " + strings.TrimPrefix(name, "__param_") + "=" + t.Labels[name]
		}
	}
	return key
}

// Dropped is an object that asks to be scraped and is not, or of which a field
// does nothing (Partly).
type Dropped struct {
	From   string `json:"from"`
	Reason string `json:"reason"`
	Partly bool   `json:"partly,omitempty"`
}

// The annotations.
const (
	scrapeMark = "prometheus.io/scrape"
	portMark   = "prometheus.io/port"
	pathMark   = "prometheus.io/path"
	schemeMark = "prometheus.io/scheme"
)

// Decide lists what to scrape on a node, sorted, and what is left out and why.
// A pod's own annotations count more than those of a service that selects it.
func Decide(node string, pods []*corev1.Pod, services []*corev1.Service) ([]Target, []Dropped) {
	found := map[string]Target{} // by URL: nothing is scraped twice
	var dropped []Dropped
	ask := func(from string, pod *corev1.Pod, service *corev1.Service, marks map[string]string) {
		list, why := targetsOf(from, node, pod, service, marks)
		if why != "" {
			dropped = append(dropped, Dropped{From: from, Reason: why})
		}
		for _, t := range list {
			url := t.Scheme + "://" + t.Address + t.Path
			if _, known := found[url]; !known {
				found[url] = t
			}
		}
	}
	var here []*corev1.Pod
	for _, p := range pods {
		if p.Spec.NodeName == node {
			here = append(here, p)
		}
	}
	for _, p := range here {
		if wanted(p.Annotations) {
			ask("pod/"+p.Namespace+"/"+p.Name, p, nil, p.Annotations)
		}
	}
	for _, s := range services {
		if !wanted(s.Annotations) {
			continue
		}
		from := "service/" + s.Namespace + "/" + s.Name
		if len(s.Spec.Selector) == 0 {
			dropped = append(dropped, Dropped{From: from, Reason: "the service has no selector, so its pods are not known"})
			continue
		}
		selector := labels.SelectorFromSet(s.Spec.Selector)
		for _, p := range here {
			if p.Namespace == s.Namespace && !wanted(p.Annotations) && selector.Matches(labels.Set(p.Labels)) {
				ask(from, p, s, s.Annotations)
			}
		}
	}
	out := make([]Target, 0, len(found))
	for _, t := range found {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Target) int { return cmp.Compare(a.Key(), b.Key()) })
	slices.SortFunc(dropped, func(a, b Dropped) int { return cmp.Compare(a.From, b.From) })
	return out, dropped
}

func wanted(marks map[string]string) bool {
	yes, err := strconv.ParseBool(marks[scrapeMark])
	return err == nil && yes
}

func targetsOf(from, node string, pod *corev1.Pod, service *corev1.Service, marks map[string]string) ([]Target, string) {
	switch {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return nil, fmt.Sprintf("pod %s has ended", pod.Name)
	case pod.Status.PodIP == "":
		return nil, fmt.Sprintf("pod %s has no address yet", pod.Name)
	}
	scheme := cmp.Or(marks[schemeMark], "http")
	if scheme != "http" && scheme != "https" {
		return nil, fmt.Sprintf("annotation %s is %q, want http or https", schemeMark, scheme)
	}
	ports, why := portsOf(pod, service, marks[portMark])
	if why != "" {
		return nil, why
	}
	path := cmp.Or(marks[pathMark], "/metrics")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	var out []Target
	for _, p := range ports {
		address := net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(p.number)))
		l := map[string]string{
			"job": pod.Namespace + "/" + app(pod), "instance": address, "namespace": pod.Namespace,
			"pod": pod.Name, "container": p.container, "node": node,
		}
		if service != nil {
			l["job"], l["service"] = pod.Namespace+"/"+service.Name, service.Name
		}
		if l["container"] == "" {
			delete(l, "container")
		}
		out = append(out, Target{Scheme: scheme, Address: address, Path: path, Labels: l, From: from, OfPod: true, Namespace: pod.Namespace})
	}
	return out, ""
}

type port struct {
	number    int32
	container string
}

// portsOf finds the port to scrape: the annotation's, the service's, the one
// named metrics, or the only one.
func portsOf(pod *corev1.Pod, service *corev1.Service, mark string) ([]port, string) {
	var declared []port
	var named *port
	byName := map[string]port{}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
				continue
			}
			one := port{p.ContainerPort, c.Name}
			declared = append(declared, one)
			byName[p.Name] = one
			if named == nil && (p.Name == "metrics" || p.Name == "http-metrics" || p.Name == "prometheus") {
				named = &one
			}
		}
	}
	if mark != "" {
		n, err := strconv.ParseUint(mark, 10, 16)
		if err != nil || n == 0 {
			if p, ok := byName[mark]; ok {
				return []port{p}, ""
			}
			return nil, fmt.Sprintf("annotation %s is %q, want a number from 1 to 65535 or the name of a port", portMark, mark)
		}
		return []port{{int32(n), owner(pod, declared, int32(n))}}, ""
	}
	if service != nil && len(service.Spec.Ports) == 1 {
		target := service.Spec.Ports[0].TargetPort
		if target.StrVal != "" {
			if p, ok := byName[target.StrVal]; ok {
				return []port{p}, ""
			}
			return nil, fmt.Sprintf("pod %s has no port named %q", pod.Name, target.StrVal)
		}
		n := cmp.Or(target.IntVal, service.Spec.Ports[0].Port)
		return []port{{n, owner(pod, declared, n)}}, ""
	}
	switch {
	case named != nil:
		return []port{*named}, ""
	case len(declared) == 1:
		return declared, ""
	case len(declared) == 0:
		return nil, fmt.Sprintf("pod %s declares no port; name one by annotation %s", pod.Name, portMark)
	}
	return nil, fmt.Sprintf("pod %s declares %d ports; name one by annotation %s", pod.Name, len(declared), portMark)
}

// owner is the container behind a port, if that is clear.
func owner(pod *corev1.Pod, declared []port, n int32) string {
	for _, p := range declared {
		if p.number == n {
			return p.container
		}
	}
	if len(pod.Spec.Containers) == 1 {
		return pod.Spec.Containers[0].Name
	}
	return ""
}

// app is what people call the workload of a pod.
func app(pod *corev1.Pod) string {
	for _, key := range []string{"app.kubernetes.io/name", "app", "k8s-app"} {
		if v := pod.Labels[key]; v != "" {
			return v
		}
	}
	for _, o := range pod.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			// A ReplicaSet of a Deployment carries the template's hash.
			if hash := pod.Labels["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
				return strings.TrimSuffix(o.Name, "-"+hash)
			}
			return o.Name
		}
	}
	return pod.Name
}
