package daemon

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/dynamic/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"perch/controlplane/event"
	"perch/logs/record"
	"perch/logs/recorded"
	logstore "perch/logs/store"
)

func logRule(t *testing.T, namespace, spec string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte("apiVersion: perch.dev/v1alpha1\nkind: LogRule\nmetadata: {name: a, namespace: "+namespace+"}\nspec: {rules: "+spec+"}"), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestALogRuleThatCannotCountIsRefusedWhenWritten(t *testing.T) {
	broken := logRule(t, "shop", `[{record: x_total, query: "x"}, {record: y_total, query: "level:error (x"}]`)
	for _, c := range []struct {
		name     string
		now, old *unstructured.Unstructured
		want     string
	}{
		{"a good one", logRule(t, "shop", `[{record: x_total, query: "level:error", by: [pod], limit: 5}]`), nil, ""},
		{"a broken query", broken, nil, `rule 2 "y_total": query: query position 14: expected`},
		{"a broken one as it was", broken, broken, ""},
		{"a name of perch", logRule(t, "shop", `[{record: perch_x, query: ""}]`), nil, "perch_ is perch's own"},
		{"one of another type", logRule(t, "shop", `[{record: x_total, query: [1]}]`), nil, "read spec"},
	} {
		op, old := kadmission.Create, runtime.Object(nil)
		if c.old != nil {
			op, old = kadmission.Update, c.old
		}
		err := alertPlugin{}.Validate(t.Context(), kadmission.NewAttributesRecord(c.now, old, c.now.GroupVersionKind(), "shop", "a", logRules, "", op, nil, false, nil), nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// After a start lines are counted before anybody knows the objects.
func TestRulesSeenLastCountFromTheFirstLine(t *testing.T) {
	dir := t.TempDir()
	s, err := logstore.Open(logstore.Default(filepath.Join(dir, "logs")), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	spaces := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	if err := spaces.Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ops", Labels: map[string]string{rulesLabel: "cluster"}}}); err != nil {
		t.Fatal(err)
	}
	var told []event.Record
	begin := func() (*countedQueries, *recorded.Recorded) {
		counts, err := recorded.New(recorded.Default(), s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		q := &countedQueries{counts: counts, objects: watchObjects(fake.NewSimpleDynamicClient(runtime.NewScheme()), logRules, slog.New(slog.DiscardHandler)), spaces: corelisters.NewNamespaceLister(spaces), file: filepath.Join(dir, "log-rules.json"),
			tell: func(r event.Record) { told = append(told, r) }, log: slog.New(slog.DiscardHandler), told: map[string]bool{}}
		q.load()
		return q, counts
	}
	line := func(counts *recorded.Recorded, namespace string) {
		t.Helper()
		if err := counts.Append(t.Context(), []record.Record{{Time: 1, Stream: &record.Stream{Namespace: namespace, Kind: record.KindLog}, Body: []byte("x")}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	q, counts := begin()
	line(counts, "shop") // no rule yet
	for _, o := range []*unstructured.Unstructured{logRule(t, "shop", `[{record: shop_x_total, query: x}]`), logRule(t, "ops", `[{record: all_x_total, query: x}]`), logRule(t, "bank", `[{record: b_total, query: "("}]`)} {
		if err := q.objects.informer.GetStore().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	q.apply(q.rules())
	q.apply(q.rules()) // nothing is told twice
	if len(told) != 1 || told[0].Object.Namespace != "bank" || told[0].Reason != "NotCounted" || !strings.Contains(told[0].Message, "query position 1") {
		t.Errorf("%+v", told)
	}
	line(counts, "shop")
	line(counts, "bank")

	_, counts = begin() // a restart; the API does not answer
	line(counts, "shop")
	reg := prometheus.NewRegistry()
	reg.MustRegister(counts)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]float64{}
	for _, f := range families {
		have[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	trouble := have["perch_recorded_overflow_lines_total"] + have["perch_recorded_slow_lines_total"]
	if have["shop_x_total"] != 2 || have["all_x_total"] != 3 || trouble != 0 || len(have) != 4 {
		t.Errorf("%v", have)
	}
}
