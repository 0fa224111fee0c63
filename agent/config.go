package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"perch/agent/pod"
)

// Config is one node.
type Config struct {
	Node    string            // name of the Node object
	IPs     []string          // addresses of the node, the main one first
	Labels  map[string]string // beside the ones every node has
	Taints  []corev1.Taint    // given once, when the node registers
	Data    string            // D: pods/, podlogs/ and seccomp/ are below
	Door    int32             // port of the kubelet API, told in the node's status
	MaxPods int64
	Reserve corev1.ResourceList // kept from pods for the system
	Version string              // told as kubeletVersion, e.g. v1.36.3+perch.1

	ClientCert, ServingCert string // files of this node's certificates, whose age is told; "" is none

	ClusterDNS    []string // addresses of the cluster's DNS service
	ClusterDomain string
	ResolvConf    string // the machine's resolv.conf
	// ContainerCgroup is what every container's own cgroup gets, file → content;
	// only cgroup v2 knows such settings.
	ContainerCgroup map[string]string
	HostsFile       string // the machine's hosts file

	Relist  time.Duration // how often the runtime is asked what there is, beside its events
	Refresh time.Duration // how often volumes of objects are looked at, beside changes
	Lease   time.Duration // heartbeat
	Status  time.Duration // how often node status is sent when nothing changed

	LogBytes int64         // size at which a container's log file is rotated
	LogFiles int           // files kept for each container
	LogAge   time.Duration // how long output of a deleted pod waits to be drained
}

// Default is a node but for its names and places.
func Default() Config {
	return Config{
		Door: 10250, MaxPods: 110, ClusterDomain: "cluster.local", ResolvConf: "/etc/resolv.conf", HostsFile: "/etc/hosts",
		Version: "v1.36.3", Relist: time.Second, Refresh: time.Minute, Lease: 10 * time.Second, Status: time.Minute,
		LogBytes: 10 << 20, LogFiles: 5, LogAge: time.Hour,
	}
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs error
	if c.Node == "" {
		errs = errors.Join(errs, errors.New("node name is empty"))
	}
	if !filepath.IsAbs(c.Data) {
		errs = errors.Join(errs, fmt.Errorf("data dir %q: want an absolute path", c.Data))
	}
	if len(c.IPs) == 0 {
		errs = errors.Join(errs, errors.New("node has no address"))
	}
	for _, ip := range c.IPs {
		if _, err := netip.ParseAddr(ip); err != nil {
			errs = errors.Join(errs, fmt.Errorf("node address %q: want an IP address", ip))
		}
	}
	for name, d := range map[string]time.Duration{"relist": c.Relist, "refresh": c.Refresh, "lease": c.Lease, "status": c.Status} {
		if d <= 0 {
			errs = errors.Join(errs, fmt.Errorf("%s period %s: want more than zero", name, d))
		}
	}
	if c.LogBytes < 1<<16 || c.LogFiles < 2 {
		errs = errors.Join(errs, fmt.Errorf("log rotation at %d bytes with %d files: want at least 65536 and 2", c.LogBytes, c.LogFiles))
	}
	return errs
}

func (c Config) places() pod.Places {
	return pod.Places{Pods: filepath.Join(c.Data, "pods"), Logs: filepath.Join(c.Data, "podlogs"), Seccomp: filepath.Join(c.Data, "seccomp")}
}
