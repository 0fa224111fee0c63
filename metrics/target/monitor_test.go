package target

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

func TestMonitored(t *testing.T) {
	web := pod(func(p *corev1.Pod) {
		p.Annotations = nil
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "m", ContainerPort: 9100}, {Name: "web", ContainerPort: 8080}}
	})
	front := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "front", Labels: map[string]string{"team": "a", "tier.example/x": "edge"}},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{
			{Name: "metrics", Port: 80, TargetPort: intstr.FromString("m")}, {Name: "plain", Port: 8080}}},
	}
	service := func(in string) Monitor {
		m := Monitor{Kind: ServiceMonitor, Metadata: metav1.ObjectMeta{Namespace: "red", Name: "x"}}
		if err := yaml.UnmarshalStrict([]byte(in), &m.Spec); err != nil {
			t.Fatal(in, err)
		}
		return m
	}
	from := func(namespace string, m Monitor) Monitor { m.Metadata.Namespace = namespace; return m }
	pods := func(in string) Monitor { m := service(in); m.Kind = PodMonitor; return m }
	for name, c := range map[string]struct {
		m      Monitor
		url    string
		labels map[string]string
		why    string
	}{
		"a service's port by name, with the operator's labels": {service(`{selector: {matchLabels: {team: a}}, endpoints: [{port: metrics}]}`), "http://10.42.0.5:9100/metrics",
			map[string]string{"job": "front", "service": "front", "endpoint": "metrics", "namespace": "red", "pod": "web-1", "container": "c", "node": "n1", "instance": "10.42.0.5:9100"}, ""},
		"a port without targetPort":        {service(`{selector: {}, endpoints: [{port: plain}]}`), "http://10.42.0.5:8080/metrics", nil, ""},
		"targetPort by number":             {service(`{selector: {}, endpoints: [{targetPort: 7, path: /x, scheme: HTTPS}]}`), "https://10.42.0.5:7/x", nil, ""},
		"job and labels from the service":  {service(`{selector: {}, jobLabel: team, targetLabels: [tier.example/x], podTargetLabels: [app], endpoints: [{port: metrics}]}`), "http://10.42.0.5:9100/metrics", map[string]string{"job": "a", "tier_example_x": "edge", "app": "web"}, ""},
		"interval, timeout and parameters": {service(`{selector: {}, endpoints: [{port: metrics, interval: 30s, scrapeTimeout: 5s, params: {module: [m]}}]}`), "http://10.42.0.5:9100/metrics", map[string]string{"__scrape_interval__": "30s", "__scrape_timeout__": "5s", "__param_module": "m"}, ""},
		"a pod's port":                     {pods(`{selector: {matchLabels: {app: web}}, podMetricsEndpoints: [{port: m}]}`), "http://10.42.0.5:9100/metrics", map[string]string{"job": "red/x", "endpoint": "m"}, ""},
		"relabelings see meta labels":      {pods(`{selector: {}, podMetricsEndpoints: [{port: m, relabelings: [{sourceLabels: [__meta_kubernetes_pod_label_app], targetLabel: app, action: Replace}]}]}`), "http://10.42.0.5:9100/metrics", map[string]string{"app": "web"}, ""},
		"relabelings drop":                 {pods(`{selector: {}, podMetricsEndpoints: [{port: m, relabelings: [{sourceLabels: [pod], regex: "web-.*", action: drop}]}]}`), "", nil, "dropped by relabelings"},
		"any namespace":                    {from("blue", service(`{selector: {}, namespaceSelector: {any: true}, endpoints: [{port: metrics}]}`)), "http://10.42.0.5:9100/metrics", nil, ""},
		"a namespace by name":              {from("blue", service(`{selector: {}, namespaceSelector: {matchNames: [red]}, endpoints: [{port: metrics}]}`)), "http://10.42.0.5:9100/metrics", nil, ""},
		"its own namespace only":           {from("blue", service(`{selector: {}, endpoints: [{port: metrics}]}`)), "", nil, "no pod on node n1 matches: selector {} in namespace blue"},
		"a selector that matches nothing":  {service(`{selector: {matchLabels: {team: b}}, endpoints: [{port: metrics}]}`), "", nil, "selector team=b"},
		"a port the service does not have": {service(`{selector: {}, endpoints: [{port: mterics}]}`), "", nil, `no port named "mterics"`},
		"credentials":                      {service(`{selector: {}, endpoints: [{port: metrics, basicAuth: {username: {key: a}}}]}`), "", nil, "credentials"},
		"an interval that is none":         {service(`{selector: {}, endpoints: [{port: metrics, interval: often}]}`), "", nil, `"often"`},
		"a timeout past the interval":      {service(`{selector: {}, endpoints: [{port: metrics, interval: 5s, scrapeTimeout: 10s}]}`), "", nil, "longer than interval"},
		"a broken expression":              {service(`{selector: {}, endpoints: [{port: metrics, relabelings: [{regex: "("}]}]}`), "", nil, "relabeling 0"},
		"a broken selector":                {service(`{selector: {matchExpressions: [{key: a, operator: Near}]}, endpoints: [{port: metrics}]}`), "", nil, "selector"},
		"no endpoint":                      {service(`{selector: {}}`), "", nil, "names no endpoint"},
		"what is not applied is told":      {service(`{selector: {}, endpoints: [{port: metrics, honorLabels: true}]}`), "http://10.42.0.5:9100/metrics", nil, "honorLabels"},
	} {
		t.Run(name, func(t *testing.T) {
			got, dropped := Monitored("n1", []Monitor{c.m}, []*corev1.Pod{web}, []*corev1.Service{front})
			url := ""
			if len(got) == 1 {
				url = got[0].Scheme + "://" + got[0].Address + got[0].Path
			}
			if url != c.url || len(got) > 1 {
				t.Fatalf("got %+v, want %s", got, c.url)
			}
			if c.url != "" {
				both := maps.Clone(got[0].Labels)
				maps.Copy(both, c.labels)
				if !maps.Equal(both, got[0].Labels) {
					t.Errorf("labels %v, want %v", got[0].Labels, c.labels)
				}
			}
			why := ""
			if len(dropped) > 0 {
				why = dropped[0].Reason
			}
			if (c.why == "") != (why == "") || !strings.Contains(why, c.why) {
				t.Errorf("dropped %v, want %q", dropped, c.why)
			}
		})
	}
}
