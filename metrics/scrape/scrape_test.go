package scrape

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/metrics/family"
	"perch/metrics/store"
)

func newStore(t *testing.T) *store.Store {
	cfg := store.Default()
	cfg.Dir = t.TempDir()
	s, err := store.New(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// latest is the newest value per label set of a name, and how many samples.
func latest(t *testing.T, s *store.Store, name string) (map[string]float64, int) {
	t.Helper()
	q, err := s.Querier(0, time.Now().UnixMilli()+1000)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name))
	out, n := map[string]float64{}, 0
	for set.Next() {
		for it := set.At().Iterator(nil); it.Next() != 0; n++ {
			_, v := it.At()
			out[set.At().Labels().String()] = v
		}
	}
	return out, n
}

func TestAnnotatedPodsAndOwnPartsAreScrapedAtOnce(t *testing.T) {
	s := newStore(t)
	var looks atomic.Int64
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		looks.Add(1)
		if r.URL.Path == "/big" {
			for i := range 100 {
				fmt.Fprintf(w, "big{i=\"%d\"} 1\n", i)
			}
			return
		}
		_, _ = io.WriteString(w, "# HELP requests_total Requests.\n# TYPE requests_total counter\nrequests_total{pod=\"said-by-app\"} 7\n")
	}))
	defer app.Close()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listen, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	agent := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# TYPE agent_up gauge\nagent_up 1\nseldom_read 1\nagent_bucket{le=\"2.0\"} 1\nagent_bucket{le=\"5.0\"} 1\nother_total 1\n")
	})}
	go func() { _ = agent.Serve(listen) }()
	defer agent.Close()

	host, port, _ := net.SplitHostPort(strings.TrimPrefix(app.URL, "http://"))
	pod := func(name, path string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name, Labels: map[string]string{"app": "web"}, Annotations: map[string]string{
				"prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": path,
			}},
			Spec:   corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: host},
		}
	}
	reg := prometheus.NewRegistry()
	own := prometheus.NewCounter(prometheus.CounterOpts{Name: "own_total", Help: "Own."})
	own.Add(3)
	reg.MustRegister(own)
	cfg := Default()
	cfg.Node, cfg.SampleLimit = "n1", 50
	cfg.Interval, cfg.Timeout = 2*time.Second, 2*time.Second
	cfg.Own = []Own{{Name: "agent", Labels: map[string]string{"job": "perch-agent", "instance": "n1"}, Socket: socket, Keep: "agent_.*|seldom_.*", Drop: `seldom_.*|agent_bucket;2(\.0)?`}}
	other := prometheus.NewRegistry()
	other.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "other"}, func() float64 { return 9 }))
	cfg.Local = []Local{
		{Labels: map[string]string{"job": "perch-telemetry", "instance": "n1"}, Gather: reg},
		{Labels: map[string]string{"job": "other", "instance": "n1", "node": ""}, Gather: other},
		{Labels: map[string]string{"job": "direct", "instance": "n1", "node": ""}, Samples: func(base map[string]string, at time.Time) []Sample {
			return []Sample{{ID: 1, Labels: labels.FromStrings("__name__", "direct", "job", base["job"]), T: at.UnixMilli(), V: 5}}
		}, Families: func() []family.Family { return []family.Family{{Name: "direct", Type: "gauge"}} }},
	}
	l, err := New(cfg, Parts{
		Into: s,
		Inlet: func() func(context.Context, []Sample) error {
			inlet := s.Inlet("local")
			return func(ctx context.Context, b []Sample) error { _, err := inlet.Append(ctx, b); return err }
		},
		Objects: func() ([]*corev1.Pod, []*corev1.Service) {
			waiting := pod("late", "/")
			waiting.Status.PodIP = ""
			return []*corev1.Pod{pod("web-1", "/metrics"), pod("greedy", "/big"), waiting}, nil
		},
	}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	node := `instance="` + host + ":" + port + `", job="red/web", namespace="red", node="n1", `
	want := `{__name__="requests_total", container="c", exported_pod="said-by-app", ` + node + `pod="web-1"}`
	deadline := time.After(2 * time.Minute)
	for {
		requests, n := latest(t, s, "requests_total")
		ups, _ := latest(t, s, "up")
		local, _ := latest(t, s, "own_total")
		others, _ := latest(t, s, "other")
		direct, _ := latest(t, s, "direct")
		greedy := ups[`{__name__="up", container="c", `+node+`pod="greedy"}`]
		_, sawGreedy := ups[`{__name__="up", container="c", `+node+`pod="greedy"}`]
		if ups[`{__name__="up", instance="n1", job="perch-agent", node="n1"}`] == 1 && requests[want] == 7 && n >= 2 && sawGreedy && greedy == 0 &&
			ups[`{__name__="up", container="c", `+node+`pod="web-1"}`] == 1 &&
			others[`{__name__="other", instance="n1", job="other"}`] == 9 &&
			direct[`{__name__="direct", job="direct"}`] == 5 && ups[`{__name__="up", instance="n1", job="direct"}`] == 1 &&
			local[`{__name__="own_total", instance="n1", job="perch-telemetry", node="n1"}`] == 3 {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("%v %d %v %v", requests, n, ups, local)
		case <-time.After(50 * time.Millisecond):
		}
	}
	for _, name := range []string{"seldom_read", "other_total"} {
		if got, _ := latest(t, s, name); len(got) > 0 {
			t.Errorf("what is to be left out is stored: %v", got)
		}
	}
	if buckets, _ := latest(t, s, "agent_bucket"); len(buckets) != 1 {
		t.Errorf("the bucket of 5 alone is kept, got %v", buckets)
	}
	if big, _ := latest(t, s, "big"); len(big) > 0 {
		t.Errorf("a target over its limit stores nothing, got %d", len(big))
	}
	told := map[string]string{}
	for _, from := range l.Families() {
		for _, f := range from.Families {
			told[from.Namespace+" "+from.Job+" "+f.Name] = string(f.Type) + " " + f.Help
		}
	}
	for what, is := range map[string]string{"red red/web requests_total": "counter Requests.", "* perch-agent agent_up": "gauge ", "* perch-telemetry own_total": "counter Own.", "* direct direct": "gauge "} {
		if told[what] != is {
			t.Errorf("family %s is %q, want %q", what, told[what], is)
		}
	}
	listing := func(l Listing) string {
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	all, red, blue := listing(l.List()), listing(l.List().Of([]string{"red"})), listing(l.List().Of([]string{"blue"}))
	for _, part := range []string{`"from":"pod/red/late"`, "no address yet", "sample limit exceeded", `"health":"up"`} {
		if !strings.Contains(all, part) {
			t.Errorf("no %s in %s", part, all)
		}
	}
	if !strings.Contains(red, `"from":"pod/red/late"`) || !strings.Contains(red, `"namespace":"red"`) || strings.Contains(red, "perch-agent") {
		t.Errorf("of namespace red: %s", red)
	}
	if blue != `{"targets":[],"leftOut":[],"objects":[]}` {
		t.Errorf("of namespace blue: %s", blue)
	}
}

func TestALocalRegistryBecomesTheSeriesOfItsText(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "took", Buckets: []float64{1, 2.5}}, []string{"node"})
	h.WithLabelValues("x").Observe(2)
	waited := prometheus.NewSummary(prometheus.SummaryOpts{Name: "took_all", Objectives: map[float64]float64{0.5: 0, 1: 0}})
	waited.Observe(4)
	reg.MustRegister(h, waited)
	s := &local{labels: map[string]string{"job": "j", "node": "n1"}, series: map[string]*localSeries{}}
	families, err := reg.Gather()
	var got []string
	for _, x := range s.samples(families, time.Unix(9, 0), err) {
		if strings.HasPrefix(x.Labels.Get("__name__"), "took") {
			got = append(got, fmt.Sprint(x.Labels, " ", x.V))
		}
	}
	want := `{__name__="took_bucket", exported_node="x", job="j", le="1.0", node="n1"} 0
{__name__="took_bucket", exported_node="x", job="j", le="2.5", node="n1"} 1
{__name__="took_bucket", exported_node="x", job="j", le="+Inf", node="n1"} 1
{__name__="took_sum", exported_node="x", job="j", node="n1"} 2
{__name__="took_count", exported_node="x", job="j", node="n1"} 1
{__name__="took_all", job="j", node="n1", quantile="0.5"} 4
{__name__="took_all", job="j", node="n1", quantile="1.0"} 4
{__name__="took_all_sum", job="j", node="n1"} 4
{__name__="took_all_count", job="j", node="n1"} 1`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	ended := 0
	for _, x := range s.samples(nil, time.Unix(10, 0), nil) {
		if value.IsStaleNaN(x.V) {
			ended++
		}
	}
	if ended != 9 || len(s.series) != 3 {
		t.Errorf("%d series ended, %d left", ended, len(s.series))
	}
}

func TestACounterThatAppearsLateWasZeroWhenItsObjectWasMade(t *testing.T) {
	began := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	for _, c := range []struct {
		what  string
		made  time.Time
		value float64
		want  string
	}{
		{"a crash before the first look is an increase", began.Add(10 * time.Second), 1, "[0@10 1@12]"},
		{"zero needs no other zero", began.Add(10 * time.Second), 0, "[0@12]"},
		{"what is older than this process may be stored already", began.Add(-time.Second), 5, "[5@12]"},
		{"a clock ahead of ours is not believed", began.Add(13 * time.Second), 1, "[1@12]"},
		{"without a beginning there is none", time.Time{}, 1, "[1@12]"},
	} {
		st := newStore(t)
		inlet := st.Inlet("local")
		in := func(ctx context.Context, b []Sample) error { _, err := inlet.Append(ctx, b); return err }
		s := &local{series: map[string]*localSeries{}}
		if err := in(t.Context(), s.samples(nil, began, nil)); err != nil {
			t.Fatal(err)
		}
		for _, after := range []time.Duration{12 * time.Second, 12 * time.Second} { // the second time it is known
			reg := prometheus.NewRegistry()
			reg.MustRegister(constant{c.made, c.value})
			families, err := reg.Gather()
			if err := in(t.Context(), s.samples(families, began.Add(after), err)); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint(samplesOf(t, st, "restarts_total", began)); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// constant is one counter that was zero once.
type constant struct {
	made  time.Time
	value float64
}

func (constant) Describe(chan<- *prometheus.Desc) {}

func (c constant) Collect(ch chan<- prometheus.Metric) {
	d := prometheus.NewDesc("restarts_total", "", nil, nil)
	if c.made.IsZero() {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, c.value)
		return
	}
	ch <- prometheus.MustNewConstMetricWithCreatedTimestamp(d, prometheus.CounterValue, c.value, c.made)
}

// samplesOf are a series' samples as value@seconds.
func samplesOf(t *testing.T, s *store.Store, name string, began time.Time) (out []string) {
	t.Helper()
	q, err := s.Querier(0, time.Now().UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name))
	for set.Next() {
		for it := set.At().Iterator(nil); it.Next() != chunkenc.ValNone; {
			at, v := it.At()
			out = append(out, fmt.Sprintf("%v@%v", v, (at-began.UnixMilli())/1000))
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
