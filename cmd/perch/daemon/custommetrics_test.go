package daemon

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"perch/controlplane/autoscale"
	"perch/metrics/custom"
	"perch/metrics/promapi"
)

func TestAMetricIsFoundByTheNameThatItsObjectGivesIt(t *testing.T) {
	object := func(namespace, name, metric string) any {
		spec := map[string]any{"query": namespace + " " + name}
		if metric != "" {
			spec["metric"] = metric
		}
		return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec}}
	}
	objects := []any{
		object("shop", "queue-length", "queue_length"), object("bank", "queue-length", "queue_length"),
		object("shop", "orders", ""), object("shop", "b", "twice"), object("shop", "a", "twice"),
	}
	for _, c := range []struct{ namespace, metric, want string }{
		{"shop", "queue_length", "shop queue-length"},
		{"bank", "queue_length", "bank queue-length"},
		{"shop", "queue-length", ""}, // it has another name
		{"shop", "orders", "shop orders"},
		{"bank", "orders", ""},
		{"shop", "twice", "shop a"},
	} {
		got, found := storedQuery(objects, c.namespace, c.metric)
		if got != c.want || found != (c.want != "") {
			t.Errorf("%s of %s is %q, want %q", c.metric, c.namespace, got, c.want)
		}
	}
}

func TestAnswersOfTheTelemetryRole(t *testing.T) {
	at := time.Unix(1500, 0)
	for name, c := range map[string]struct {
		text    string
		want    []sample
		missing []string
		fails   bool
	}{
		"series": {text: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1500,"2.5"]}]}}`,
			want: []sample{{map[string]string{"pod": "a"}, at, 2.5}}},
		"a scalar is one sample": {text: `{"status":"success","data":{"resultType":"scalar","result":[1500,"7"]}}`, want: []sample{{map[string]string{}, at, 7}}},
		"nothing":                {text: `{"status":"success","data":{"resultType":"vector","result":[]}}`},
		"a node is missing, and the expression is doubtful": {
			text:    `{"status":"success","warnings":["PromQL warning: bucket label \"le\" is missing","partial answer: no recent samples from n2"],"data":{"resultType":"vector","result":[]}}`,
			missing: []string{"partial answer: no recent samples from n2"}},
		"a refusal":     {text: `{"status":"error","error":"parse error"}`, fails: true},
		"not an answer": {text: `<html>`, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.text)) }))
			defer role.Close()
			got, missing, err := asker{&http.Client{Transport: toServer(role.URL)}}.query(t.Context(), "x", at)
			if (err != nil) != c.fails || !reflect.DeepEqual(got, c.want) || len(missing)+len(c.missing) > 0 && !reflect.DeepEqual(missing, c.missing) {
				t.Errorf("%+v, missing %q, %v", got, missing, err)
			}
		})
	}
}

func TestAnAutoscalersObjectCannotAskForOtherNamespaces(t *testing.T) {
	var query string
	var sees promapi.Access
	role := httptest.NewServer(everything(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, sees = r.FormValue("query"), promapi.AccessOf(r.Context())
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1500,"1"]}]}}`))
	})))
	defer role.Close()
	ask := asker{&http.Client{Transport: toServer(role.URL)}}
	m := customMetrics{custom.Source{
		Query: func(ctx context.Context, namespace, expr string, at time.Time) ([]custom.Value, []string, error) {
			got, missing, err := ask.queryIn(ctx, namespace, expr, at)
			return make([]custom.Value, len(got)), missing, err
		},
		Stored: func(string, string) (string, bool, error) { return "", false, nil },
	}}
	want := autoscale.Metric{Namespace: "shop", Name: "m", Kind: "Pod", Objects: []string{"a"}}
	if _, err := m.forAutoscaler(t.Context(), want, time.Now()); err != nil || query != `sum by (pod) (m{namespace="shop",pod=~"a"})` || !reflect.DeepEqual(sees, promapi.Access{Namespaces: []string{"shop"}}) {
		t.Errorf("%s is asked with %+v, %v", query, sees, err)
	}
	query, want.Kind = "", `pod) (secret_total{namespace="b"}) #`
	if _, err := m.forAutoscaler(t.Context(), want, time.Now()); !errors.Is(err, custom.ErrAsked) || query != "" {
		t.Errorf("%s is asked, %v", query, err)
	}
}

// toServer sends everything to one server.
type toServer string

func (to toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	u, err := url.Parse(string(to))
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = u.Scheme, u.Host
	return http.DefaultTransport.RoundTrip(r)
}
