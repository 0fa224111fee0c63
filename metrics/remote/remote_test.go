package remote_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"perch/metrics/family"
	"perch/metrics/promapi"
	"perch/metrics/remote"
	"perch/metrics/store"
)

var quiet = slog.New(slog.DiscardHandler)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	cfg := store.Default()
	cfg.Dir = filepath.Join(t.TempDir(), "metrics")
	s, err := store.New(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// receiver is another perch: its door for remote write over its own store.
type receiver struct {
	*httptest.Server
	api     *promapi.API
	book    *family.Book
	fail    atomic.Bool // answers 503
	refused atomic.Int32
	kinds   atomic.Value
	headed  atomic.Value
}

func openReceiver(t *testing.T) *receiver {
	t.Helper()
	book, err := family.NewBook(family.DefaultLimits(), nil)
	if err != nil {
		t.Fatal(err)
	}
	api, err := promapi.New(promapi.Default(), promapi.Parts{Store: openStore(t), Families: book}, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{api: api, book: book}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.fail.Load() {
			_, _ = io.Copy(io.Discard, req.Body)
			http.Error(w, "away", http.StatusServiceUnavailable)
			r.refused.Add(1)
			return
		}
		r.kinds.Store(req.Header.Get("Content-Type"))
		r.headed.Store(req.Header.Get("X-Scope-OrgID"))
		api.ServeHTTP(w, req.WithContext(promapi.WithAccess(req.Context(), promapi.Everything())))
	}))
	t.Cleanup(r.Close)
	return r
}

// wants waits until a query of the receiver has one value.
func (r *receiver) wants(t *testing.T, expr string, want func(promql.Sample) bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		v, _, err := r.api.Instant(promapi.WithAccess(t.Context(), promapi.Everything()), expr, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if len(v) == 1 && want(v[0]) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the receiver has %v", expr, v)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// begins waits until what is committed reaches the receiver: sending begins with
// samples that are newer than the moment its goroutine first ran.
func (r *receiver) begins(t *testing.T, from *store.Store) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		number(from, t, 1, "__name__", "begun")
		v, _, err := r.api.Instant(promapi.WithAccess(t.Context(), promapi.Everything()), "begun", time.Now())
		if err != nil || time.Now().After(deadline) {
			t.Fatal("nothing arrives", err)
		}
		if len(v) == 1 {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

func is(f float64) func(promql.Sample) bool {
	return func(s promql.Sample) bool { return s.F == f }
}

func number(s *store.Store, t *testing.T, v float64, pairs ...string) {
	t.Helper()
	batch := []store.Sample{{Labels: labels.FromStrings(pairs...), T: time.Now().UnixMilli(), V: v}}
	if done, err := s.Inlet("test").Append(t.Context(), batch); err != nil || done.Stored != 1 {
		t.Fatal(done, err)
	}
}

func nativeHistogram(s *store.Store, t *testing.T) *histogram.Histogram {
	t.Helper()
	h := tsdbutil.GenerateTestHistogram(3)
	app := s.Appender(t.Context())
	if _, err := app.AppendHistogram(0, labels.FromStrings("__name__", "latency", "namespace", "shop"), time.Now().UnixMilli(), h, nil); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestSamplesReachReceiversOfBothVersions(t *testing.T) {
	for version, config := range map[string]string{"v1": "", "v2": "  protobuf_message: io.prometheus.write.v2.Request\n"} {
		t.Run(version, func(t *testing.T) {
			from, to := openStore(t), openReceiver(t)
			s := remote.New(from, func() []family.Told { return nil }, quiet, prometheus.NewRegistry())
			from.OnCommit(s)
			defer s.Close()
			if err := s.Apply("global:\n  external_labels: {cluster: barn}\nremote_write:\n- url: " + to.URL + "/api/v1/write\n  send_native_histograms: true\n" +
				"  queue_config: {batch_send_deadline: 50ms}\n  headers: {X-Scope-OrgID: farm}\n  write_relabel_configs:\n  - {source_labels: [__name__], regex: secret, action: drop}\n" + config); err != nil {
				t.Fatal(err)
			}
			to.begins(t, from)
			number(from, t, 1, "__name__", "secret")
			number(from, t, 7, "__name__", "orders", "namespace", "shop")
			to.wants(t, `orders{cluster="barn",namespace="shop"}`, is(7))
			h := nativeHistogram(from, t)
			to.wants(t, `histogram_count(latency{cluster="barn"})`, is(float64(h.Count)))
			v, _, err := to.api.Instant(promapi.WithAccess(t.Context(), promapi.Everything()), "secret", time.Now())
			if err != nil || len(v) != 0 {
				t.Errorf("relabelling let through %v, %v", v, err)
			}
			if got := to.headed.Load(); got != "farm" {
				t.Errorf("header is %q", got)
			}
			if kind := to.kinds.Load().(string); strings.Contains(kind, "v2") != (version == "v2") {
				t.Errorf("sent as %q", kind)
			}
		})
	}
}

func TestWhatIsCommittedWhileAReceiverIsAwayArrivesLater(t *testing.T) {
	from, to, other := openStore(t), openReceiver(t), openReceiver(t)
	s := remote.New(from, func() []family.Told { return nil }, quiet, prometheus.NewRegistry())
	from.OnCommit(s)
	defer s.Close()
	if err := s.Apply("remote_write:\n- url: " + to.URL + "/api/v1/write\n  queue_config: {max_backoff: 50ms, batch_send_deadline: 50ms}\n- url: " + other.URL + "/api/v1/write\n  queue_config: {batch_send_deadline: 50ms}\n"); err != nil {
		t.Fatal(err)
	}
	to.begins(t, from)
	other.begins(t, from)
	to.fail.Store(true)
	for i := range 50 {
		number(from, t, float64(i), "__name__", "n", "i", string(rune('A'+i)))
	}
	other.wants(t, "count(n)", is(50)) // one that is away does not hold up the other
	to.fail.Store(false)
	to.wants(t, "count(n)", is(50))
}

func TestARefusedConfigurationLeavesTheOneBefore(t *testing.T) {
	from, to := openStore(t), openReceiver(t)
	s := remote.New(from, func() []family.Told { return nil }, quiet, prometheus.NewRegistry())
	from.OnCommit(s)
	defer s.Close()
	good := "remote_write:\n- url: " + to.URL + "/api/v1/write\n  queue_config: {batch_send_deadline: 50ms}\n"
	if err := s.Apply(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"another section":   {"scrape_configs: []\n", "only global and remote_write"},
		"no url":            {"remote_write:\n- name: x\n", "url for remote_write is empty"},
		"a name twice":      {good + "  name: a\n- url: http://127.0.0.1:1/x\n  name: a\n", `remote_write[1]: the name "a" is taken`},
		"a misspelt field":  {"remote_write:\n- ulr: http://127.0.0.1:1\n", "line 2"},
		"a missing file":    {good + "- url: https://127.0.0.1:1/x\n  tls_config: {ca_file: /does/not/exist}\n", "remote_write[1] (https://127.0.0.1:1/x)"},
		"an unknown format": {good + "  protobuf_message: v9\n", "unknown"},
		"too many":          {"remote_write:\n" + strings.Repeat("- url: http://127.0.0.1:1/x\n", 17), "17 targets, 16 are allowed"},
		"the same twice":    {good + strings.TrimPrefix(good, "remote_write:\n"), "is there twice"},
	} {
		if err := s.Apply(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
	to.begins(t, from)
	number(from, t, 3, "__name__", "still")
	to.wants(t, "still", is(3))
	if err := s.Apply(""); err != nil {
		t.Error(err)
	}
}

func TestFamiliesAreToldToReceiversOfVersionOneAndAgainAfterAnOutage(t *testing.T) {
	from := openStore(t)
	families := []family.Told{{Source: family.Source{Namespace: "red", Job: "a"}, Families: []family.Family{{Name: "x_total", Type: "counter", Help: "X."}, {Name: "y", Type: "gauge", Unit: "bytes"}}},
		{Source: family.Source{Namespace: "blue"}, Families: []family.Family{{Name: "x_total", Type: "counter", Help: "X."}, {Name: "z", Type: "gaugehistogram"}}}}
	s := remote.New(from, func() []family.Told { return families }, quiet, prometheus.NewRegistry())
	t.Cleanup(func() { _ = s.Close() })
	one, two, off := openReceiver(t), openReceiver(t), openReceiver(t)
	one.fail.Store(true)
	text := "remote_write:\n- url: " + one.URL + "/api/v1/write\n  headers: {X-Scope-OrgID: t1}\n  metadata_config: {send_interval: 1s, max_samples_per_send: 2}\n" +
		"- url: " + two.URL + "/api/v1/write\n  protobuf_message: io.prometheus.write.v2.Request\n  metadata_config: {send_interval: 1s}\n" +
		"- url: " + off.URL + "/api/v1/write\n  metadata_config: {send: false}\n"
	if err := s.Apply(text); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	all := func(string) bool { return true }
	wait := func(what string, good func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !good(); <-time.After(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not in time: ", what)
			}
		}
	}
	wait("a failure", func() bool { return one.refused.Load() > 0 })
	one.fail.Store(false)
	var got []family.Told
	wait("three families", func() bool {
		got = one.book.List(time.Now(), "", all)
		return len(got) == 1 && len(got[0].Families) == 3
	})
	if got[0].Families[0] != (family.Family{Name: "x_total", Type: "counter", Help: "X."}) || got[0].Families[2].Type != "gaugehistogram" || one.headed.Load() != "t1" {
		t.Errorf("told %+v with header %v", got, one.headed.Load())
	}
	for about, r := range map[string]*receiver{"version 2": two, "switched off": off} {
		if got := r.book.List(time.Now(), "", all); len(got) > 0 {
			t.Errorf("%s: told %v", about, got)
		}
	}
}
