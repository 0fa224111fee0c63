package target

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

func object(t *testing.T, kind, namespace, spec string) Object {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil {
		t.Fatal(spec, err)
	}
	return Read(kind, namespace, "x", text)
}

// world has a pod behind a Service on n1, one on n2, and a Service whose
// addresses somebody wrote.
func world() World {
	ports := []corev1.ContainerPort{{Name: "m", ContainerPort: 9100}, {Name: "web", ContainerPort: 8080}}
	web := pod(func(p *corev1.Pod) {
		p.Annotations, p.Spec.Containers[0].Ports = map[string]string{"tier": "1"}, ports
	})
	other := pod(func(p *corev1.Pod) {
		p.Name, p.Labels, p.Spec.NodeName, p.Status.PodIP = "db-1", map[string]string{"app": "db"}, "n2", "10.42.1.5"
		p.Spec.Containers[0].Ports = ports[:1]
	})
	front := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "front", Labels: map[string]string{"team": "a", "tier.example/x": "edge"}},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{
			{Name: "metrics", Port: 80, TargetPort: intstr.FromString("m")}, {Name: "plain", Port: 8080}}},
	}
	outside := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "out", Name: "machine"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "metrics", Port: 9100}}}}
	secrets := map[string]string{"Secret red/login key user": "u", "Secret red/login key word": "pa: ss", "ConfigMap red/roots key ca": "no certificate"}
	return World{
		Pods: []*corev1.Pod{web, other}, Services: []*corev1.Service{front, outside}, Home: "n0", Prober: "blackbox:80", Account: Account{Token: "of-the-account"},
		Endpoints: []*corev1.Endpoints{{ObjectMeta: outside.ObjectMeta, Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Name: "metrics", Port: 9100}}}}}},
		Nodes: []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "z1"}}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}},
		Value: func(r Ref) (string, error) {
			if v, ok := secrets[r.String()]; ok {
				return v, nil
			}
			return "", errors.New(r.String() + " is not there")
		},
	}
}

// TestAnAddressIsAPodsOnlyWhereThePodHasIt: relabelings may name any address, and
// any label.
func TestAnAddressIsAPodsOnlyWhereThePodHasIt(t *testing.T) {
	const pods = `{selector: {matchLabels: {app: web}}, podMetricsEndpoints: [{port: m`
	const found = `{kubernetesSDConfigs: [{role: `
	for name, c := range map[string]struct {
		o    Object
		want bool
	}{
		"a pod":                           {object(t, PodMonitor, "red", pods+`}]}`), true},
		"a pod behind a service":          {object(t, ServiceMonitor, "red", `{selector: {matchLabels: {team: a}}, endpoints: [{port: metrics}]}`), true},
		"another port of it":              {object(t, PodMonitor, "red", pods+`, relabelings: [{targetLabel: __address__, replacement: "10.42.0.5:1"}]}]}`), true},
		"another address":                 {object(t, PodMonitor, "red", pods+`, relabelings: [{targetLabel: __address__, replacement: "127.0.0.1:2379"}]}]}`), false},
		"the address of another pod":      {object(t, PodMonitor, "red", pods+`, relabelings: [{targetLabel: __address__, replacement: "10.42.1.5:1"}]}]}`), false},
		"an address with a pod's label":   {object(t, ScrapeConfig, "red", `{staticConfigs: [{targets: ["192.0.2.7:1"], labels: {pod: web-1}}]}`), false},
		"what somebody wrote":             {object(t, ServiceMonitor, "out", `{selector: {}, endpoints: [{port: metrics}]}`), false},
		"a probe":                         {object(t, Probe, "red", `{targets: {staticConfig: {static: [a], labels: {pod: web-1}}}}`), false},
		"pods that are found":             {object(t, ScrapeConfig, "red", found+`Pod, namespaces: {names: [red]}}]}`), true},
		"endpoints that are found":        {object(t, ScrapeConfig, "red", found+`Endpoints, namespaces: {names: [red]}}]}`), true},
		"nodes that are found":            {object(t, ScrapeConfig, "red", found+`Node}]}`), false},
		"services that are found by name": {object(t, ScrapeConfig, "red", found+`Service, namespaces: {names: [red]}}]}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			jobs, left := Plan(world(), []Object{c.o})
			if len(jobs) == 0 {
				t.Fatalf("nothing is scraped: %v", left)
			}
			for _, j := range jobs {
				for _, x := range j.Targets {
					if x.OfPod != c.want {
						t.Errorf("%s of %s: of a pod %v", x.Address, j.Name, x.OfPod)
					}
				}
			}
		})
	}
}

// TestATargetIsWhereItWasFound: no label of an object moves it, nor an address.
func TestATargetIsWhereItWasFound(t *testing.T) {
	const any = `{selector: {matchLabels: {app: web}}, namespaceSelector: {any: true}, podMetricsEndpoints: [{port: m, relabelings: [`
	for name, c := range map[string]struct {
		o    Object
		want string
	}{
		"a pod of its namespace":             {object(t, PodMonitor, "red", any+`]}]}`), "red"},
		"a pod of another":                   {object(t, PodMonitor, "blue", any+`]}]}`), "red"},
		"its label is another":               {object(t, PodMonitor, "blue", any+`{targetLabel: namespace, replacement: green}]}]}`), "red"},
		"so is what was found":               {object(t, PodMonitor, "blue", any+`{targetLabel: __meta_kubernetes_namespace, replacement: green}]}]}`), "red"},
		"its address is":                     {object(t, PodMonitor, "blue", any+`{targetLabel: __address__, replacement: "192.0.2.9:1"}]}]}`), "blue"},
		"a Service of another":               {object(t, ServiceMonitor, "blue", `{selector: {}, namespaceSelector: {matchNames: [out]}, endpoints: [{port: metrics}]}`), "out"},
		"an address that says where it is":   {object(t, ScrapeConfig, "blue", `{staticConfigs: [{targets: ["192.0.2.7:1"], labels: {namespace: red, __meta_kubernetes_namespace: red}}]}`), "blue"},
		"a probe":                            {object(t, Probe, "blue", `{targets: {staticConfig: {static: [a], labels: {namespace: red}}}}`), "blue"},
		"pods that are found":                {object(t, ScrapeConfig, "blue", `{kubernetesSDConfigs: [{role: Pod, namespaces: {names: [red]}}]}`), "red"},
		"a Service that is found by name":    {object(t, ScrapeConfig, "blue", `{kubernetesSDConfigs: [{role: Service, namespaces: {names: [red]}}]}`), "red"},
		"a node, which is in no namespace":   {object(t, ScrapeConfig, "blue", `{kubernetesSDConfigs: [{role: Node}]}`), "blue"},
		"endpoints that are found elsewhere": {object(t, ScrapeConfig, "blue", `{kubernetesSDConfigs: [{role: Endpoints, namespaces: {names: [red]}}]}`), "red"},
	} {
		t.Run(name, func(t *testing.T) {
			jobs, left := Plan(world(), []Object{c.o})
			if len(jobs) == 0 {
				t.Fatalf("nothing is scraped: %v", left)
			}
			for _, j := range jobs {
				for _, x := range j.Targets {
					if (x.Found == "red") != (name == "its address is") {
						t.Errorf("%s was found in %q", x.Address, x.Found)
					}
					if x.Namespace != c.want {
						t.Errorf("%s of %s is in %q, want %q", x.Address, j.Name, x.Namespace, c.want)
					}
				}
			}
		})
	}
}

func TestPlan(t *testing.T) {
	service := func(spec string) Object { return object(t, ServiceMonitor, "red", spec) }
	pods := func(spec string) Object { return object(t, PodMonitor, "red", spec) }
	probe := func(spec string) Object { return object(t, Probe, "red", spec) }
	config := func(spec string) Object { return object(t, ScrapeConfig, "red", spec) }
	const front, web, m = "http://10.42.0.5:9100/metrics", "selector: {matchLabels: {app: web}}", "selector: {matchLabels: {team: a}}"
	for name, c := range map[string]struct {
		o        Object
		urls     string // node url, comma separated
		labels   map[string]string
		settings string
		why      string
	}{
		"a service's port by name, with the operator's labels": {o: service(`{` + m + `, endpoints: [{port: metrics}]}`), urls: "n1 " + front,
			labels: map[string]string{"job": "front", "service": "front", "endpoint": "metrics", "namespace": "red", "pod": "web-1", "container": "c", "node": "n1", "instance": "10.42.0.5:9100"}},
		"a port without targetPort":                  {o: service(`{` + m + `, endpoints: [{port: plain}]}`), urls: "n1 http://10.42.0.5:8080/metrics"},
		"targetPort by number":                       {o: service(`{` + m + `, endpoints: [{targetPort: 7, path: /x, scheme: HTTPS}]}`), urls: "n1 https://10.42.0.5:7/x"},
		"job and labels from the service":            {o: service(`{` + m + `, jobLabel: team, targetLabels: [tier.example/x], podTargetLabels: [app], endpoints: [{port: metrics}]}`), urls: "n1 " + front, labels: map[string]string{"job": "a", "tier_example_x": "edge", "app": "web"}},
		"a service without selector":                 {o: service(`{selector: {}, namespaceSelector: {matchNames: [out]}, endpoints: [{port: metrics}]}`), urls: "n0 http://192.0.2.1:9100/metrics", labels: map[string]string{"job": "machine", "service": "machine", "namespace": "out"}},
		"a pod's port, on the node where the pod is": {o: pods(`{selector: {matchLabels: {app: db}}, podMetricsEndpoints: [{port: m}]}`), urls: "n2 http://10.42.1.5:9100/metrics", labels: map[string]string{"job": "red/x", "endpoint": "m", "node": "n2"}},
		"all ports of a pod":                         {o: pods(`{` + web + `, podMetricsEndpoints: [{}]}`), urls: "n1 http://10.42.0.5:8080/metrics,n1 " + front},
		"pods of two nodes":                          {o: pods(`{selector: {}, podMetricsEndpoints: [{port: m}]}`), urls: "n1 " + front + ",n2 http://10.42.1.5:9100/metrics"},
		"relabelings see meta labels":                {o: pods(`{` + web + `, podMetricsEndpoints: [{port: m, relabelings: [{sourceLabels: [__meta_kubernetes_pod_label_app, __meta_kubernetes_pod_annotation_tier], targetLabel: app, action: Replace}]}]}`), urls: "n1 " + front, labels: map[string]string{"app": "web;1"}},
		"relabelings see the node's":                 {o: pods(`{` + web + `, attachMetadata: {node: true}, podMetricsEndpoints: [{port: m, relabelings: [{sourceLabels: [__meta_kubernetes_node_label_zone], targetLabel: zone}]}]}`), urls: "n1 " + front, labels: map[string]string{"zone": "z1"}},
		"relabelings drop":                           {o: pods(`{` + web + `, podMetricsEndpoints: [{port: m, relabelings: [{sourceLabels: [pod], regex: "web-.*", action: drop}]}]}`), why: "dropped by relabelings"},
		"all actions of relabelling": {o: pods(`{` + web + `, podMetricsEndpoints: [{port: m, relabelings: [{sourceLabels: [pod], action: Lowercase, targetLabel: a}, {sourceLabels: [pod], action: uppercase, targetLabel: b},
			{sourceLabels: [pod], action: HashMod, modulus: 1, targetLabel: c}, {action: LabelMap, regex: pod, replacement: d}, {action: LabelDrop, regex: endpoint}, {sourceLabels: [a], targetLabel: d, action: KeepEqual}]}]}`),
			urls: "n1 " + front, labels: map[string]string{"a": "web-1", "b": "WEB-1", "c": "0", "d": "web-1"}},
		"any namespace":                    {o: object(t, ServiceMonitor, "blue", `{`+m+`, namespaceSelector: {any: true}, endpoints: [{port: metrics}]}`), urls: "n1 " + front},
		"its own namespace only":           {o: object(t, ServiceMonitor, "blue", `{selector: {}, endpoints: [{port: metrics}]}`), why: "no service matches: selector {} in namespace blue"},
		"a selector that matches nothing":  {o: service(`{selector: {matchLabels: {team: b}}, endpoints: [{port: metrics}]}`), why: "selector team=b"},
		"a port the service does not have": {o: service(`{` + m + `, endpoints: [{port: mterics}]}`), why: `spec.endpoints[0]: service front has no port named "mterics"`},
		"how to scrape": {o: service(`{` + m + `, sampleLimit: 5, bodySizeLimit: 1MB, endpoints: [{port: metrics, interval: 30s, scrapeTimeout: 5s, honorLabels: true, honorTimestamps: false,
			params: {module: [m, o]}, metricRelabelings: [{sourceLabels: [__name__], regex: go_.*, action: Drop}]}]}`), urls: "n1 " + front, labels: map[string]string{"__param_module": "m"},
			settings: "body_size_limit: 1MB\nhonor_labels: true\nhonor_timestamps: false\nmetric_relabel_configs:\n- action: drop\n  regex: go_.*\n  source_labels: [__name__]\nparams:\n  module: [m, o]\nsample_limit: 5\nscrape_interval: 30s\nscrape_timeout: 5s\n"},
		"a login from a Secret": {o: service(`{` + m + `, endpoints: [{port: metrics, basicAuth: {username: {name: login, key: user}, password: {name: login, key: word}}}]}`), urls: "n1 " + front,
			settings: "basic_auth:\n  password: 'pa: ss'\n  username: u\n"},
		"a login that is not there":     {o: service(`{` + m + `, endpoints: [{port: metrics, basicAuth: {username: {name: login, key: nobody}}}]}`), why: "spec.endpoints[0].basicAuth.username: Secret red/login key nobody is not there"},
		"a Secret of its own namespace": {o: object(t, ServiceMonitor, "blue", `{`+m+`, namespaceSelector: {any: true}, endpoints: [{port: metrics, authorization: {credentials: {name: login, key: user}}}]}`), why: "Secret blue/login"},
		"an optional Secret":            {o: service(`{` + m + `, endpoints: [{port: metrics, bearerTokenSecret: {name: gone, key: x, optional: true}}]}`), urls: "n1 " + front, settings: "{}\n"},
		"a CA that is none":             {o: service(`{` + m + `, endpoints: [{port: metrics, tlsConfig: {ca: {configMap: {name: roots, key: ca}}}}]}`), why: "unable to use specified CA"},
		"an empty bearerTokenSecret":    {o: service(`{` + m + `, endpoints: [{port: metrics, bearerTokenSecret: {key: ""}, basicAuth: {username: {name: login, key: user}}}]}`), urls: "n1 " + front},
		"two ways to log in":            {o: service(`{` + m + `, endpoints: [{port: metrics, authorization: {}, basicAuth: {}}]}`), why: "exclude each other"},
		"a file of another machine":     {o: service(`{` + m + `, endpoints: [{port: metrics, bearerTokenFile: /etc/shadow}, {port: plain}]}`), urls: "n1 http://10.42.0.5:8080/metrics", why: "spec.endpoints[0].bearerTokenFile: files of the machine are not read"},
		"the token of the account": {o: service(`{` + m + `, endpoints: [{port: metrics, bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}]}`), urls: "n1 " + front,
			settings: "authorization:\n  credentials: of-the-account\n  type: Bearer\n"},
		"an interval that is none":        {o: service(`{` + m + `, endpoints: [{port: metrics, interval: often}]}`), why: `spec.endpoints[0].interval: "often"`},
		"a timeout past the interval":     {o: service(`{` + m + `, endpoints: [{port: metrics, interval: 5s, scrapeTimeout: 10s}]}`), why: "spec.endpoints[0].scrapeTimeout: 10s is longer than interval 5s"},
		"a broken expression":             {o: service(`{` + m + `, endpoints: [{port: metrics, relabelings: [{regex: "("}]}]}`), why: "spec.endpoints[0].relabelings[0].regex: "},
		"a broken expression for samples": {o: service(`{` + m + `, endpoints: [{port: metrics}, {port: metrics, metricRelabelings: [{}, {action: often}]}]}`), why: `spec.endpoints[1].metricRelabelings[0]`},
		"a broken selector":               {o: service(`{selector: {matchExpressions: [{key: a, operator: Near}]}, endpoints: [{port: metrics}]}`), why: "spec.selector"},
		"no endpoint":                     {o: service(`{selector: {}}`), why: "spec.endpoints: names no endpoint"},
		"another shape":                   {o: service(`{selector: {}, endpoints: [{port: 80}]}`), why: "spec.endpoints.port is a number, want string"},
		"a field that does nothing":       {o: service(`{` + m + `, scrapeClass: fast, endpoints: [{port: metrics}]}`), urls: "n1 " + front, why: "spec.scrapeClass does nothing"},
		"a field nobody knows":            {o: service(`{` + m + `, endpoints: [{port: metrics, intreval: 5s}]}`), urls: "n1 " + front, why: `unknown field "spec.endpoints[0].intreval" does nothing`},

		"a probe by the prober built in": {o: probe(`{targets: {staticConfig: {static: ["http://a", "http://b"], labels: {tier: edge}}}}`), urls: "n0 http://blackbox:80/probe,n0 http://blackbox:80/probe",
			labels: map[string]string{"job": "probe/red/x", "instance": "http://a", "__param_target": "http://a", "__param_module": "http_2xx", "namespace": "red", "tier": "edge"}},
		"a probe by another prober": {o: probe(`{jobName: j, module: tcp, prober: {url: "blackbox.mon:9115", scheme: https, path: /p}, targets: {staticConfig: {static: [a], relabelingConfigs: [{targetLabel: instance, replacement: z}]}}}`),
			urls: "n0 https://blackbox.mon:9115/p", labels: map[string]string{"job": "j", "instance": "z", "__param_target": "a", "__param_module": "tcp"}},
		"a probe of Ingress objects": {o: probe(`{targets: {ingress: {selector: {}}}}`), why: "spec.targets.ingress does nothing"},
		"a module nobody has":        {o: probe(`{module: smtp, targets: {staticConfig: {static: [a]}}}`), why: `spec.module: "smtp": the prober built in has dns_tcp, dns_udp, http_2xx`},
		"a probe of nothing":         {o: probe(`{}`), why: "spec.targets: names no staticConfig"},

		"static targets":           {o: config(`{jobName: j, scheme: HTTPS, metricsPath: /m, staticConfigs: [{targets: ["a:1", "b"], labels: {x: z}}]}`), urls: "n0 https://a:1/m,n0 https://b:443/m", labels: map[string]string{"job": "j", "x": "z", "instance": "a:1"}},
		"the machine itself":       {o: config(`{staticConfigs: [{targets: ["127.0.0.1:10250"]}]}`), why: "spec.staticConfigs[0].targets[0]: \"127.0.0.1:10250\" is the machine that scrapes"},
		"a URL as static target":   {o: config(`{staticConfigs: [{targets: ["http://a/m"]}]}`), why: "write host:port"},
		"discovery of pods":        {o: config(`{kubernetesSDConfigs: [{role: Pod, selectors: [{role: pod, label: app=web}]}], relabelings: [{sourceLabels: [__meta_kubernetes_pod_container_port_name], regex: m, action: keep}]}`), urls: "n1 " + front, labels: map[string]string{"job": "scrapeConfig/red/x"}, why: "dropped by relabelings"},
		"discovery of endpoints":   {o: config(`{kubernetesSDConfigs: [{role: Endpoints, namespaces: {names: [red]}}], relabelings: [{sourceLabels: [__meta_kubernetes_service_name, __meta_kubernetes_endpoint_port_name], regex: front;metrics, action: keep}, {action: labelmap, regex: __meta_kubernetes_(pod_name)}]}`), urls: "n1 " + front, labels: map[string]string{"pod_name": "web-1"}, why: "dropped"},
		"discovery of services":    {o: config(`{kubernetesSDConfigs: [{role: Service, namespaces: {ownNamespace: true}, selectors: [{role: service, label: team=a}]}]}`), urls: "n0 http://front.red.svc:80/metrics,n0 http://front.red.svc:8080/metrics"},
		"discovery of nodes":       {o: config(`{kubernetesSDConfigs: [{role: Node}]}`), urls: "n1 http://10.0.0.1:10250/metrics", labels: map[string]string{"instance": "n1"}},
		"another cluster":          {o: config(`{kubernetesSDConfigs: [{role: Node, apiServer: "https://x"}]}`), why: "apiServer names another cluster"},
		"a discovery not followed": {o: config(`{consulSDConfigs: [{server: x}], staticConfigs: [{targets: ["a:1"]}]}`), urls: "n0 http://a:1/metrics", why: "spec.consulSDConfigs does nothing"},
		"a role that is none":      {o: config(`{kubernetesSDConfigs: [{role: Pdo}]}`), why: `spec.kubernetesSDConfigs[0].role: "Pdo"`},
	} {
		t.Run(name, func(t *testing.T) {
			jobs, left := Plan(world(), []Object{c.o})
			var urls []string
			for _, j := range jobs {
				for _, at := range j.Targets {
					urls = append(urls, at.Node+" "+at.Scheme+"://"+at.Address+at.Path)
				}
			}
			slices.Sort(urls)
			if got := strings.Join(urls, ","); got != c.urls {
				t.Fatalf("got %q, want %q; left %v", got, c.urls, left)
			}
			if c.urls != "" {
				have := jobs[0].Targets[0].Labels
				both := maps.Clone(have)
				maps.Copy(both, c.labels)
				if !maps.Equal(both, have) {
					t.Errorf("labels %v, want %v", have, c.labels)
				}
				if got := string(jobs[0].Settings); c.settings != "" && normal(t, got) != normal(t, c.settings) {
					t.Errorf("settings\n%swant\n%s", got, c.settings)
				}
			}
			why := ""
			for _, l := range left {
				why += l.Reason + "\n"
			}
			if (c.why == "") != (why == "") || !strings.Contains(why, c.why) {
				t.Errorf("left %v, want %q", left, c.why)
			}
		})
	}
}

func normal(t *testing.T, text string) string {
	t.Helper()
	out, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestWhatABrokenObjectCosts(t *testing.T) {
	good := object(t, ServiceMonitor, "red", `{selector: {}, endpoints: [{port: metrics}, {port: metrics, path: /more}]}`)
	jobs, left := Plan(world(), []Object{object(t, ServiceMonitor, "red", `[]`), Read("Thing", "a", "b", nil), good})
	if len(jobs) != 2 || jobs[0].Name != "serviceMonitor/red/x/0" || jobs[1].Name != "serviceMonitor/red/x/1" || len(left) != 2 {
		t.Errorf("jobs %v, left %v", jobs, left)
	}
	if here := Of("n2", jobs); len(here) != 0 {
		t.Errorf("n2 scrapes %v", here)
	}
	if here := Of("n1", jobs); len(here) != 2 || len(here[0].Targets) != 1 {
		t.Errorf("n1 scrapes %v", here)
	}
	w := world()
	w.Limit = 1
	jobs, left = Plan(w, []Object{good})
	if len(jobs) != 1 || len(left) != 1 || !strings.Contains(left[0].Reason, "more than 1 targets") {
		t.Errorf("past the limit: jobs %v, left %v", jobs, left)
	}
}

func TestRefsAreAllKeysThatAnObjectNames(t *testing.T) {
	o := object(t, ServiceMonitor, "red", `{selector: {}, endpoints: [{port: a, basicAuth: {username: {name: s, key: u}}, tlsConfig: {ca: {configMap: {name: c, key: ca}}, keySecret: {name: s, key: k}}},
		{port: b, oauth2: {clientId: {secret: {name: o, key: id}}, clientSecret: {name: o, key: word}, tokenUrl: "http://t"}}]}`)
	var got []string
	for _, r := range o.Refs() {
		got = append(got, r.String())
	}
	slices.Sort(got)
	want := []string{"ConfigMap red/c key ca", "Secret red/o key id", "Secret red/o key word", "Secret red/s key k", "Secret red/s key u"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzObjects(f *testing.F) {
	f.Add(ServiceMonitor, []byte(`{"selector":{},"endpoints":[{"port":"metrics","relabelings":[{"regex":"("}]}]}`))
	f.Add(Probe, []byte(`{"targets":{"staticConfig":{"static":["a"]}},"params":[{"name":"","values":[""]}]}`))
	f.Add(ScrapeConfig, []byte(`{"staticConfigs":[{"targets":["::::"]}],"kubernetesSDConfigs":[{"role":"pod"}],"bodySizeLimit":"1e999B"}`))
	f.Add(ScrapeConfig, []byte(`{"httpSDConfigs":[{"url":"http://a","oauth2":{"tokenUrl":"b"}}],"dnsSDConfigs":[{"names":["a"],"type":"mx","port":-1}]}`))
	f.Fuzz(func(t *testing.T, kind string, spec []byte) {
		o := Read(kind, "red", "x", spec)
		wrong, _ := o.Check()
		jobs, left := Plan(world(), []Object{o})
		if len(wrong) > 0 && (len(jobs) > 0 || len(left) == 0) {
			t.Errorf("refused for %v, but scraped %v, left out %v", wrong, jobs, left)
		}
		for _, j := range jobs {
			if err := j.Settings.valid(); err != nil {
				t.Errorf("settings that Prometheus refuses: %v\n%s", err, j.Settings)
			}
		}
	})
}
