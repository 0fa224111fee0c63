package custom

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	klabels "k8s.io/apimachinery/pkg/labels"
	customv1beta1 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta1"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"perch/metrics/promapi"
	"perch/metrics/store"
)

func selector(t *testing.T, text string) klabels.Selector {
	t.Helper()
	s, err := klabels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestANameWithoutAQueryIsASeriesOrTheRateOfACounter(t *testing.T) {
	for _, c := range []struct {
		name string
		want Want
		expr string // or, after "!", part of the error
	}{
		{"a gauge of pods", Want{Namespace: "shop", Metric: "queue_length", By: "pod", Objects: []string{"a.1", "b"}}, `sum by (pod) (queue_length{namespace="shop",pod=~"a\\.1|b"})`},
		{"a counter's rate", Want{Namespace: "shop", Metric: "orders_per_second", By: "pod"}, `sum by (pod) (rate(orders_total{namespace="shop",pod=~".+"}[1m]))`},
		{"an external one keeps its series", Want{Namespace: "shop", Metric: "queue_length", Selector: selector(t, "queue=mail,kind notin (dead,old),owner,!test")}, `queue_length{kind!~"dead|old",namespace="shop",owner!="",queue=~"mail",test=""}`},
		{"a node has no namespace", Want{Metric: "load1", By: "node", Objects: []string{"n1"}}, `sum by (node) (load1{node=~"n1"})`},
		{"a counter itself is of no use", Want{Namespace: "shop", Metric: "orders_total"}, "!is a counter: ask for orders_per_second"},
		{"no series has such a name", Want{Namespace: "shop", Metric: "queue-length"}, "!write a MetricQuery"},
		{"a comparison of labels", Want{Namespace: "shop", Metric: "x", Selector: selector(t, "a>1")}, "!not supported"},
		{"quotes stay inside", Want{Namespace: `x"}`, Metric: "q"}, `q{namespace="x\"}"}`},
		{"a kind that is PromQL", Want{Namespace: "shop", Metric: "q", By: `pod) (secrets{namespace="b"}) #`}, `!"pod) (secrets{namespace=\"b\"}) #" is no kind`},
		{"a kind that is a label in UTF-8", Want{Namespace: "shop", Metric: "q", By: "köb"}, "!is no kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := plain(c.want)
			if bad, wrong := strings.CutPrefix(c.expr, "!"); wrong {
				if err == nil || !strings.Contains(err.Error(), bad) {
					t.Errorf("got %v, want %q in it", err, bad)
				}
				return
			}
			if err != nil || got != c.expr {
				t.Errorf("got  %s, %v\nwant %s", got, err, c.expr)
			}
			if err := Check(got); err != nil {
				t.Errorf("%s: %v", got, err)
			}
		})
	}
}

func TestAQueryGivesAVector(t *testing.T) {
	for text, want := range map[string]string{"sum(a": "parse error: unclosed", "a[5m]": "gives a range vector", `"text"`: "gives a string", "": "parse"} {
		if err := Check(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// source is the API over a store with a few series.
func source(t *testing.T, stored map[string]string) Source {
	t.Helper()
	cfg := store.Default()
	cfg.Dir = t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	db, err := store.New(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	api, err := promapi.New(promapi.Default(), promapi.Parts{Store: db}, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var batch []store.Sample
	now := time.Now().UnixMilli()
	for i := range int64(5) {
		at := now - 60_000 + 15_000*i
		add := func(v float64, pairs ...string) {
			batch = append(batch, store.Sample{Labels: labels.FromStrings(pairs...), T: at, V: v})
		}
		add(3, "__name__", "waiting", "namespace", "shop", "pod", "a", "queue", "mail")
		add(4.5, "__name__", "waiting", "namespace", "shop", "pod", "b", "queue", "mail")
		add(9, "__name__", "waiting", "namespace", "shop", "pod", "b", "queue", "sms")
		add(100, "__name__", "waiting", "namespace", "other", "pod", "a", "queue", "mail")
		add(float64(30*i), "__name__", "orders_total", "namespace", "shop", "pod", "a")
	}
	if done, err := db.Inlet("test").Append(t.Context(), batch); err != nil || done.Refused > 0 {
		t.Fatal(done, err)
	}
	return Source{
		Query: func(ctx context.Context, namespace, expr string, at time.Time) (out []Value, _ []string, _ error) {
			access := promapi.Everything()
			if namespace != "" {
				access = promapi.Access{Namespaces: []string{namespace}}
			}
			v, w, err := api.Instant(promapi.WithAccess(ctx, access), expr, at)
			for _, s := range v {
				out = append(out, Value{s.Metric.Map(), time.UnixMilli(s.T), s.F})
			}
			return out, w, err
		},
		Stored: func(ns, name string) (string, bool, error) {
			q, ok := stored[ns+"/"+name]
			return q, ok, nil
		},
		Names: func(string) (out []string, _ error) {
			for k := range stored {
				out = append(out, k[strings.Index(k, "/")+1:])
			}
			return out, nil
		},
		Pods: func(_ string, s klabels.Selector) (out []string, _ error) {
			for _, n := range []string{"a", "b"} {
				if s.Matches(klabels.Set{"name": n}) {
					out = append(out, n)
				}
			}
			return out, nil
		},
	}
}

func TestMetricsAreServedInTheShapesOfKubernetes(t *testing.T) {
	s := source(t, map[string]string{
		"shop/backlog":  `sum by (service) (label_replace(waiting, "service", "web", "", ""))`,
		"shop/total":    `sum(waiting)`,
		"kube-system/u": `sum(waiting)`,
	})
	ns := "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/"
	ext := "/apis/external.metrics.k8s.io/v1beta1/namespaces/"
	for _, c := range []struct {
		name, path string
		query      url.Values
		code       int
		has        []string
	}{
		{"a metric of one pod adds up its series", ns + "pods/b/waiting", nil, 200, []string{`"kind":"MetricValueList"`, `"name":"b"`, `"value":"13500m"`}},
		{"of all pods", ns + "pods/*/waiting", nil, 200, []string{`"name":"a"`, `"value":"3"`, `"name":"b"`}},
		{"of pods by label", ns + "pods/*/waiting", url.Values{"labelSelector": {"name=a"}}, 200, []string{`"items":[{"describedObject":{"kind":"Pod","namespace":"shop","name":"a","apiVersion":"v1"}`}},
		{"of series by label", ns + "pods/*/waiting", url.Values{"metricLabelSelector": {"queue=sms"}}, 200, []string{`"value":"9"`}},
		{"in the older version", "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/a/waiting", nil, 200, []string{`"metricName":"waiting"`, `"value":"3"`}},
		{"the rate of a counter", ns + "pods/a/orders_per_second", nil, 200, []string{`"value":"2"`}},
		{"of the namespace", ns + "metrics/waiting", nil, 200, []string{`"kind":"Namespace"`, `"value":"16500m"`}},
		{"a query for a Service", ns + "services/web/backlog", nil, 200, []string{`"kind":"Service"`, `"value":"16500m"`}},
		{"a query without the object's label speaks for one", ns + "deployments.apps/web/total", nil, 200, []string{`"kind":"Deployment"`, `"value":"16500m"`}},
		{"but not for all", ns + "deployments.apps/*/total", nil, 404, []string{"label deployment"}},
		{"an external metric is its series", ext + "shop/waiting", url.Values{"labelSelector": {"queue=mail"}}, 200, []string{`"metricLabels":{"namespace":"shop","pod":"a","queue":"mail"}`, `"value":"4500m"`}},
		{"an external query", ext + "shop/total", nil, 200, []string{`"metricName":"total"`, `"value":"16500m"`}},
		{"a query of kube-system sees all", ext + "kube-system/u", nil, 200, []string{`"value":"116500m"`}},
		{"nothing there", ext + "shop/nothing", nil, 404, []string{`"kind":"Status"`, "no series answers nothing{namespace"}},
		{"a counter asked for as it is", ext + "shop/orders_total", nil, 400, []string{"ask for orders_per_second"}},
		{"an unknown resource", ns + "toasters/a/waiting", nil, 400, []string{"metrics of toasters are not served; those of cronjobs.batch, "}},
		{"a wrong selector", ns + "pods/*/waiting", url.Values{"labelSelector": {"a in"}}, 400, []string{"labelSelector: "}},
		{"a wrong path", ns + "pods", nil, 400, []string{"RESOURCE/NAME/METRIC"}},
		{"what there is", "/apis/external.metrics.k8s.io/v1beta1", nil, 200, []string{`"kind":"APIResourceList"`, `"name":"backlog"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			gv := customv1beta2.SchemeGroupVersion
			for _, v := range Versions() {
				if strings.HasPrefix(c.path, "/apis/"+v.String()) {
					gv = v
				}
			}
			w := httptest.NewRecorder()
			s.Handler(gv).ServeHTTP(w, httptest.NewRequest("GET", c.path+"?"+c.query.Encode(), nil))
			if w.Code != c.code {
				t.Errorf("answers %d, want %d: %s", w.Code, c.code, w.Body)
			}
			for _, part := range c.has {
				if !strings.Contains(w.Body.String(), part) {
					t.Errorf("no %s in %s", part, w.Body)
				}
			}
			into := map[string]any{"custom.metrics.k8s.io/v1beta2": &customv1beta2.MetricValueList{}, "custom.metrics.k8s.io/v1beta1": &customv1beta1.MetricValueList{}, "external.metrics.k8s.io/v1beta1": &externalv1beta1.ExternalMetricValueList{}}
			if err := json.Unmarshal(w.Body.Bytes(), into[gv.String()]); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestASumOfLessThanAllIsNoAnswer(t *testing.T) {
	s := source(t, nil)
	full := s.Query
	s.Query = func(ctx context.Context, namespace, expr string, at time.Time) ([]Value, []string, error) {
		v, _, err := full(ctx, namespace, expr, at)
		return v, []string{"partial answer: no recent samples from n2"}, err
	}
	for path, code := range map[string]int{
		"custom.metrics.k8s.io/v1beta2/namespaces/shop/metrics/waiting":    503,
		"custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/waiting":     200, // the pods that have values
		"external.metrics.k8s.io/v1beta1/namespaces/shop/waiting":          503,
		"external.metrics.k8s.io/v1beta1/namespaces/shop/nothing/of/these": 400,
	} {
		gv := customv1beta2.SchemeGroupVersion
		if strings.HasPrefix(path, externalv1beta1.GroupName) {
			gv = externalv1beta1.SchemeGroupVersion
		}
		w := httptest.NewRecorder()
		s.Handler(gv).ServeHTTP(w, httptest.NewRequest("GET", "/apis/"+path, nil))
		if w.Code != code || code == 503 && !strings.Contains(w.Body.String(), "from n2") {
			t.Errorf("%s: %d, want %d: %s", path, w.Code, code, w.Body)
		}
	}
}

func TestNothingIsToldApartFromAFailure(t *testing.T) {
	s := source(t, map[string]string{"shop/nan": `0 * (waiting / 0) / 0`, "shop/broken": `sum(`})
	if _, _, err := s.Values(t.Context(), Want{Namespace: "shop", Metric: "nan"}, time.Now()); !errors.Is(err, ErrNone) {
		t.Error("not a number:", err)
	}
	if _, _, err := s.Values(t.Context(), Want{Namespace: "shop", Metric: "broken"}, time.Now()); err == nil || errors.Is(err, ErrNone) {
		t.Error("a broken query:", err)
	}
}

func TestAQueryIsAskedWithTheRightsOfItsNamespace(t *testing.T) {
	s := source(t, map[string]string{"shop/spy": `sum(waiting{namespace="other"})`, "kube-system/all": `sum(waiting)`})
	asked := map[string]string{}
	full := s.Query
	s.Query = func(ctx context.Context, namespace, expr string, at time.Time) ([]Value, []string, error) {
		asked[expr] = namespace
		return full(ctx, namespace, expr, at)
	}
	if v, _, err := s.Values(t.Context(), Want{Namespace: "shop", Metric: "spy"}, time.Now()); !errors.Is(err, ErrNone) {
		t.Error("a query saw another namespace:", v, err)
	}
	for _, w := range []Want{{Namespace: "kube-system", Metric: "all"}, {Namespace: "shop", Metric: "waiting"}} {
		if _, _, err := s.Values(t.Context(), w, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := s.Values(t.Context(), Want{Metric: "load1", By: "node"}, time.Now()); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	want := map[string]string{`sum(waiting{namespace="other"})`: "shop", `sum(waiting)`: "", `waiting{namespace="shop"}`: "shop", `sum by (node) (load1{node=~".+"})`: ""}
	if !maps.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
}

func TestQuantitiesAreWrittenAsKubernetesDoes(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 12: "12", 1.5: "1500m", -0.25: "-250m", 1e30: "9223372036854776", 0.0004: "0"} {
		q := Quantity(v)
		if got := q.String(); got != want {
			t.Errorf("%g is %s, want %s", v, got, want)
		}
	}
}
