package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"perch/alerts/rule"
	"perch/cmd/perch/daemon/shipped"
	"perch/metrics/promapi"
	metricstore "perch/metrics/store"
)

func spaces(t *testing.T, marked ...string) corelisters.NamespaceLister {
	t.Helper()
	all := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, name := range []string{"kube-system", "shop", "bank", "monitoring"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, m := range marked {
			if m == name {
				ns.Labels = map[string]string{rulesLabel: "cluster"}
			}
		}
		if err := all.Add(ns); err != nil {
			t.Fatal(err)
		}
	}
	return corelisters.NewNamespaceLister(all)
}

// TestRulesReadOnlyTheirNamespace evaluates real rules over a real store: one
// in shop counts pods, asks in its text, and would like to pass for bank's.
func TestRulesReadOnlyTheirNamespace(t *testing.T) {
	cfg := metricstore.Default()
	cfg.Dir = t.TempDir()
	log := slog.New(slog.DiscardHandler)
	db, err := metricstore.New(cfg, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(t.Context()) })
	app := db.Appender(t.Context())
	for _, l := range []labels.Labels{
		labels.FromStrings("__name__", "kube_pod_info", "namespace", "shop", "pod", "web"),
		labels.FromStrings("__name__", "kube_pod_info", "namespace", "bank", "pod", "vault"),
		labels.FromStrings("__name__", "kube_pod_info", "namespace", "bank", "pod", "desk"),
		labels.FromStrings("__name__", "node_load1", "node", "n1"),
	} {
		if _, err := app.Append(0, l, time.Now().UnixMilli(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	prom, err := promapi.New(promapi.Default(), promapi.Parts{Store: db}, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	text := `groups:
- name: spy
  interval: 1s
  rules:
  - {record: pods_seen, expr: count(kube_pod_info), labels: {namespace: bank}}
  - {record: load_seen, expr: count(node_load1) or vector(0)}
  - {alert: Spy, expr: 'count(kube_pod_info{namespace=~".*"}) or vector(0)', labels: {namespace: bank}, annotations: {summary: '{{ with query "count(kube_pod_info)" }}{{ . | first | value }}{{ end }}'}}
`
	sources := &ruleSources{spaces: spaces(t, "monitoring")}
	var list []rule.Source
	for _, ns := range []string{"shop", "monitoring", "kube-system"} {
		list = append(list, rule.Source{Name: "PrometheusRule/" + ns + "/spy", Text: text, Namespace: sources.within(ns)})
	}
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	told := map[string]string{} // label namespace and text of Spy
	r := rule.New(rule.Config{Interval: time.Second, ExternalURL: page},
		rule.Data{Query: forRules(prom), Queryable: db, Append: db, Within: withinNamespace, Refresh: func(context.Context) error { return nil }},
		func() []rule.Source { return list }, func(_ context.Context, in ...rule.Alert) error {
			mu.Lock()
			defer mu.Unlock()
			for _, a := range in {
				if a.Labels["alertname"] == "Spy" {
					told[a.Labels["namespace"]] = a.Annotations["summary"]
				}
			}
			return nil
		}, log, prometheus.NewRegistry())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	want := fmt.Sprint(map[string]float64{`{__name__="pods_seen", namespace="shop"}`: 1, `{__name__="load_seen", namespace="shop"}`: 0,
		`{__name__="pods_seen", namespace="bank"}`: 3, `{__name__="load_seen"}`: 1})
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); ; <-tick.C {
		v, _, err := prom.Instant(promapi.WithAccess(ctx, promapi.Everything()), `{__name__=~".*_seen"}`, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]float64{}
		for _, s := range v {
			have[s.Metric.String()] = s.F
		}
		mu.Lock()
		say := fmt.Sprint(told)
		mu.Unlock()
		if fmt.Sprint(have) == want && say == "map[bank:3 shop:1]" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("recorded %v, told %s; want %s", have, say, want)
		}
	}
}

func TestWhichRulesOfObjectsAreInForce(t *testing.T) {
	store := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc)
	add := func(o *unstructured.Unstructured, namespace string) {
		o.SetNamespace(namespace)
		if err := store.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	all, err := shippedObjects()
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]*unstructured.Unstructured{}
	for _, o := range all {
		written[o.GetName()] = shipped.Written(o)
	}
	if written["perch-pods"] == nil || written["perch-dashboard-nodes"] == nil {
		t.Fatalf("shipped: %v", written)
	}
	add(written["perch-pods"], "kube-system")
	edited := written["perch-nodes"]
	edited.Object["spec"] = map[string]any{"groups": []any{}}
	add(edited, "kube-system")
	add(shipped.Rules("pods", map[string]any{"groups": []any{}}), "shop") // a namesake
	file := filepath.Join(t.TempDir(), "rule-objects.json")
	begin := func(known bool) *ruleSources {
		sources := &ruleSources{objects: ruleObjects{&watchedObjects{informer: fakeInformer{store: store}}}, spaces: spaces(t),
			known: func() bool { return known }, file: file, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		for _, o := range all {
			if o.GetKind() == "PrometheusRule" {
				sources.shipped = append(sources.shipped, o.GetName())
			}
		}
		sources.load()
		return sources
	}
	have := func(s *ruleSources) string {
		var out []string
		for _, x := range s.sources() {
			out = append(out, x.Name+"<"+x.Namespace+">")
		}
		return strings.Join(out, " ")
	}
	if got := have(begin(false)); got != "" {
		t.Error("before the first start there are", got)
	}
	const want = "PrometheusRule/kube-system/perch-logs<> PrometheusRule/kube-system/perch-nodes<> PrometheusRule/shop/perch-pods<shop>"
	sources := begin(true)
	sources.deleted.Store(&[]string{"perch-logs"})
	if got := have(sources); got != want {
		t.Error(got)
	}

	// A later start: they are in force before the API answers, and what was deleted
	// does not come back until it was looked up.
	if got := have(begin(false)); got != want {
		t.Error("while nothing is known:", got)
	}
	if got := have(begin(true)); got != want {
		t.Error("before deleted ones were looked up:", got)
	}
	if err := os.WriteFile(file, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := have(begin(true)); got != strings.TrimPrefix(want, "PrometheusRule/kube-system/perch-logs<> ") {
		t.Error("with a broken file:", got)
	}
}

// fakeInformer is an informer that knows what its store holds.
type fakeInformer struct {
	cache.SharedIndexInformer
	store cache.Store
}

func (f fakeInformer) GetStore() cache.Store { return f.store }
