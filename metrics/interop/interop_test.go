package interop

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"

	"perch/metrics/family"
	"perch/metrics/promapi"
	"perch/metrics/remote"
	"perch/metrics/store"
)

var quiet = slog.New(slog.DiscardHandler)

// program is one of the servers of make interop-metrics; without it the test
// skips.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "out", "interop", "prometheus", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s is not there: make interop-metrics", name)
	}
	return path
}

// server is a running Prometheus.
type server struct {
	url string
	pid int
}

// start runs a Prometheus with a configuration until the test ends.
func start(t *testing.T, name, config string, flags ...string) server {
	t.Helper()
	return startOn(t, name, t.TempDir(), config, flags...)
}

// startOn is start with its blocks in dir/data.
func startOn(t *testing.T, name, dir, config string, flags ...string) server {
	t.Helper()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := free(t)
	flags = append([]string{"--config.file=" + file, "--web.listen-address=" + address, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--log.level=warn"}, flags...)
	cmd := exec.Command(program(t, name), flags...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // its data is the test's
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	s := server{url: "http://" + address, pid: cmd.Process.Pid}
	eventually(t, "the server is ready", func() bool {
		resp, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return s
}

// free is an address that nobody listens on now.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// perch is a store with its HTTP API.
type perch struct {
	*store.Store
	api *promapi.API
	url string
}

func open(t *testing.T, dir string) perch {
	t.Helper()
	cfg := store.Default()
	cfg.Dir = dir
	cfg.Retention = 10 * 365 * 24 * time.Hour
	s, err := store.New(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	api, err := promapi.New(promapi.Default(), promapi.Parts{Store: s}, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(w, r.WithContext(promapi.WithAccess(r.Context(), promapi.Everything())))
	}))
	t.Cleanup(srv.Close)
	return perch{s, api, srv.URL}
}

// has waits until a query has an answer.
func (p perch) has(t *testing.T, expr string) {
	t.Helper()
	eventually(t, expr+" has an answer", func() bool {
		v, _, err := p.api.Instant(promapi.WithAccess(t.Context(), promapi.Everything()), expr, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return len(v) > 0
	})
}

// application has a counter, a native histogram and exemplars to be scraped.
func application(t *testing.T) (address string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "app_orders_total", Help: "Orders."})
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "app_took_seconds", Help: "Time.", NativeHistogramBucketFactor: 1.1})
	reg.MustRegister(counter, took)
	counter.Add(3)
	for i := range 100 {
		took.(prometheus.ExemplarObserver).ObserveWithExemplar(float64(i)/10, prometheus.Labels{"trace_id": fmt.Sprint(i)})
	}
	srv := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func scrapes(address, more string) string {
	return "global: {scrape_interval: 200ms}\nscrape_configs:\n- job_name: app\n  static_configs: [{targets: [\"" + address + "\"]}]\n" + more
}

func TestDebiansPrometheusWritesToPerch(t *testing.T) {
	to := open(t, t.TempDir())
	start(t, "prometheus-debian", scrapes(application(t), "remote_write:\n- url: "+to.url+"/api/v1/write\n  queue_config: {batch_send_deadline: 100ms}\n"))
	to.has(t, `app_orders_total{job="app"} == 3`)
	to.has(t, `app_took_seconds_count == 100`)
}

func TestThePinnedPrometheusWritesToPerchByBothVersions(t *testing.T) {
	for name, message := range map[string]string{"v1": "prometheus.WriteRequest", "v2": "io.prometheus.write.v2.Request"} {
		t.Run(name, func(t *testing.T) {
			to := open(t, t.TempDir())
			start(t, "prometheus", scrapes(application(t), fmt.Sprintf("  scrape_native_histograms: true\nremote_write:\n- url: %s/api/v1/write\n  protobuf_message: %s\n  send_native_histograms: true\n"+
				"  send_exemplars: true\n  queue_config: {batch_send_deadline: 100ms}\n", to.url, message)), "--enable-feature=exemplar-storage")
			to.has(t, `app_orders_total{job="app"} == 3`)
			to.has(t, `histogram_count(app_took_seconds) == 100`)
			eventually(t, "exemplars are there", func() bool {
				_, body := ask(t, to.url, "/api/v1/query_exemplars", url.Values{"query": {"app_took_seconds"}, "start": {"0"}, "end": {fmt.Sprint(time.Now().Unix() + 60)}})
				return strings.Contains(body, "trace_id")
			})
		})
	}
}

func TestPerchWritesToThePinnedPrometheus(t *testing.T) {
	for name, message := range map[string]string{"v1": "prometheus.WriteRequest", "v2": "io.prometheus.write.v2.Request"} {
		t.Run(name, func(t *testing.T) {
			from := open(t, t.TempDir())
			to := start(t, "prometheus", "", "--web.enable-remote-write-receiver", "--web.remote-write-receiver.accepted-protobuf-messages="+message)
			s := remote.New(from.Store, func() []family.Told { return nil }, quiet, prometheus.NewRegistry())
			from.OnCommit(s)
			defer s.Close()
			if err := s.Apply("remote_write:\n- url: " + to.url + "/api/v1/write\n  protobuf_message: " + message + "\n  queue_config: {batch_send_deadline: 100ms}\n"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a sample arrives", func() bool {
				batch := []store.Sample{{Labels: labels.FromStrings("__name__", "perch_sent", "namespace", "shop"), T: time.Now().UnixMilli(), V: 5}}
				if _, err := from.Inlet("test").Append(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
				_, body := ask(t, to.url, "/api/v1/query", url.Values{"query": {`perch_sent{namespace="shop"}`}})
				return strings.Contains(body, `"5"`)
			})
		})
	}
}

func ask(t *testing.T, base, path string, form url.Values) (int, string) {
	t.Helper()
	resp, err := http.PostForm(base+path, form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
