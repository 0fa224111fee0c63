package pod

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func ptr[T any](v T) *T { return &v }

func TestExpand(t *testing.T) {
	lookup := func(name string) (string, bool) { return "<" + name + ">", name != "NONE" }
	for in, want := range map[string]string{
		"plain": "plain", "$(A)": "<A>", "x$(A)y$(B)": "x<A>y<B>", "$$(A)": "$(A)", "$(NONE)": "$(NONE)", "$": "$", "$(A": "$(A", "$A": "$A", "$$": "$", "a$$b": "a$b", "$()": "<>",
	} {
		if got := Expand(in, lookup); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(B)$(")
	f.Fuzz(func(t *testing.T, s string) {
		if got := Expand(s, func(string) (string, bool) { return "", false }); len(got) > len(s) {
			t.Errorf("%q grew to %q", s, got)
		}
	})
}

func sources() Sources {
	return Sources{
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			if name == "away" {
				return nil, fmt.Errorf("the API server has not answered")
			}
			return map[string]*corev1.ConfigMap{"cm": {Data: map[string]string{"A": "1", "B": "2"}}}[name], nil
		},
		Secret: func(name string) (*corev1.Secret, error) {
			return map[string]*corev1.Secret{"s": {Data: map[string][]byte{"K": []byte("v")}}}[name], nil
		},
		Services: []*corev1.Service{
			{ObjectMeta: metav1.ObjectMeta{Name: "db-main", Namespace: "ns"}, Spec: corev1.ServiceSpec{ClusterIP: "10.43.0.9", Ports: []corev1.ServicePort{{Name: "sql", Port: 5432}}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "headless", Namespace: "ns"}, Spec: corev1.ServiceSpec{ClusterIP: "None"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default"}, Spec: corev1.ServiceSpec{ClusterIP: "10.43.0.1", Ports: []corev1.ServicePort{{Port: 443}}}},
		},
	}
}

func TestEnv(t *testing.T) {
	key := func(cm, secret, key string, optional bool) *corev1.EnvVarSource {
		if cm != "" {
			return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: cm}, Key: key, Optional: &optional}}
		}
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: key, Optional: &optional}}
	}
	cases := []struct {
		name  string
		c     corev1.Container
		links bool
		want  string
		err   string
	}{
		{name: "only the API's address without links", want: "KUBERNETES_SERVICE_HOST=10.43.0.1 KUBERNETES_SERVICE_PORT=443 KUBERNETES_PORT=tcp://10.43.0.1:443 KUBERNETES_PORT_443_TCP=tcp://10.43.0.1:443 KUBERNETES_PORT_443_TCP_PROTO=tcp KUBERNETES_PORT_443_TCP_PORT=443 KUBERNETES_PORT_443_TCP_ADDR=10.43.0.1"},
		{name: "services of the namespace with links", links: true, want: "DB_MAIN_SERVICE_HOST=10.43.0.9 DB_MAIN_SERVICE_PORT=5432 DB_MAIN_SERVICE_PORT_SQL=5432"},
		{name: "later ones override and use earlier ones", c: corev1.Container{
			EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}},
			Env:     []corev1.EnvVar{{Name: "P_A", Value: "own"}, {Name: "C", Value: "$(P_A)+$(P_B)+$(LATER)"}, {Name: "LATER", Value: "x"}},
		}, want: "P_A=own P_B=2 C=own+2+$(LATER) LATER=x"},
		{name: "keys of objects", c: corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: key("cm", "", "A", false)}, {Name: "Y", ValueFrom: key("", "s", "K", false)}}}, want: "X=1 Y=v"},
		{name: "optional ones may be missing", c: corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: key("none", "", "A", true)}, {Name: "Y", ValueFrom: key("", "s", "Q", true)}, {Name: "Z", Value: "z"}}}, want: "Z=z"},
		{name: "others may not", c: corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: key("none", "", "A", false)}}}, err: `configmap "none" not found`},
		{name: "nor their keys", c: corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: key("", "s", "Q", false)}}}, err: "couldn't find key Q in secret s"},
		{name: "an API that is away is an error", c: corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: key("away", "", "A", true)}}}, err: "has not answered"},
		{name: "fields and resources", c: corev1.Container{
			Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}},
			Env: []corev1.EnvVar{
				{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				{Name: "L", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['a/b']"}}},
				{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
				{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			},
		}, want: "IP=10.42.0.5 L=x CPU=2 MEM=1024"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Labels: map[string]string{"a/b": "x"}}, Spec: corev1.PodSpec{EnableServiceLinks: &c.links, Containers: []corev1.Container{c.c}}}
			facts := Facts{PodIPs: []string{"10.42.0.5"}, Node: Node{Allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}}
			got, err := Env(p, &p.Spec.Containers[0], facts, sources())
			if c.err != "" || err != nil {
				if err == nil || c.err == "" || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			var words []string
			for _, v := range got {
				words = append(words, v.Name+"="+v.Value)
			}
			if text := strings.Join(words, " "); !strings.Contains(text, c.want) {
				t.Errorf("got %s\nwant %s", text, c.want)
			}
		})
	}
}

func TestSecurity(t *testing.T) {
	cases := []struct {
		name  string
		pod   corev1.PodSecurityContext
		c     corev1.SecurityContext
		image User
		node  Node
		check func(*cri.LinuxContainerSecurityContext) bool
		err   string
	}{
		{name: "the runtime's filter is the default", check: func(s *cri.LinuxContainerSecurityContext) bool {
			return s.Seccomp.ProfileType == cri.SecurityProfile_RuntimeDefault && len(s.MaskedPaths) > 5 && !s.Privileged && !s.NoNewPrivs
		}},
		{name: "without seccomp it is dropped", node: Node{NoSeccomp: true}, check: func(s *cri.LinuxContainerSecurityContext) bool {
			return s.Seccomp.ProfileType == cri.SecurityProfile_Unconfined
		}},
		{name: "but a profile of one's own is refused then", node: Node{NoSeccomp: true}, c: corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: "Localhost", LocalhostProfile: ptr("a.json")}}, err: "SeccompUnavailable"},
		{name: "a profile cannot lie elsewhere", c: corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: "Localhost", LocalhostProfile: ptr("../a.json")}}, err: "path below"},
		{name: "privileged has no filter", c: corev1.SecurityContext{Privileged: ptr(true)}, check: func(s *cri.LinuxContainerSecurityContext) bool {
			return s.Privileged && s.Seccomp.ProfileType == cri.SecurityProfile_Unconfined
		}},
		{name: "the container's user wins over the pod's", pod: corev1.PodSecurityContext{RunAsUser: ptr(int64(1)), RunAsGroup: ptr(int64(2))}, c: corev1.SecurityContext{RunAsUser: ptr(int64(3))}, check: func(s *cri.LinuxContainerSecurityContext) bool {
			return s.RunAsUser.Value == 3 && s.RunAsGroup.Value == 2
		}},
		{name: "the image's user otherwise", image: User{Name: "www"}, check: func(s *cri.LinuxContainerSecurityContext) bool { return s.RunAsUsername == "www" && s.RunAsUser == nil }},
		{name: "a group needs a user", c: corev1.SecurityContext{RunAsGroup: ptr(int64(5))}, check: func(s *cri.LinuxContainerSecurityContext) bool {
			return s.RunAsUser.Value == 0 && s.RunAsGroup.Value == 5
		}},
		{name: "root breaks runAsNonRoot", c: corev1.SecurityContext{RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(0))}, err: "breaks non-root policy"},
		{name: "so does an image of root", c: corev1.SecurityContext{RunAsNonRoot: ptr(true)}, image: User{UID: ptr(int64(0))}, err: "image will run as root"},
		{name: "so does an image that says nothing", c: corev1.SecurityContext{RunAsNonRoot: ptr(true)}, err: "image will run as root"},
		{name: "and one whose user is a name", c: corev1.SecurityContext{RunAsNonRoot: ptr(true)}, image: User{Name: "www"}, err: "non-numeric user (www)"},
		{name: "groups of the pod", pod: corev1.PodSecurityContext{FSGroup: ptr(int64(9)), SupplementalGroups: []int64{8}}, check: func(s *cri.LinuxContainerSecurityContext) bool {
			return slices.Equal(s.SupplementalGroups, []int64{8, 9})
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &c.pod}}
			s, err := security(p, &corev1.Container{SecurityContext: &c.c}, c.image, Facts{Node: c.node}, Places{Seccomp: "/x"})
			if c.err != "" || err != nil {
				if err == nil || c.err == "" || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if !c.check(s) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestResolver(t *testing.T) {
	dns := DNS{Host: Resolver{Servers: []string{"9.9.9.9"}, Searches: []string{"corp"}, Options: []string{"edns0"}}, ClusterServer: []string{"10.43.0.10"}, ClusterDomain: "cluster.local"}
	cases := []struct {
		name string
		spec corev1.PodSpec
		want string
	}{
		{"cluster first", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, "[10.43.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp] [ndots:5]"},
		{"pods of the host's network use the host's", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, "[9.9.9.9] [corp] [edns0]"},
		{"unless they ask for the cluster's", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true}, "[10.43.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp] [ndots:5]"},
		{"none but one's own", corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"a"}}}, "[1.1.1.1] [a] []"},
		{"one's own options replace", corev1.PodSpec{DNSConfig: &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}, {Name: "rotate"}}}}, "[10.43.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp] [ndots:2 rotate]"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := resolver(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: c.spec}, dns)
			if got := fmt.Sprint(r.Servers, r.Searches, r.Options); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestLimitsAndClasses(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	cases := []struct {
		name string
		r    []corev1.ResourceRequirements
		want string
	}{
		{"nothing asked for", []corev1.ResourceRequirements{{}}, "BestEffort {2 0 100000 0} 1000"},
		{"requests equal limits", []corev1.ResourceRequirements{{Limits: list("500m", "64Mi"), Requests: list("500m", "64Mi")}}, "Guaranteed {512 50000 100000 67108864} -997"},
		{"limits alone are requests too", []corev1.ResourceRequirements{{Limits: list("1", "64Mi")}}, "Guaranteed {2 100000 100000 67108864} -997"},
		{"one container without limits frees the pod", []corev1.ResourceRequirements{{Limits: list("1", "64Mi"), Requests: list("1", "64Mi")}, {}}, "Burstable {1024 0 100000 0} 938"},
		{"a tenth of the memory", []corev1.ResourceRequirements{{Requests: list("10m", "102Mi")}}, "Burstable {10 0 100000 0} 901"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &corev1.Pod{}
			for _, r := range c.r {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: r})
			}
			if got := fmt.Sprintf("%s %v %d", QOS(p), PodLimits(p), OOMScore(p, &p.Spec.Containers[0], 1<<30)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	wait := func(s corev1.PodStatus, i int) string {
		st := s.ContainerStatuses[i].State
		switch {
		case st.Running != nil:
			return "running"
		case st.Terminated != nil:
			return "ended " + st.Terminated.Reason
		}
		return "waiting " + st.Waiting.Reason
	}
	down := func(o *Observed) { o.Sandboxes[0].Ready = false }
	cases := []struct {
		name  string
		want  *corev1.Pod
		have  Observed
		waits map[string]Failure
		text  string // phase, ready, state of the first container
	}{
		{"a new pod", made("Always", "a"), Observed{}, nil, "Pending False waiting ContainerCreating"},
		{"one that initializes", made("Always", "init:i", "a"), ready(running("i")), nil, "Pending False waiting PodInitializing"},
		{"one whose init failed for good", made("Never", "init:i", "a"), ready(exited("i", 1, 0)), nil, "Failed False waiting PodInitializing"},
		{"a running one", made("Always", "a"), ready(running("a")), nil, "Running True running"},
		{"one that is not ready", made("Always", "a"), ready(running("a")).with(func(o *Observed) {
			o.Busy = map[string]Operation{"a": {Verb: StartContainer}}
		}), nil, "Running False running"},
		{"one that crashes", made("Always", "a"), ready(exited("a", 1, 0)), map[string]Failure{"a": {Reason: "CrashLoopBackOff"}}, "Running False waiting CrashLoopBackOff"},
		{"one that cannot pull", made("Always", "a"), ready().with(func(o *Observed) { o.Failures = map[string]Failure{"a": {Reason: "ErrImagePull"}} }), nil, "Pending False waiting ErrImagePull"},
		{"one that is done", made("OnFailure", "a"), ready(exited("a", 0, 0)), nil, "Succeeded False ended Completed"},
		{"one done beside a sidecar", made("Never", "side:s", "a"), ready(exited("a", 0, 0), running("s")), nil, "Running False ended Completed"},
		{"one that failed", made("Never", "a"), ready(exited("a", 2, 0)), nil, "Failed False ended Error"},
		{"one that will run again", made("OnFailure", "a"), ready(exited("a", 2, 0)), nil, "Running False ended Error"},
		{"a deleted one that ended well", deleted(made("Always", "a"), 1), ready(exited("a", 0, 0)).with(down), nil, "Succeeded False ended Completed"},
		{"a deleted one that was killed", deleted(made("Always", "a"), 1), ready(exited("a", 137, 0)).with(down), nil, "Failed False ended Error"},
		{"a deleted one that never ran", deleted(made("Always", "a"), 1), Observed{}, nil, "Failed False waiting ContainerCreating"},
		{"an evicted one", made("Always", "a"), ready(exited("a", 0, 0)).with(down).with(func(o *Observed) { o.Stop = &Stop{Reason: "Evicted"} }), nil, "Failed False ended Completed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := Status(c.want, c.have, c.waits, Host{IPs: []string{"192.0.2.1"}}, t0)
			cond := corev1.ConditionUnknown
			for _, x := range s.Conditions {
				if x.Type == corev1.PodReady {
					cond = x.Status
				}
			}
			if got := fmt.Sprint(s.Phase, " ", cond, " ", wait(s, 0)); got != c.text {
				t.Errorf("got %s, want %s", got, c.text)
			}
		})
	}
}

func TestStatusKeepsTimesAndConditionsOfOthers(t *testing.T) {
	p := made("Always", "a")
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	first := Status(p, ready(running("a")), nil, Host{}, t0)
	p.Status = first
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
	second := Status(p, ready(running("a")), nil, Host{}, t0.Add(time.Hour))
	for _, c := range second.Conditions {
		switch c.Type {
		case corev1.PodReady:
			if c.Status != corev1.ConditionTrue || !c.LastTransitionTime.Time.Equal(t0.Add(time.Hour)) {
				t.Errorf("the gate has opened: %+v", c)
			}
		case corev1.ContainersReady:
			if !c.LastTransitionTime.Time.Equal(t0) {
				t.Errorf("nothing changed: %+v", c)
			}
		case "example.com/gate":
			if c.Status != corev1.ConditionTrue {
				t.Errorf("condition of others: %+v", c)
			}
		}
	}
}
