package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](v T) *T { return &v }

func service(name, ip string, edit ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip,
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
	for _, e := range edit {
		e(s)
	}
	return s
}

type endpoint struct {
	addr, node                    string
	unready, serving, terminating bool
}

func slice(svc string, port int32, all ...endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "app", Name: svc + "-x", Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("http"), Protocol: ptr(corev1.ProtocolTCP), Port: ptr(port)}},
	}
	for _, e := range all {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{e.addr}, NodeName: ptr(e.node),
			Conditions: discoveryv1.EndpointConditions{Ready: ptr(!e.unready), Serving: ptr(e.serving), Terminating: ptr(e.terminating)},
		})
	}
	return s
}

func TestDecide(t *testing.T) {
	node := Node{Name: "n1", PodCIDR: netip.MustParsePrefix("10.42.0.0/24")}
	here, there := endpoint{addr: "10.42.0.5", node: "n1"}, endpoint{addr: "10.42.1.5", node: "n2"}
	nodePort := func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080 }
	for _, c := range []struct {
		name string
		in   Snapshot
		want []string // one line for each frontend, see describe
	}{
		{"every ready endpoint gets traffic",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.7")}, Slices: []*discoveryv1.EndpointSlice{slice("a", 8080, there, here)}},
			[]string{"10.43.0.7:80/6 [10.42.0.5:8080 10.42.1.5:8080]", "hairpin 10.42.0.5"}},
		{"a Service without endpoints is refused",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.7")}},
			[]string{"10.43.0.7:80/6 []"}},
		{"terminating endpoints serve only when no other is ready",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.7"), service("b", "10.43.0.8")}, Slices: []*discoveryv1.EndpointSlice{
				slice("a", 8080, endpoint{"10.42.1.9", "n2", true, true, true}, endpoint{"10.42.1.8", "n2", true, false, true}, endpoint{"10.42.1.7", "n2", true, false, false}),
				slice("b", 8080, endpoint{"10.42.1.9", "n2", true, true, true}, there)}},
			[]string{"10.43.0.7:80/6 [10.42.1.9:8080]", "10.43.0.8:80/6 [10.42.1.5:8080]"}},
		{"headless, external and unallocated Services have no frontend",
			Snapshot{Services: []*corev1.Service{service("a", "None"), service("b", ""), service("c", "10.43.0.9", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName })}},
			nil},
		{"internal policy Local uses this node's endpoints only",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.7", func(s *corev1.Service) {
				s.Spec.InternalTrafficPolicy = ptr(corev1.ServiceInternalTrafficPolicyLocal)
			})}, Slices: []*discoveryv1.EndpointSlice{slice("a", 8080, there, here)}},
			[]string{"10.43.0.7:80/6 [10.42.0.5:8080]", "hairpin 10.42.0.5"}},
		{"a NodePort is served on any address of the node",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.7", nodePort)}, Slices: []*discoveryv1.EndpointSlice{slice("a", 8080, there)}},
			[]string{"0.0.0.0:30080/6 [10.42.1.5:8080] outside", "10.43.0.7:80/6 [10.42.1.5:8080]"}},
		{"external policy Local keeps outside clients on this node and pods everywhere",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.7", nodePort, func(s *corev1.Service) {
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			})}, Slices: []*discoveryv1.EndpointSlice{slice("a", 8080, there, here)}},
			[]string{"0.0.0.0:30080/6 [10.42.0.5:8080 10.42.1.5:8080] outside local [10.42.0.5:8080]", "10.43.0.7:80/6 [10.42.0.5:8080 10.42.1.5:8080]", "hairpin 10.42.0.5"}},
		{"external and load balancer addresses are served, but not those with source ranges or a proxy in front",
			Snapshot{Services: []*corev1.Service{
				service("a", "10.43.0.7", func(s *corev1.Service) {
					s.Spec.ExternalIPs = []string{"192.0.2.9"}
					s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.10"}, {IP: "192.0.2.11", IPMode: ptr(corev1.LoadBalancerIPModeProxy)}}
				}),
				service("b", "10.43.0.8", func(s *corev1.Service) {
					s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
					s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.12"}}
				}),
			}},
			[]string{"10.43.0.7:80/6 []", "10.43.0.8:80/6 []", "192.0.2.9:80/6 [] outside", "192.0.2.10:80/6 [] outside",
				"skip app/b: loadBalancerSourceRanges are not enforced yet; load balancer address 192.0.2.12 is not served"}},
		{"an affinity timeout is taken from the Service, three hours by default",
			Snapshot{Services: []*corev1.Service{
				service("a", "10.43.0.7", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
				service("b", "10.43.0.8", func(s *corev1.Service) {
					s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
					s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr(int32(90))}}
				})}},
			[]string{"10.43.0.7:80/6 [] sticky 3h0m0s", "10.43.0.8:80/6 [] sticky 1m30s"}},
		{"a static entry wins over the Service of the same address",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.10")}, Static: []Static{{netip.MustParseAddrPort("10.43.0.10:80"), netip.MustParseAddrPort("10.42.0.1:53"), corev1.ProtocolTCP}}},
			[]string{"10.43.0.10:80/6 [10.42.0.1:53]"}},
		{"the older Service keeps an address that two claim, and the other is told",
			Snapshot{Services: []*corev1.Service{
				service("young", "10.43.0.7", func(s *corev1.Service) {
					s.CreationTimestamp = metav1.Unix(200, 0)
					s.Spec.ExternalIPs = []string{"192.0.2.9"}
				}),
				service("old", "10.43.0.8", func(s *corev1.Service) {
					s.CreationTimestamp = metav1.Unix(100, 0)
					s.Spec.ExternalIPs = []string{"192.0.2.9"}
				})}, Slices: []*discoveryv1.EndpointSlice{slice("old", 8080, there)}},
			[]string{"10.43.0.7:80/6 []", "10.43.0.8:80/6 [10.42.1.5:8080]", "192.0.2.9:80/6 [10.42.1.5:8080] outside", "skip app/young: 192.0.2.9:80/6 is already served for app/old"}},
		{"host ports of running pods on this node are served",
			Snapshot{Pods: []*corev1.Pod{hostPort("web", "n1", "10.42.0.9", corev1.PodRunning), hostPort("gone", "n1", "10.42.0.8", corev1.PodSucceeded), hostPort("far", "n2", "10.42.1.8", corev1.PodRunning)}},
			[]string{"0.0.0.0:8080/6 [10.42.0.9:80] outside", "hairpin 10.42.0.9"}},
		{"ports are matched by name",
			Snapshot{Services: []*corev1.Service{service("a", "10.43.0.7", func(s *corev1.Service) { s.Spec.Ports[0].Name = "other" })}, Slices: []*discoveryv1.EndpointSlice{slice("a", 8080, there)}},
			[]string{"10.43.0.7:80/6 []"}},
		{"an IPv6 Service is skipped with a word",
			Snapshot{Services: []*corev1.Service{service("a", "fd00::1")}},
			[]string{"skip app/a: fd00::1 is no IPv4 address"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.Node = node
			if got := describe(Decide(c.in)); !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}

func hostPort(name, node, ip string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}}}}},
		Status:     corev1.PodStatus{PodIP: ip, Phase: phase},
	}
}

func describe(p Plan) []string {
	var out []string
	for _, f := range p.Frontends {
		line := fmt.Sprintf("%s %v", f.Key, f.Targets)
		if f.Outside {
			line += " outside"
		}
		if f.LocalOnly {
			line += fmt.Sprintf(" local %v", f.LocalTargets)
		}
		if f.Sticky > 0 {
			line += " sticky " + f.Sticky.String()
		}
		out = append(out, line)
	}
	for _, a := range p.Hairpin {
		out = append(out, "hairpin "+a.String())
	}
	for _, s := range p.Skipped {
		out = append(out, "skip "+s.Object+": "+s.Reason)
	}
	return out
}

func targets(n int) []netip.AddrPort {
	var out []netip.AddrPort
	for i := range n {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 42, byte(i / 200), byte(i%200 + 2)}), 8080))
	}
	return out
}

func TestSharesAreEvenAndMostlyStay(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 12, 13, 30, 100, 400, 840} {
		slots := classes[classOf(n)]
		all := targets(n)
		count := make([]int, n)
		got := share(all, slots)
		for _, i := range got {
			count[i]++
		}
		if low, high := slices.Min(count), slices.Max(count); low < 1 || high-low > 1 {
			t.Errorf("%d endpoints on %d slots: %d to %d each", n, slots, low, high)
		}
		if n < 5 || n == 840 || classOf(n-1) != classOf(n) {
			continue
		}
		moved := 0 // when the last endpoint goes
		for slot, i := range share(all[:n-1], slots) {
			if got[slot] != n-1 && got[slot] != i {
				moved++
			}
		}
		if moved > slots/2 {
			t.Errorf("%d endpoints on %d slots: %d slots of others moved when one endpoint went", n, slots, moved)
		}
	}
}

// Whatever the contents, applying the difference leads from one to the other,
// and exactly the endpoints that lost a key are reported gone.
func TestDiffLeadsFromHaveToWant(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	content := func() elements {
		var p Plan
		for i := range 6 {
			if rnd.IntN(3) == 0 {
				continue
			}
			f := Frontend{Key: Key{netip.AddrFrom4([4]byte{10, 43, 0, byte(i)}), 17, 53}}
			for _, target := range targets(15) {
				if rnd.IntN(4) == 0 {
					f.Targets = append(f.Targets, target)
				}
			}
			p.Frontends = append(p.Frontends, f)
		}
		return encode(p)
	}
	pairs := func(e elements) map[flow]bool {
		out := map[flow]bool{}
		for set, m := range e {
			for key, value := range m {
				if isSlots(set) {
					out[flow{key[:12], value}] = true
				}
			}
		}
		return out
	}
	for range 300 {
		have, want := content(), content()
		c := diff(have, want)
		gone := map[flow]bool{}
		for _, f := range c.gone {
			gone[f] = true
		}
		after := pairs(want)
		for f := range pairs(have) {
			if gone[f] == after[f] {
				t.Fatalf("%s to %s: reported gone %v, still wanted %v", f.Key(), f.Target(), gone[f], after[f])
			}
		}
		for set, m := range c.remove {
			for key := range m {
				delete(have[set], key)
			}
		}
		for set, m := range c.add {
			for key, value := range m {
				have.put(set, key, value)
			}
		}
		if d := diff(have, want); !d.empty() {
			t.Fatalf("%d elements differ after the change", d.remove.count()+d.add.count())
		}
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	err := Config{Mark: 3}.Validate()
	for _, want := range []string{"cluster name", "service CIDR", "cluster CIDR", "exactly one bit", "settle"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v; want it to name %q", err, want)
		}
	}
}

func BenchmarkDecideAndEncode10kServices(b *testing.B) {
	s := Snapshot{Node: Node{"n1", netip.MustParsePrefix("10.42.0.0/24")}}
	for i := range 10000 {
		name := fmt.Sprintf("s%d", i)
		s.Services = append(s.Services, service(name, fmt.Sprintf("10.43.%d.%d", i/250, i%250+1)))
		s.Slices = append(s.Slices, slice(name, 8080, endpoint{addr: "10.42.0.5", node: "n1"}, endpoint{addr: "10.42.1.5", node: "n2"}, endpoint{addr: "10.42.2.5", node: "n3"}))
	}
	var have elements
	b.ReportAllocs()
	for b.Loop() {
		want := encode(Decide(s))
		diff(have, want)
		have = want
	}
}
