package target

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// chart is what a Helm chart installs: a Service, a pod behind it, and an object
// that asks for scrapes.
type chart struct {
	kind    string // of the object; ServiceMonitor when empty
	service string // labels and spec; empty: none
	address string // in the Service's Endpoints, when it selects no pods
	pod     string // labels and spec
	spec    string
	urls    []string          // "node url", sorted
	labels  map[string]string // of the first
	wants   []string          // parts of the settings of the first
	left    []string          // parts of what is left out or does nothing
}

func (c chart) world(t *testing.T) World {
	t.Helper()
	w := World{Home: "n1", Account: Account{CA: testCA(t), Token: "t0ken"}}
	meta := metav1.ObjectMeta{Namespace: "mon", Name: "app"}
	if c.service != "" {
		s := &corev1.Service{}
		read(t, c.service, s)
		s.Namespace, s.Name = meta.Namespace, meta.Name
		w.Services = append(w.Services, s)
		if c.address != "" {
			w.Endpoints = append(w.Endpoints, &corev1.Endpoints{ObjectMeta: meta, Subsets: []corev1.EndpointSubset{{
				Addresses: []corev1.EndpointAddress{{IP: c.address}}, Ports: []corev1.EndpointPort{{Name: s.Spec.Ports[0].Name, Port: s.Spec.Ports[0].TargetPort.IntVal}}}}})
		}
	}
	if c.pod != "" {
		p := &corev1.Pod{}
		read(t, c.pod, p)
		p.Namespace, p.Name = meta.Namespace, "app-0"
		p.Spec.NodeName, p.Status.PodIP, p.Status.HostIP, p.Status.Phase = "n1", "10.0.0.9", "192.0.2.7", corev1.PodRunning
		w.Pods = append(w.Pods, p)
	}
	return w
}

func read(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// TestObjectsAsChartsHaveThem has the ways in which well-known charts ask for
// scrapes, each with what Prometheus would scrape for it.
func TestObjectsAsChartsHaveThem(t *testing.T) {
	const rewrite = `(\d+);((([0-9]+?)(\.|$)){4})`
	for name, c := range map[string]chart{
		"an operator's manager: TLS of its own, the account's token": {
			service: `{metadata: {labels: {control-plane: manager}}, spec: {selector: {control-plane: manager}, ports: [{name: https, port: 8443, targetPort: 8443}]}}`,
			pod:     `{metadata: {labels: {control-plane: manager}}, spec: {containers: [{name: manager}]}}`,
			spec: `{selector: {matchLabels: {control-plane: manager}}, endpoints: [{path: /metrics, port: https, scheme: https,
				bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token, tlsConfig: {insecureSkipVerify: true}}]}`,
			urls: []string{"n1 https://10.0.0.9:8443/metrics"}, labels: map[string]string{"job": "app", "endpoint": "https", "container": "manager"},
			wants: []string{"insecure_skip_verify: true", "credentials: t0ken"},
		},
		"the API server: its Service selects no pods": {
			service: `{metadata: {labels: {component: apiserver, provider: kubernetes}}, spec: {ports: [{name: https, port: 443, targetPort: 6443}]}}`, address: "192.0.2.7",
			spec: `{jobLabel: component, namespaceSelector: {matchNames: [mon]}, selector: {matchLabels: {component: apiserver, provider: kubernetes}}, endpoints: [{port: https, scheme: https, interval: 30s,
				bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token, tlsConfig: {caFile: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt, serverName: kubernetes},
				metricRelabelings: [{action: drop, regex: apiserver_request_duration_seconds_bucket;(0.15|0.2), sourceLabels: [__name__, le]}]}]}`,
			urls: []string{"n1 https://192.0.2.7:6443/metrics"}, labels: map[string]string{"job": "apiserver"}, wants: []string{"BEGIN CERTIFICATE", "server_name: kubernetes", "action: drop"},
		},
		"node-exporter behind a proxy: the node's name as instance": {
			service: `{metadata: {labels: {app.kubernetes.io/name: node-exporter}}, spec: {clusterIP: None, selector: {app.kubernetes.io/name: node-exporter}, ports: [{name: https, port: 9100, targetPort: https}]}}`,
			pod:     `{metadata: {labels: {app.kubernetes.io/name: node-exporter}}, spec: {hostNetwork: true, containers: [{name: exporter}, {name: proxy, ports: [{name: https, containerPort: 9100, hostPort: 9100}]}]}}`,
			spec: `{jobLabel: app.kubernetes.io/name, selector: {matchLabels: {app.kubernetes.io/name: node-exporter}}, endpoints: [{port: https, scheme: https, interval: 15s, tlsConfig: {insecureSkipVerify: true},
				bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token,
				relabelings: [{action: replace, regex: (.*), replacement: $1, sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: instance}]}]}`,
			urls: []string{"n1 https://10.0.0.9:9100/metrics"}, labels: map[string]string{"job": "node-exporter", "instance": "n1", "container": "proxy"},
		},
		"object state: two ports, its own labels count": {
			service: `{metadata: {labels: {app.kubernetes.io/name: state}}, spec: {clusterIP: None, selector: {app.kubernetes.io/name: state}, ports: [{name: main, port: 8443, targetPort: main}, {name: self, port: 9443, targetPort: self}]}}`,
			pod:     `{metadata: {labels: {app.kubernetes.io/name: state}}, spec: {containers: [{name: a, ports: [{name: main, containerPort: 8443}]}, {name: b, ports: [{name: self, containerPort: 9443}]}]}}`,
			spec: `{jobLabel: app.kubernetes.io/name, selector: {matchLabels: {app.kubernetes.io/name: state}}, endpoints: [
				{honorLabels: true, interval: 30s, scrapeTimeout: 30s, port: main, scheme: https, tlsConfig: {insecureSkipVerify: true}, relabelings: [{action: labeldrop, regex: (pod|service|endpoint|namespace)}]},
				{interval: 30s, port: self, scheme: https, tlsConfig: {insecureSkipVerify: true}}]}`,
			urls: []string{"n1 https://10.0.0.9:8443/metrics", "n1 https://10.0.0.9:9443/metrics"}, labels: map[string]string{"job": "state", "pod": "", "namespace": "", "container": "a"}, wants: []string{"honor_labels: true"},
		},
		"an ingress controller: Services of any namespace": {
			service: `{metadata: {labels: {app.kubernetes.io/component: controller}}, spec: {selector: {app: i}, ports: [{name: metrics, port: 10254, targetPort: metrics}]}}`,
			pod:     `{metadata: {labels: {app: i}}, spec: {containers: [{name: c, ports: [{name: metrics, containerPort: 10254}]}]}}`,
			spec:    `{namespaceSelector: {any: true}, selector: {matchLabels: {app.kubernetes.io/component: controller}}, endpoints: [{port: metrics, interval: 30s}]}`,
			urls:    []string{"n1 http://10.0.0.9:10254/metrics"},
		},
		"certificates: the pod's port by number, a helm value left empty": {
			service: `{metadata: {labels: {app: certs}}, spec: {selector: {app: certs}, ports: [{name: http, port: 80, targetPort: http-metrics}]}}`,
			pod:     `{metadata: {labels: {app: certs}}, spec: {containers: [{name: c, ports: [{name: http-metrics, containerPort: 9402}]}]}}`,
			spec:    `{jobLabel: "", selector: {matchExpressions: [{key: app, operator: In, values: [certs, hooks]}]}, endpoints: [{targetPort: 9402, path: /metrics, interval: "", scrapeTimeout: 10s, honorLabels: false, tlsConfig: {}, bearerTokenSecret: {key: ""}}]}`,
			urls:    []string{"n1 http://10.0.0.9:9402/metrics"}, labels: map[string]string{"endpoint": "9402", "container": "c"},
		},
		"a sidecar exporter: its port only inside the pod": {
			service: `{metadata: {labels: {app: db}}, spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}]}}`,
			pod:     `{metadata: {labels: {app: db}}, spec: {containers: [{name: db, ports: [{containerPort: 5432}]}, {name: exporter, ports: [{name: http-metrics, containerPort: 9187}]}]}}`,
			spec:    `{selector: {matchLabels: {app: db}}, endpoints: [{targetPort: http-metrics}]}`,
			urls:    []string{"n1 http://10.0.0.9:9187/metrics"}, labels: map[string]string{"container": "exporter", "endpoint": "http-metrics"},
		},
		"a log store: the job's name is prefixed": {
			service: `{metadata: {labels: {app: store, cluster: main}}, spec: {selector: {app: store}, ports: [{name: http-metrics, port: 3100, targetPort: 3100}]}}`,
			pod:     `{metadata: {labels: {app: store}}, spec: {containers: [{name: c, ports: [{name: x, containerPort: 3100}]}]}}`,
			spec: `{selector: {matchLabels: {app: store}, matchExpressions: [{key: prometheus.io/service-monitor, operator: NotIn, values: ["false"]}]}, endpoints: [{port: http-metrics, path: /metrics, scheme: http,
				relabelings: [{sourceLabels: [job], action: replace, replacement: main/$1, targetLabel: job}, {action: replace, replacement: main, targetLabel: cluster}]}]}`,
			urls: []string{"n1 http://10.0.0.9:3100/metrics"}, labels: map[string]string{"job": "main/app", "cluster": "main"},
		},
		"a store's keys are files of Prometheus' pod: that endpoint alone is left out": {
			service: `{metadata: {labels: {app: kv}}, spec: {selector: {app: kv}, ports: [{name: m, port: 2381, targetPort: 2381}, {name: c, port: 2379, targetPort: 2379}]}}`,
			pod:     `{metadata: {labels: {app: kv}}, spec: {containers: [{name: c}]}}`,
			spec: `{selector: {matchLabels: {app: kv}}, endpoints: [{port: c, scheme: https, tlsConfig: {caFile: /etc/prometheus/secrets/kv/ca.crt, certFile: /etc/prometheus/secrets/kv/tls.crt, keyFile: /etc/prometheus/secrets/kv/tls.key}},
				{port: m}]}`,
			urls: []string{"n1 http://10.0.0.9:2381/metrics"}, left: []string{"spec.endpoints[0].tlsConfig.caFile: files of the machine are not read"},
		},
		"a mesh: the address is made of annotations": {
			kind: PodMonitor, pod: `{metadata: {labels: {a: b}, annotations: {prometheus.io/scrape: "true", prometheus.io/port: "15020"}}, spec: {containers: [{name: app, ports: [{containerPort: 80}]}, {name: proxy, ports: [{name: envoy, containerPort: 15090}]}]}}`,
			spec: `{selector: {matchExpressions: [{key: ignore-me, operator: DoesNotExist}]}, jobLabel: stats, podMetricsEndpoints: [{path: /stats/prometheus, interval: 15s, relabelings: [
				{action: keep, sourceLabels: [__meta_kubernetes_pod_container_name], regex: proxy}, {action: keep, sourceLabels: [__meta_kubernetes_pod_annotationpresent_prometheus_io_scrape]},
				{action: replace, regex: '` + rewrite + `', replacement: $2:$1, sourceLabels: [__meta_kubernetes_pod_annotation_prometheus_io_port, __meta_kubernetes_pod_ip], targetLabel: __address__},
				{action: labeldrop, regex: __meta_kubernetes_pod_label_(.+)}, {sourceLabels: [__meta_kubernetes_namespace], action: replace, targetLabel: ns}]}]}`,
			urls: []string{"n1 http://10.0.0.9:15020/stats/prometheus"}, labels: map[string]string{"ns": "mon", "job": "mon/x"}, left: []string{"dropped by relabelings"},
		},
		"a network's agents: by portNumber, without the port declared": {
			kind: PodMonitor, pod: `{metadata: {labels: {k8s-app: net}}, spec: {hostNetwork: true, containers: [{name: agent}]}}`,
			spec: `{selector: {matchLabels: {k8s-app: net}}, podTargetLabels: [k8s-app], podMetricsEndpoints: [{portNumber: 9091, honorLabels: true}]}`,
			urls: []string{"n1 http://10.0.0.9:9091/metrics"}, labels: map[string]string{"k8s_app": "net", "container": "agent"},
		},
		"a proxy with a login and a page of parameters": {
			service: `{metadata: {labels: {app: p}}, spec: {selector: {app: p}, ports: [{name: stats, port: 1024, targetPort: 1024}]}}`,
			pod:     `{metadata: {labels: {app: p}}, spec: {containers: [{name: c}]}}`,
			spec: `{selector: {matchLabels: {app: p}}, sampleLimit: 0, targetLimit: 0, endpoints: [{port: stats, path: /metrics, params: {scope: [global, frontend]}, followRedirects: true, enableHttp2: false, proxyUrl: "",
				metricRelabelings: [{sourceLabels: [__name__], regex: haproxy_(a|b).*, action: keep}, {regex: "(instance_)?pod", action: labeldrop}]}]}`,
			urls: []string{"n1 http://10.0.0.9:1024/metrics"}, labels: map[string]string{"__param_scope": "global"}, wants: []string{"- global\n  - frontend", "enable_http2: false"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			kind := c.kind
			if kind == "" {
				kind = ServiceMonitor
			}
			o := object(t, kind, "mon", c.spec)
			if wrong, _ := o.Check(); len(wrong) > 0 {
				t.Fatalf("refused: %v", wrong)
			}
			jobs, left := Plan(c.world(t), []Object{o})
			var urls []string
			for _, j := range jobs {
				for _, at := range j.Targets {
					urls = append(urls, at.Node+" "+at.Scheme+"://"+at.Address+at.Path)
				}
			}
			slices.Sort(urls)
			if !slices.Equal(urls, c.urls) {
				t.Fatalf("scrapes %v, want %v; left %v", urls, c.urls, left)
			}
			for k, v := range c.labels {
				if got := jobs[0].Targets[0].Labels[k]; got != v {
					t.Errorf("label %s is %q, want %q", k, got, v)
				}
			}
			for _, part := range c.wants {
				if !strings.Contains(string(jobs[0].Settings), part) {
					t.Errorf("no %q in\n%s", part, jobs[0].Settings)
				}
			}
			why := ""
			for _, l := range left {
				why += l.Reason + "\n"
			}
			for _, part := range c.left {
				if !strings.Contains(why, part) {
					t.Errorf("no %q in what is left out:\n%s", part, why)
				}
			}
			if len(c.left) == 0 && why != "" {
				t.Errorf("left out: %s", why)
			}
		})
	}
}

// testCA is a certificate that signs itself.
func testCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
