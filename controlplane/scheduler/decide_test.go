package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

func node(name, cpu, memory string, edits ...func(*corev1.Node)) *Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("110"),
	}
	for _, edit := range edits {
		edit(n)
	}
	return &Node{Object: n, Used: Amounts{}, Scored: Amounts{}}
}

func (n *Node) with(pods ...*corev1.Pod) *Node {
	for _, p := range pods {
		n.Pods = append(n.Pods, p)
		n.Used.add(Requests(p))
		n.Scored.add(scoredRequests(p))
	}
	return n
}

func zone(z string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = z }
}

func tainted(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func pod(name string, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}}}
	p.Spec.SchedulerName = corev1.DefaultSchedulerName
	p.Spec.Containers = []corev1.Container{{Name: "c"}}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func asks(cpu, memory string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
}

func hostport(port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: port}}
	}
}

func apart(key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		}}}
	}
}

func together(key, app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
		}}}
	}
}

func spread(key string, hard corev1.UnsatisfiableConstraintAction) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: hard, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		}}
	}
}

func owned(uid types.UID) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: string(uid), UID: uid, Controller: &yes}}
	}
}

func mounts(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
	}
}

func TestDecide(t *testing.T) {
	claims := map[string]*corev1.PersistentVolumeClaim{"open": {Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}}
	tests := []struct {
		name  string
		pod   *corev1.Pod
		nodes []*Node
		want  string // node
		why   string // explanation
	}{
		{"no node is said so", pod("p"), nil, "", "0/0 nodes are available: no node has joined the cluster."},
		{
			"a pod too large names the shortage and the freest node", pod("p", asks("4", "1Gi")),
			[]*Node{node("n1", "2", "4Gi"), node("n2", "4", "4Gi").with(pod("q", asks("500m", "1Gi"))), node("n3", "8", "8Gi", tainted("dedicated", corev1.TaintEffectNoSchedule))}, "",
			"0/3 nodes are available: 2 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: }.",
		},
		{
			"a shortage everywhere tells the numbers", pod("p", asks("4", "1Gi")),
			[]*Node{node("n1", "2", "4Gi"), node("n2", "4", "4Gi").with(pod("q", asks("500m", "1Gi")))}, "",
			"0/2 nodes are available: 2 Insufficient cpu. The pod requests cpu 4; the most that is free is 3500m on node n2.",
		},
		{
			"the number of pods is a resource", pod("p"),
			[]*Node{node("n1", "2", "4Gi", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") }).with(pod("q"))}, "",
			"0/1 nodes are available: 1 Too many pods. The pod requests pods 1; the most that is free is 0 on node n1.",
		},
		{"the emptier node wins", pod("p", asks("1", "1Gi")), []*Node{node("n1", "4", "4Gi").with(pod("q", asks("2", "2Gi"))), node("n2", "4", "4Gi")}, "n2", ""},
		{"equal nodes: the first by name", pod("p"), []*Node{node("n1", "4", "4Gi"), node("n2", "4", "4Gi")}, "n1", ""},
		{
			"a cordoned node takes no pods", pod("p"), []*Node{node("n1", "4", "4Gi", func(n *corev1.Node) { n.Spec.Unschedulable = true })}, "",
			"0/1 nodes are available: 1 node(s) were unschedulable.",
		},
		{
			"a tolerated taint does not matter", pod("p", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }),
			[]*Node{node("n1", "4", "4Gi", tainted("x", corev1.TaintEffectNoExecute))}, "n1", "",
		},
		{"a soft taint moves the pod elsewhere", pod("p"), []*Node{node("n1", "4", "4Gi", tainted("x", corev1.TaintEffectPreferNoSchedule)), node("n2", "4", "4Gi")}, "n2", ""},
		{
			"nodeSelector must match", pod("p", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), []*Node{node("n1", "4", "4Gi")}, "",
			"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
		},
		{
			"a host port is taken once per node", pod("p", hostport(8080)), []*Node{node("n1", "4", "4Gi").with(pod("q", hostport(8080))), node("n2", "4", "4Gi").with(pod("r", hostport(9090)))}, "n2", "",
		},
		{
			"anti-affinity keeps equals on different nodes", pod("p", apart(corev1.LabelHostname)), []*Node{node("n1", "8", "8Gi").with(pod("q")), node("n2", "1", "1Gi")}, "n2", "",
		},
		{
			"anti-affinity of existing pods counts as well", pod("p"), []*Node{node("n1", "8", "8Gi", zone("a")).with(pod("q", apart(corev1.LabelTopologyZone))), node("n2", "8", "8Gi", zone("a"))}, "",
			"0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.",
		},
		{
			"affinity brings pods together by zone", pod("p", together(corev1.LabelTopologyZone, "web")),
			[]*Node{node("n1", "8", "8Gi", zone("a")), node("n2", "1", "1Gi", zone("b")).with(pod("q")), node("n3", "1", "1Gi", zone("b"))}, "n3", "",
		},
		{"the first of a group that wants to be together may start anywhere", pod("p", together(corev1.LabelHostname, "web")), []*Node{node("n1", "8", "8Gi")}, "n1", ""},
		{
			"affinity to pods that do not exist waits", pod("p", together(corev1.LabelHostname, "db")), []*Node{node("n1", "8", "8Gi")}, "",
			"0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
		},
		{
			"a hard spread refuses the zone that is ahead", pod("p", spread(corev1.LabelTopologyZone, corev1.DoNotSchedule)),
			[]*Node{node("n1", "8", "8Gi", zone("a")).with(pod("q")), node("n2", "1", "1Gi", zone("b"))}, "n2", "",
		},
		{
			"a soft spread only prefers", pod("p", spread(corev1.LabelTopologyZone, corev1.ScheduleAnyway)),
			[]*Node{node("n1", "8", "8Gi", zone("a")).with(pod("q")), node("n2", "8", "8Gi", zone("b"))}, "n2", "",
		},
		{
			"a hard spread needs the label", pod("p", spread(corev1.LabelTopologyZone, corev1.DoNotSchedule)), []*Node{node("n1", "8", "8Gi")}, "",
			"0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
		},
		{
			"pods of one owner spread by themselves", pod("p", owned("rs1")),
			[]*Node{node("n1", "8", "8Gi").with(pod("q", owned("rs1"))), node("n2", "8", "8Gi").with(pod("r", owned("rs2")))}, "n2", "",
		},
		{"a missing claim is named", pod("p", mounts("gone")), []*Node{node("n1", "8", "8Gi")}, "", `0/1 nodes are available: persistentvolumeclaim "gone" not found.`},
		{"an unbound claim waits", pod("p", mounts("open")), []*Node{node("n1", "8", "8Gi")}, "", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := Decide(test.pod, Snapshot{
				Nodes: test.nodes, Namespaces: map[string]labels.Set{"shop": {}},
				Claims:  func(_, name string) *corev1.PersistentVolumeClaim { return claims[name] },
				Volumes: func(string) *corev1.PersistentVolume { return nil },
			})
			if got.Node != test.want {
				t.Errorf("node %q, want %q (%s)", got.Node, test.want, got.Explain())
			}
			if test.want == "" && got.Explain() != test.why {
				t.Errorf("explanation\n%s\nwant\n%s", got.Explain(), test.why)
			}
		})
	}
}

// Whatever is decided, the pods of a node never request more than it has, and no
// two take one host port.
func TestBoundPodsAlwaysFit(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := newCache()
		for i := range 1 + r.IntN(6) {
			c.setNode(node(fmt.Sprint("n", i), fmt.Sprint(1+r.IntN(8)), fmt.Sprintf("%dGi", 1+r.IntN(16)), zone(fmt.Sprint(i%2))).Object)
		}
		var placed []*corev1.Pod
		for i := range 150 {
			p := pod(fmt.Sprint("p", i), asks(fmt.Sprintf("%dm", r.IntN(1500)), fmt.Sprintf("%dMi", r.IntN(2000))))
			if r.IntN(5) == 0 {
				hostport(int32(8000 + r.IntN(3)))(p)
			}
			if r.IntN(8) == 0 {
				apart(corev1.LabelHostname)(p)
			}
			if d := Decide(p, Snapshot{Nodes: c.snapshot()}); d.Node != "" {
				c.put(p, d.Node)
				placed = append(placed, p)
			}
			if len(placed) > 0 && r.IntN(3) == 0 {
				k := r.IntN(len(placed))
				c.drop(placed[k].UID)
				placed = append(placed[:k], placed[k+1:]...)
			}
			for _, n := range c.snapshot() {
				used, ports := Amounts{}, map[int32]bool{}
				for _, p := range n.Pods {
					used.add(Requests(p))
					for _, h := range hostPorts(p) {
						if ports[h.port] {
							t.Fatalf("seed %d: host port %d twice on %s", seed, h.port, n.Object.Name)
						}
						ports[h.port] = true
					}
				}
				for name, have := range allocatable(n.Object) {
					if used[name] > have || used[name] != n.Used[name] {
						t.Fatalf("seed %d: %s on %s: used %d, counted %d, has %d", seed, name, n.Object.Name, used[name], n.Used[name], have)
					}
				}
			}
		}
		if len(placed) == 0 {
			t.Fatalf("seed %d: nothing was placed", seed)
		}
	}
}
