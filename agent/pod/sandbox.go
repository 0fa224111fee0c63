package pod

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Places are where things of pods lie on a node.
type Places struct {
	Pods    string // D/pods
	Logs    string // D/podlogs
	Seccomp string // directory of Localhost profiles
}

// Dir is the directory of a pod, by uid.
func (p Places) Dir(uid string) string { return filepath.Join(p.Pods, uid) }

// LogDir is where the output of a pod's containers goes.
func (p Places) LogDir(pod *corev1.Pod) string {
	return filepath.Join(p.Logs, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID))
}

// LogPath is the file of one attempt, relative to LogDir.
func LogPath(container string, attempt uint32) string {
	return filepath.Join(container, strconv.Itoa(int(attempt))+".log")
}

// Resolver is a resolv.conf.
type Resolver struct{ Servers, Searches, Options []string }

// DNS is how names are resolved on a node.
type DNS struct {
	Host          Resolver // of the machine
	ClusterServer []string // addresses of the cluster's DNS service
	ClusterDomain string
}

// SandboxConfig is a pod in the runtime's words. cgroup is the parent of its
// containers' cgroups, without the hierarchy's mount point.
func SandboxConfig(pod *corev1.Pod, attempt uint32, cgroup string, node Node, dns DNS, places Places) (*cri.PodSandboxConfig, error) {
	host, err := Hostname(pod, dns.ClusterDomain)
	if err != nil {
		return nil, err
	}
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		LogDirectory: places.LogDir(pod),
		DnsConfig:    resolver(pod, dns),
		Labels:       podLabels(pod),
		Annotations:  annotations(pod),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    cgroup,
			Sysctls:         sysctls(pod),
			SecurityContext: sandboxSecurity(pod, node),
		},
	}
	if !pod.Spec.HostNetwork {
		config.Hostname = host
		config.PortMappings = portMappings(pod)
	}
	return config, nil
}

// Hostname is the name a pod gives itself.
func Hostname(pod *corev1.Pod, domain string) (string, error) {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if o := pod.Spec.HostnameOverride; o != nil {
		name = *o
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN && pod.Spec.Subdomain != "" {
		full := strings.Join([]string{name, pod.Spec.Subdomain, pod.Namespace, "svc", domain}, ".")
		if len(full) > 64 {
			return "", fmt.Errorf("name %q is longer than the 64 bytes a kernel's host name can have", full)
		}
		return full, nil
	}
	return name, nil
}

func podLabels(pod *corev1.Pod) map[string]string {
	labels := map[string]string{}
	for k, v := range pod.Labels {
		labels[k] = v
	}
	labels[LabelName], labels[LabelNamespace], labels[LabelUID] = pod.Name, pod.Namespace, string(pod.UID)
	return labels
}

// annotations of a pod go to the runtime, except what only clients use and may
// be large.
func annotations(pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	for k, v := range pod.Annotations {
		if k != corev1.LastAppliedConfigAnnotation {
			out[k] = v
		}
	}
	return out
}

func portMappings(pod *corev1.Pod) []*cri.PortMapping {
	var out []*cri.PortMapping
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			for _, p := range c.Ports {
				if p.HostPort == 0 {
					continue
				}
				out = append(out, &cri.PortMapping{
					Protocol: cri.Protocol(cri.Protocol_value[cmpProtocol(p.Protocol)]), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
				})
			}
		}
	}
	return out
}

// limits of resolvers that are in wide use.
const (
	maxServers  = 3
	maxSearches = 32
)

func resolver(pod *corev1.Pod, dns DNS) *cri.DNSConfig {
	r := &cri.DNSConfig{}
	policy := pod.Spec.DNSPolicy
	if policy == "" || policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = map[bool]corev1.DNSPolicy{true: corev1.DNSDefault, false: corev1.DNSClusterFirst}[pod.Spec.HostNetwork]
	}
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		r.Servers, r.Searches, r.Options = slices.Clone(dns.Host.Servers), slices.Clone(dns.Host.Searches), slices.Clone(dns.Host.Options)
	default:
		r.Servers = slices.Clone(dns.ClusterServer)
		r.Searches = append([]string{pod.Namespace + ".svc." + dns.ClusterDomain, "svc." + dns.ClusterDomain, dns.ClusterDomain}, dns.Host.Searches...)
		r.Options = []string{"ndots:5"}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		r.Servers = append(r.Servers, own.Nameservers...)
		r.Searches = append(r.Searches, own.Searches...)
		for _, o := range own.Options {
			text := o.Name
			if o.Value != nil && *o.Value != "" {
				text += ":" + *o.Value
			}
			r.Options = slices.DeleteFunc(r.Options, func(old string) bool {
				name, _, _ := strings.Cut(old, ":")
				return name == o.Name
			})
			r.Options = append(r.Options, text)
		}
	}
	r.Servers, r.Searches = unique(r.Servers, maxServers), unique(r.Searches, maxSearches)
	return r
}

func unique(list []string, most int) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) && len(out) < most {
			out = append(out, s)
		}
	}
	return out
}

// Hosts is the pod's /etc/hosts. machine is that of the node, which pods on the
// node's network share.
func Hosts(pod *corev1.Pod, ips []string, domain string, machine []byte) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.Write(machine)
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
		name := pod.Name
		if pod.Spec.Hostname != "" {
			name = pod.Spec.Hostname
		}
		for _, ip := range ips {
			if pod.Spec.Subdomain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s.%s.svc.%s\t%s\n", ip, name, pod.Spec.Subdomain, pod.Namespace, domain, name)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, name)
			}
		}
	}
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return []byte(b.String())
}
