package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"

	"perch/agent"
	"perch/agent/cgrouptree"
	"perch/agent/image"
	"perch/agent/network"
	"perch/agent/network/cni"
	"perch/agent/proxy"
	"perch/agent/runtime"
	"perch/agent/runtime/bundle"
	"perch/agent/stats"
	"perch/agent/stats/cadvisor"
	"perch/cmd/perch/daemon/component"
	"perch/controlplane/event"
	"perch/metrics/stream"
)

// buildAgent starts everything that makes this machine a node: network, then
// pods, then numbers, then the node's door.
func buildAgent(ctx context.Context, r role) error {
	r.reg.MustRegister(component.BuildInfo())
	counted := component.Count("kubelet", r.reg)
	api, err := connect(r.cfg, "node", counted)
	if err != nil {
		return err
	}
	facts, err := event.New(event.Config{Host: r.cfg.NodeName, Queue: event.Default().Queue, Burst: event.Default().Burst, Refill: event.Default().Refill,
		Known: event.Default().Known, Linger: event.Default().Linger}, api.kube.CoreV1(), r.part("event"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("events", facts.Run)
	cri, err := runtime.New(runtime.Config{Endpoint: r.cfg.CRISocket()}, r.part("cri"), r.reg)
	if err != nil {
		return refused{err}
	}
	r.group.OnStop("cri", func(context.Context) error { return cri.Close() })

	// Network. Its requests are told apart, as those of kube-proxy are.
	services, err := connect(r.cfg, "node", component.Count("kube-proxy", r.reg))
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(services.kube, 0)
	mine := informers.NewSharedInformerFactoryWithOptions(api.kube, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = "spec.nodeName=" + r.cfg.NodeName
	}))
	world := newWorld(r.cfg, factory, mine)
	netCfg := network.Default()
	netCfg.Cluster, netCfg.Node, netCfg.ClusterCIDR, netCfg.ServiceCIDR, netCfg.Dir = r.cfg.Name, r.cfg.NodeName, r.cfg.ClusterCIDR, r.cfg.ServiceCIDR, r.cfg.Path("cni")
	net, err := network.New(netCfg, world.nodeSource(), sandboxes(cri), r.part("network"), r.reg)
	if err != nil {
		return err
	}
	proxyCfg := proxy.Default()
	proxyCfg.Cluster, proxyCfg.ServiceCIDR, proxyCfg.ClusterCIDR = r.cfg.Name, r.cfg.ServiceCIDR, r.cfg.ClusterCIDR
	forwards, err := proxy.New(proxyCfg, world.serviceSource(net), r.part("proxy"), r.reg)
	if err != nil {
		return err
	}

	// Pods.
	tree, err := cgrouptree.Open(cgroupMount, r.cfg.CgroupRoot())
	if err != nil {
		return err
	}
	helpers, err := bundle.Open(r.cfg.Path("bin"), r.part("bundle"))
	if err != nil {
		return refused{err}
	}
	telemetry := unixClient(r.cfg.Socket("telemetry"))
	puller := image.New(image.Config{}, cri, r.part("image"), r.reg)
	probes := newProbeNumbers()
	podCfg := agent.Default()
	podCfg.Node, podCfg.IPs, podCfg.Data, podCfg.Door = r.cfg.NodeName, []string{r.cfg.AdvertiseAddress.String()}, r.cfg.DataDir, int32(r.cfg.AgentPort)
	podCfg.ClusterDNS, podCfg.ClusterDomain = []string{r.cfg.ServiceIP(10).String()}, r.cfg.ClusterDomain
	podCfg.ContainerCgroup = tree.ForContainers()
	podCfg.ClientCert, podCfg.ServingCert = r.cfg.Path("pki", "node.crt"), r.cfg.Path("pki", "node-serving.crt")
	var numbers *stats.Stats // set below; containers start after it
	pods, err := agent.New(podCfg, agent.Parts{
		API: api.kube, Runtime: cri, Images: puller, Cgroups: tree, Tell: facts.Tell,
		Services:   world.servicesOf,
		Conditions: func() []corev1.NodeCondition { return conditions(net, helpers) },
		Drained:    drained(telemetry),
		Leaving:    leaving(telemetry, r.part("output")),
		Observe:    probes.observe,
		Started: func(p *corev1.Pod, id string) {
			numbers.Started(numbers.PathOf(strings.ToLower(string(p.Status.QOSClass)), string(p.UID), id))
		},
		Ended: func(p *corev1.Pod, id string, code int32, oom bool) {
			numbers.Ended(numbers.PathOf(strings.ToLower(string(p.Status.QOSClass)), string(p.UID), id), stats.Exit{Code: int(code), OOMKilled: oom})
		},
	}, r.part("pods"), r.reg)
	if err != nil {
		return err
	}

	// Numbers.
	names := identities(pods)
	statsCfg := stats.Default()
	statsCfg.Node, statsCfg.Instance, statsCfg.Root = r.cfg.NodeName, nodeAddress(r.cfg), r.cfg.CgroupRoot()
	send := stream.NewClient("telemetry", stream.ClientConfig{URL: "http://telemetry/perch/v1/samples"}, telemetry, r.reg)
	numbers, err = stats.New(statsCfg, stats.Parts{Name: names, Machine: cadvisor.Machine, Sandbox: func(uid string) string { return pods.Sandbox(types.UID(uid)) }, Sink: send.Send}, r.part("stats"), r.reg)
	if err != nil {
		return err
	}

	reviews, err := connect(r.cfg, "node", counted) // another: strangers make it ask, and api says that this node is alive
	if err != nil {
		return err
	}
	if err := r.openNodeDoor(reviews, cri, pods, numbers, probes, telemetry); err != nil {
		return err
	}
	r.group.Go("dns", r.runDNS(net)) // needs no runtime
	if err := cri.WaitReady(ctx); err != nil {
		return err
	}
	r.group.Go("objects", func(ctx context.Context) error {
		factory.StartWithContext(ctx)
		mine.StartWithContext(ctx)
		<-ctx.Done()
		factory.Shutdown()
		mine.Shutdown()
		return nil
	})
	r.group.Go("network", net.Run)
	r.group.Go("proxy", forwards.Run)
	r.group.Go("stats", numbers.Run)
	r.group.Go("pods", pods.Run)
	r.check("pods", func(context.Context) error {
		pods.Pods()
		return nil
	})
	return nil
}

// sandboxes lists the interfaces of all sandboxes, so that leaked ones go.
func sandboxes(rt runtime.Service) network.Sandboxes {
	return func(ctx context.Context) ([]cni.Attachment, error) {
		list, err := rt.ListPodSandbox(ctx, nil)
		if err != nil {
			return nil, err
		}
		var out []cni.Attachment
		for _, s := range list {
			out = append(out, cni.Attachment{ContainerID: s.Id, IfName: "eth0"})
		}
		return out, nil
	}
}

// conditions are those of the node that are not the agent's own.
func conditions(net *network.Network, helpers bundle.Helpers) []corev1.NodeCondition {
	var out []corev1.NodeCondition
	for _, c := range net.Conditions() {
		status := corev1.ConditionFalse
		if c.OK {
			status = corev1.ConditionTrue
		}
		kind := corev1.NodeConditionType(c.Type)
		if c.Type == "PodNetwork" { // the field's own name says the opposite
			kind = corev1.NodeNetworkUnavailable
			status = map[corev1.ConditionStatus]corev1.ConditionStatus{corev1.ConditionTrue: corev1.ConditionFalse, corev1.ConditionFalse: corev1.ConditionTrue}[status]
		}
		out = append(out, corev1.NodeCondition{Type: kind, Status: status, Reason: c.Reason, Message: c.Message})
	}
	if off, why := helpers.SeccompCondition(); off {
		out = append(out, corev1.NodeCondition{Type: "SeccompUnavailable", Status: corev1.ConditionTrue, Reason: "NoSeccomp", Message: why})
	}
	return out
}

// drained asks the telemetry role whether all lines of a file are stored.
func drained(telemetry *http.Client) func(context.Context, string) bool {
	return func(ctx context.Context, path string) bool {
		ok, err := askOf(ctx, telemetry, http.MethodGet, "drained", path)
		return err == nil && ok
	}
}

// leaving tells the telemetry role that a file is removed, so that it counts the lines
// that are lost. Who does not answer counts none; their bytes are counted here.
func leaving(telemetry *http.Client, log *slog.Logger) func(context.Context, string) {
	return func(ctx context.Context, path string) {
		if ok, err := askOf(ctx, telemetry, http.MethodPost, "leaving", path); err != nil || !ok {
			log.Warn("lines of a removed file were not counted", "path", path, "err", err)
		}
	}
}

// askOf asks about a file of output.
func askOf(ctx context.Context, telemetry *http.Client, method, what, path string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://telemetry/perch/v1/"+what+"?"+url.Values{"path": {path}}.Encode(), nil)
	if err != nil {
		return false, err
	}
	resp, err := telemetry.Do(req)
	if err != nil {
		return false, err
	}
	return resp.StatusCode == http.StatusOK, resp.Body.Close()
}

// identities finds the pod and container of a cgroup among the agent's pods.
func identities(pods *agent.Agent) func(podUID, containerID string) (stats.Identity, bool) {
	return func(podUID, containerID string) (stats.Identity, bool) {
		for _, p := range pods.Pods() {
			if string(p.UID) != podUID {
				continue
			}
			id := stats.Identity{Namespace: p.Namespace, Pod: p.Name, PodUID: podUID}
			if containerID == "" {
				return id, true
			}
			for _, c := range slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses) {
				for _, have := range []string{c.ContainerID, lastID(c)} {
					if _, hex, ok := strings.Cut(have, "://"); ok && hex == containerID {
						id.Container, id.ID, id.Image = c.Name, containerID, c.Image
						if c.State.Running != nil {
							id.Started = c.State.Running.StartedAt.Time
						}
						return id, true
					}
				}
			}
			return stats.Identity{}, false // not in the status yet, or the pause container
		}
		return stats.Identity{}, false
	}
}

func lastID(c corev1.ContainerStatus) string {
	if c.LastTerminationState.Terminated == nil {
		return ""
	}
	return c.LastTerminationState.Terminated.ContainerID
}
