package promapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"perch/metrics/family"
)

func newBook(t testing.TB) *family.Book {
	t.Helper()
	b, err := family.NewBook(family.DefaultLimits(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func post(t testing.TB, api http.Handler, who Access, path, kind, encoding string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", kind)
	if encoding != "" {
		r.Header.Set("Content-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), who)))
	return w
}

func writeV1(t testing.TB, api http.Handler, who Access, req prompb.WriteRequest) *httptest.ResponseRecorder {
	t.Helper()
	raw, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return post(t, api, who, "/api/v1/write", "application/x-protobuf", "snappy", snappy.Encode(nil, raw))
}

func writeV2(t testing.TB, api http.Handler, who Access, req writev2.Request) *httptest.ResponseRecorder {
	t.Helper()
	raw, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return post(t, api, who, "/api/v1/write", "application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", snappy.Encode(nil, raw))
}

func writeOTLP(t testing.TB, api http.Handler, who Access, md pmetric.Metrics) *httptest.ResponseRecorder {
	t.Helper()
	raw, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	return post(t, api, who, "/api/v1/otlp/v1/metrics", "application/x-protobuf", "", raw)
}

func seriesV1(name, namespace string, samples ...prompb.Sample) prompb.TimeSeries {
	s := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: name}}, Samples: samples}
	if namespace != "" {
		s.Labels = append(s.Labels, prompb.Label{Name: "namespace", Value: namespace})
	}
	return s
}

// ask is what an instant query finds, as text.
func ask(t testing.TB, api *API, expr string, when time.Time) (out []string) {
	t.Helper()
	v, _, err := api.Instant(WithAccess(t.Context(), Everything()), expr, when)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range v {
		out = append(out, fmt.Sprintf("%s %g", s.Metric, s.F))
	}
	slices.Sort(out)
	return out
}

func ago(d time.Duration) int64 { return at.Add(-d).UnixMilli() }

func TestRemoteWriteTakesWhatIsLateInsideTheWindowAndLosesNothingBesideWhatIsNot(t *testing.T) {
	s := func(v float64, back time.Duration) prompb.Sample {
		return prompb.Sample{Value: v, Timestamp: ago(back)}
	}
	late := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		seriesV1("a", "red", s(1, 0)), seriesV1("b", "red", s(2, 3*time.Hour)), seriesV1("c", "red", s(3, 40*time.Minute)),
		seriesV1("use", "red", s(9, 4*time.Hour), s(7, 50*time.Minute)), seriesV1("z", "red", s(5, 0)),
	}}
	t.Run("version 1", func(t *testing.T) {
		reg := prometheus.NewRegistry()
		_, st := newAPI(t, Parts{})
		api, err := New(Default(), Parts{Store: st}, slog.New(slog.DiscardHandler), reg)
		if err != nil {
			t.Fatal(err)
		}
		w := writeV1(t, api, Everything(), late)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "2 samples were not stored, all others were: too_old 2") || !strings.Contains(w.Body.String(), `__name__="b"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if got := count(t, reg, "perch_promapi_written_samples_refused_total"); got != 2 {
			t.Errorf("%g were counted, want 2", got)
		}
		arrived(t, api)
		if w := writeV1(t, api, Everything(), prompb.WriteRequest{Timeseries: []prompb.TimeSeries{seriesV1("d", "red", s(1, 60*time.Minute))}}); w.Code != http.StatusNoContent {
			t.Errorf("inside the window: %d %s", w.Code, w.Body)
		}
	})
	t.Run("version 2", func(t *testing.T) {
		api, _ := newAPI(t, Parts{})
		var req writev2.Request
		table := writev2.NewSymbolTable()
		for _, x := range late.Timeseries {
			var l []string
			for _, p := range x.Labels {
				l = append(l, p.Name, p.Value)
			}
			one := writev2.TimeSeries{LabelsRefs: table.SymbolizeLabels(labels.FromStrings(l...), nil)}
			for _, v := range x.Samples {
				one.Samples = append(one.Samples, writev2.Sample{Value: v.Value, Timestamp: v.Timestamp})
			}
			req.Timeseries = append(req.Timeseries, one)
		}
		req.Symbols = table.Symbols()
		w := writeV2(t, api, Everything(), req)
		if w.Code != http.StatusBadRequest || w.Header().Get("X-Prometheus-Remote-Write-Samples-Written") != "4" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		arrived(t, api)
	})
}

func arrived(t *testing.T, api *API) {
	t.Helper()
	for expr, want := range map[string]string{"a": "1", "b": "", "c @ " + fmt.Sprint(ago(40*time.Minute)/1000): "3", "z": "5",
		fmt.Sprintf(`use{namespace="red",pod=""} @ %d`, ago(50*time.Minute)/1000): "7"} {
		got := ask(t, api, expr, at)
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.HasSuffix(got[0], " "+want)) {
			t.Errorf("%s is %v, want %s", expr, got, want)
		}
	}
}

// count adds up a counter.
func count(t *testing.T, reg prometheus.Gatherer, name string) (n float64) {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestMetadataOfAllWaysIn(t *testing.T) {
	book := newBook(t)
	api, _ := newAPI(t, Parts{Families: book})
	book.Learn(time.Now(), family.Told{Source: family.Source{Namespace: family.Everyone, Job: "kube-state-metrics"}, Families: []family.Family{{Name: "kube_pod_info", Type: "gauge", Help: "About a pod."}}})
	red := Access{Write: true, Into: "red"}
	if w := writeV1(t, api, red, prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "v1_total", Help: "One.", Unit: "seconds"}}}); w.Code != http.StatusNoContent {
		t.Error(w.Code, w.Body)
	}
	table := writev2.NewSymbolTable()
	req := writev2.Request{Timeseries: []writev2.TimeSeries{{LabelsRefs: table.SymbolizeLabels(labels.FromStrings("__name__", "v2_bucket", "le", "1", "job", "j", "namespace", "red"), nil),
		Samples:  []writev2.Sample{{Value: 1, Timestamp: at.UnixMilli()}},
		Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, HelpRef: table.Symbolize("Two.")}}}}
	req.Symbols = table.Symbols()
	if w := writeV2(t, api, Everything(), req); w.Code != http.StatusNoContent {
		t.Error(w.Code, w.Body)
	}
	md := pmetric.NewMetrics()
	m := gauge(resource(md, "k8s.namespace.name", "blue"), "queue.size", 3)
	m.SetDescription("Three.")
	m.SetUnit("By")
	if w := writeOTLP(t, api, Everything(), md); w.Code != http.StatusOK {
		t.Error(w.Code, w.Body)
	}
	type entry struct{ Type, Help, Unit string }
	all := func(who Access, form ...string) map[string][]entry {
		t.Helper()
		code, body := get(t, api, who, "/api/v1/metadata", form...)
		var got struct {
			Status string
			Data   map[string][]entry
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || got.Status != "success" {
			t.Fatal(code, body, err)
		}
		return got.Data
	}
	want := map[string]entry{"kube_pod_info": {"gauge", "About a pod.", ""}, "v1_total": {"counter", "One.", "seconds"}, "v2": {"histogram", "Two.", ""}, "queue_size_bytes": {"gauge", "Three.", "bytes"}}
	got := all(Everything())
	for name, x := range want {
		if !slices.Equal(got[name], []entry{x}) {
			t.Errorf("%s is %v, want %v", name, got[name], x)
		}
	}
	seen := all(Access{Namespaces: []string{"red"}})
	if len(seen) != 3 || seen["queue_size_bytes"] != nil {
		t.Errorf("red sees %v", seen)
	}
	if got := all(Everything(), "metric", "v2"); len(got) != 1 {
		t.Errorf("by name: %v", got)
	}
	if got := all(Everything(), "limit", "2"); len(got) != 2 {
		t.Errorf("two of them: %v", got)
	}
	if code, body := get(t, api, Everything(), "/api/v1/metadata", "limit", "x"); code != http.StatusBadRequest || !strings.Contains(body, "limit must be a number") {
		t.Error(code, body)
	}
	code, body := get(t, api, Access{Namespaces: []string{"red"}}, "/api/v1/targets/metadata", "match_target", `{job="kube-state-metrics"}`)
	if want := `{"data":[{"target":{"job":"kube-state-metrics"},"metric":"kube_pod_info","type":"gauge","unit":"","help":"About a pod."}],"status":"success"}`; code != 200 || strings.TrimSpace(body) != want {
		t.Errorf("%d %s, want %s", code, body, want)
	}
}

func resource(md pmetric.Metrics, pairs ...string) pmetric.ScopeMetrics {
	r := md.ResourceMetrics().AppendEmpty()
	for i := 0; i < len(pairs); i += 2 {
		r.Resource().Attributes().PutStr(pairs[i], pairs[i+1])
	}
	return r.ScopeMetrics().AppendEmpty()
}

func gauge(s pmetric.ScopeMetrics, name string, v float64) pmetric.Metric {
	m := s.Metrics().AppendEmpty()
	m.SetName(name)
	p := m.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetDoubleValue(v)
	p.SetTimestamp(pcommon.NewTimestampFromTime(at))
	return m
}

func TestOTLPHasTheLabelsThatEverythingElseHas(t *testing.T) {
	for _, tc := range []struct {
		about    string
		who      Access
		resource []string
		want     string
	}{
		{"what the resource says", Everything(), []string{"service.name", "s", "k8s.namespace.name", "blue", "k8s.pod.name", "p", "k8s.container.name", "c", "k8s.node.name", "n"},
			`{__name__="g", container="c", job="s", namespace="blue", node="n", pod="p"} 1`},
		{"nothing is said", Everything(), nil, `{__name__="g"} 1`},
		{"a caller of one namespace says none", Access{Write: true, Into: "red"}, nil, `{__name__="g", namespace="red"} 1`},
		{"a caller of one namespace says its own", Access{Write: true, Into: "red"}, []string{"k8s.namespace.name", "red"}, `{__name__="g", namespace="red"} 1`},
		{"a caller of one namespace says another", Access{Write: true, Into: "red"}, []string{"k8s.namespace.name", "blue"}, `{__name__="g", exported_namespace="blue", namespace="red"} 1`},
	} {
		t.Run(tc.about, func(t *testing.T) {
			api, _ := newAPI(t, Parts{})
			md := pmetric.NewMetrics()
			gauge(resource(md, tc.resource...), "g", 1)
			if w := writeOTLP(t, api, tc.who, md); w.Code != http.StatusOK {
				t.Fatal(w.Code, w.Body)
			}
			if got := ask(t, api, "g", at); !slices.Equal(got, []string{tc.want}) {
				t.Errorf("stored %v, want %s", got, tc.want)
			}
		})
	}
}

func TestACallerOfOneNamespaceWritesIntoNoOther(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	x := prompb.Sample{Value: 1, Timestamp: at.UnixMilli()}
	if w := writeV1(t, api, Access{Write: true, Into: "red"}, prompb.WriteRequest{Timeseries: []prompb.TimeSeries{seriesV1("p", "blue", x), seriesV1("q", "", x), seriesV1("r", "red", x)}}); w.Code != http.StatusNoContent {
		t.Fatal(w.Code, w.Body)
	}
	want := []string{`{__name__="p", exported_namespace="blue", namespace="red"} 1`, `{__name__="q", namespace="red"} 1`, `{__name__="r", namespace="red"} 1`}
	if got := ask(t, api, `{__name__=~"p|q|r"}`, at); !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
}

// What alerts were at a restart is read from these series: a namespace does not say it.
func TestACallerOfOneNamespaceDoesNotSayWhatAlertsAre(t *testing.T) {
	_, st := newAPI(t, Parts{})
	reg := prometheus.NewRegistry()
	api, err := New(Default(), Parts{Store: st}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	red, x := Access{Write: true, Into: "red"}, prompb.Sample{Value: 1, Timestamp: at.UnixMilli()}
	if w := writeV1(t, api, red, prompb.WriteRequest{Timeseries: []prompb.TimeSeries{seriesV1("ALERTS", "red", x), seriesV1("ALERTS_FOR_STATE", "", x), seriesV1("a", "red", x)}}); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "reserved_name 2") {
		t.Error(w.Code, w.Body)
	}
	table := writev2.NewSymbolTable()
	req := writev2.Request{}
	for _, name := range []string{"ALERTS", "b"} {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{LabelsRefs: table.SymbolizeLabels(labels.FromStrings("__name__", name), nil), Samples: []writev2.Sample{{Value: 1, Timestamp: at.UnixMilli()}}})
	}
	req.Symbols = table.Symbols()
	if w := writeV2(t, api, red, req); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "only rules write") {
		t.Error(w.Code, w.Body)
	}
	md := pmetric.NewMetrics()
	s := resource(md)
	gauge(s, "ALERTS", 1)
	gauge(s, "c", 1)
	if w := writeOTLP(t, api, red, md); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "reserved_name 1") {
		t.Error(w.Code, w.Body)
	}
	want := []string{`{__name__="a", namespace="red"} 1`, `{__name__="b", namespace="red"} 1`, `{__name__="c", namespace="red"} 1`}
	if got := ask(t, api, `{__name__=~"ALERTS|ALERTS_FOR_STATE|a|b|c"}`, at); !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	if n := count(t, reg, "perch_promapi_written_samples_refused_total"); n != 4 {
		t.Errorf("%g were counted, want 4", n)
	}
	if w := writeV1(t, api, Everything(), prompb.WriteRequest{Timeseries: []prompb.TimeSeries{seriesV1("ALERTS", "red", x)}}); w.Code != http.StatusNoContent {
		t.Error("who may write everything:", w.Code, w.Body)
	}
}

func TestDeltasOfOTLPAreRefusedByNameAndTheRestIsStored(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	md := pmetric.NewMetrics()
	s := resource(md)
	gauge(s, "g", 4)
	for name, kind := range map[string]pmetric.AggregationTemporality{"deltas": pmetric.AggregationTemporalityDelta, "sums": pmetric.AggregationTemporalityCumulative, "whatever": pmetric.AggregationTemporalityUnspecified} {
		m := s.Metrics().AppendEmpty()
		m.SetName(name)
		sum := m.SetEmptySum()
		sum.SetAggregationTemporality(kind)
		for i := range 2 {
			p := sum.DataPoints().AppendEmpty()
			p.SetTimestamp(pcommon.NewTimestampFromTime(at))
			p.Attributes().PutInt("i", int64(i))
			p.SetIntValue(5)
		}
	}
	s.Metrics().AppendEmpty().SetName("empty")
	gauge(s, "late", 1).Gauge().DataPoints().At(0).SetTimestamp(pcommon.NewTimestampFromTime(at.Add(-3 * time.Hour)))
	w := writeOTLP(t, api, Everything(), md)
	answer := pmetricotlp.NewExportResponse()
	if err := answer.UnmarshalProto(w.Body.Bytes()); err != nil || w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body, err)
	}
	p := answer.PartialSuccess()
	if p.RejectedDataPoints() != 5 || !strings.Contains(p.ErrorMessage(), "deltas") || !strings.Contains(p.ErrorMessage(), "whatever") || !strings.Contains(p.ErrorMessage(), "too_old 1") || strings.Contains(p.ErrorMessage(), "sums") {
		t.Errorf("%d %s", p.RejectedDataPoints(), p.ErrorMessage())
	}
	if got := ask(t, api, `{__name__=~"g|sums|deltas|whatever|late"}`, at); !slices.Equal(got, []string{`{__name__="g"} 4`, `{__name__="sums", i="0"} 5`, `{__name__="sums", i="1"} 5`}) {
		t.Errorf("stored %v", got)
	}
	text := `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"d","sum":{"aggregationTemporality":1,"dataPoints":[{"asDouble":1,"timeUnixNano":"1"}]}}]}]}]}`
	if w := post(t, api, Everything(), "/api/v1/otlp/v1/metrics", "application/json", "", []byte(text)); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"rejectedDataPoints":"1"`) {
		t.Error(w.Code, w.Body)
	}
}

func FuzzFamiliesOfRemoteWrite(f *testing.F) {
	req := prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a", Help: "h"}},
		Timeseries: []prompb.TimeSeries{seriesV1("a", "red", prompb.Sample{Value: 1})}}
	raw, err := req.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	book := newBook(f)
	f.Fuzz(func(_ *testing.T, b []byte) {
		t := &taking{}
		t.messages(snappy.Encode(nil, b))
		t.messages(b)
		t.told(book)
		_ = selectors(b)
		_ = selectors(snappy.Encode(nil, b))
	})
}
