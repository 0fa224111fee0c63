package scrape

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/metrics/store"
	"perch/metrics/target"
)

// apps is a server of applications that behave badly, each at a path of its own.
func apps(t *testing.T) (address string, sent, answers *atomic.Int64) {
	sent, answers = &atomic.Int64{}, &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			if user, word, _ := r.BasicAuth(); user != "u" || word != "pa: ss" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, "good{job=\"its own\",module=%q} 1\nnoise 1\n", r.URL.Query().Get("module"))
		case "/token":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error": "known to few", "error_description": "the few"}`)
		case "/garbage":
			_, _ = io.WriteString(w, "<html>\x00\xff not numbers</html>\n")
		case "/million":
			b := bufio.NewWriter(w)
			for i := range 1_000_000 {
				fmt.Fprintf(b, "m{i=\"%d\"} 1\n", i)
			}
			_ = b.Flush()
		case "/endless": // 2 GB
			answers.Add(1)
			block := []byte(strings.Repeat("x_total 1\n", 1<<16))
			for range 2 << 30 / len(block) {
				n, err := w.Write(block)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		case "/long":
			fmt.Fprintf(w, "long{sql=\"%s\"} 1\n", strings.Repeat("x", 17<<10))
		case "/many":
			for i := range 100 {
				fmt.Fprintf(w, "many{i=\"%d\"} 1\n", i)
			}
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), sent, answers
}

// runLoop scrapes jobs until the test ends.
func runLoop(t *testing.T, s *store.Store, cfg Config, parts Parts, reg prometheus.Registerer) *Loop {
	t.Helper()
	cfg.Node = "n1"
	if cfg.Interval == Default().Interval {
		cfg.Interval, cfg.Timeout = 2*time.Second, 2*time.Second
	}
	parts.Into = s
	l, err := New(cfg, parts, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

func eventually(t *testing.T, limit time.Duration, good func() bool, say func() string) {
	t.Helper()
	for deadline := time.Now().Add(limit); !good(); {
		if time.Now().After(deadline) {
			t.Fatal(say())
		}
		<-time.After(50 * time.Millisecond)
	}
}

func jobOf(name, address, path, settings string) target.Job {
	return target.Job{Name: name, From: "servicemonitor/red/" + name, Settings: target.Settings(settings), Targets: []target.Target{{
		Scheme: "http", Address: address, Path: path, From: "servicemonitor/red/" + name, OfPod: true,
		Labels: map[string]string{"job": name, "instance": address, "namespace": "red", "pod": name, "__param_module": "m"}}}}
}

func TestAServerOfTokensIsNotQuoted(t *testing.T) {
	address, _, _ := apps(t)
	asks := jobOf("asks", address, "/good", fmt.Sprintf("oauth2: {client_id: a, client_secret: b, token_url: 'http://%s/token'}\n", address))
	l := runLoop(t, newStore(t), Default(), Parts{Jobs: func() ([]target.Job, []target.Dropped) { return []target.Job{asks}, nil }}, prometheus.NewRegistry())
	var seen string
	eventually(t, 30*time.Second, func() bool {
		for _, s := range l.Here() {
			seen = s.Error
		}
		return seen != ""
	}, func() string { return "no target has failed" })
	const want = "the server of tokens gives none, with status 400"
	if seen != want {
		t.Errorf("the listing says %q", seen)
	}
	for _, list := range l.TargetsActive() {
		for _, tg := range list {
			if err := tg.LastError(); err == nil || err.Error() != want {
				t.Errorf("the API says %v", err)
			}
		}
	}
}

func TestWhatTargetsSendTooMuchIsCutOffCountedAndNamed(t *testing.T) {
	address, sent, answers := apps(t)
	s := newStore(t)
	reg := prometheus.NewRegistry()
	var mu sync.Mutex
	told := map[string]string{}
	cfg := Default()
	cfg.Interval, cfg.Timeout = 10*time.Second, 10*time.Second // where the machine is busy a million lines take their time
	jobs := []target.Job{
		jobOf("good", address, "/good", "honor_labels: true\nbasic_auth: {username: u, password: 'pa: ss'}\nmetric_relabel_configs: [{source_labels: [__name__], regex: noise, action: drop}]\n"),
		jobOf("garbage", address, "/garbage", ""),
		jobOf("million", address, "/million", "sample_limit: 2000000\n"), // it may not ask for more than the node gives
		jobOf("endless", address, "/endless", ""),
		jobOf("long", address, "/long", "label_value_length_limit: 100000\n"),
		jobOf("few", address, "/many", "sample_limit: 10\n"),
		jobOf("broken", address, "/many", "sample_limit: many\n"),
	}
	l := runLoop(t, s, cfg, Parts{
		Jobs: func() ([]target.Job, []target.Dropped) {
			return jobs, []target.Dropped{{From: "probe/red/x", Reason: "because"}}
		},
		CutOff: func(s Status) { mu.Lock(); told[s.Labels["job"]] = s.CutOff; mu.Unlock() },
	}, reg)
	want := map[string]string{"garbage": cutGarbage, "million": cutSamples, "endless": cutBody, "few": cutSamples, "long": cutLabels}
	eventually(t, 2*time.Minute, func() bool {
		mu.Lock()
		defer mu.Unlock()
		for job, reason := range want {
			if told[job] != reason {
				return false
			}
		}
		got, _ := latest(t, s, "good")
		return got[`{__name__="good", instance="`+address+`", job="its own", module="m", namespace="red", pod="good"}`] == 1
	}, func() string { return fmt.Sprintf("told %v, listing %+v", told, l.List()) })
	have := l.List()
	if n := sent.Load() / max(1, answers.Load()); n > 64<<20 {
		t.Errorf("%d bytes of an answer of 2 GB were taken", n)
	}
	for _, name := range []string{"noise", "m", "x_total", "many", "long"} {
		if got, _ := latest(t, s, name); len(got) > 0 {
			t.Errorf("%d series %s are stored", len(got), name)
		}
	}
	if n := s.Series(); n > 200 {
		t.Errorf("answers that were cut off left %d series", n)
	}
	for _, reason := range []string{cutGarbage, cutSamples, cutBody} {
		if testutil.ToFloat64(l.metrics.cut.WithLabelValues(reason)) == 0 {
			t.Errorf("%s is not counted", reason)
		}
	}
	if testutil.ToFloat64(l.metrics.offender.WithLabelValues("red", "million", "http://"+address+"/million?module=m", cutSamples)) != 1 {
		t.Error("the offender has no series")
	}
	why := fmt.Sprint(have.Objects)
	for _, part := range []string{"{servicemonitor/red/good 1 1 []}", "{probe/red/x 0 0 [because]}", "servicemonitor/red/broken 0 0 [read settings of broken", "sample limit exceeded", "body size limit exceeded"} {
		if !strings.Contains(why, part) {
			t.Errorf("no %q in %s", part, why)
		}
	}
	if pools := l.TargetsActive(); len(pools["good"]) != 1 || len(l.ScrapePools()) < 5 {
		t.Errorf("pools %v", l.ScrapePools())
	}
}

func TestANamespaceOverItsBudgetKeepsWhatItHas(t *testing.T) {
	address, _, _ := apps(t)
	cfg := store.Default()
	cfg.Dir, cfg.NamespaceLimit = t.TempDir(), 40
	s, err := store.New(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	l := runLoop(t, s, Default(), Parts{Jobs: func() ([]target.Job, []target.Dropped) {
		return []target.Job{jobOf("many", address, "/many", "")}, nil
	}}, nil)
	var have []Status
	eventually(t, 2*time.Minute, func() bool {
		have = l.Here()
		_, samples := latest(t, s, "many")
		return len(have) == 1 && have[0].Refused >= 60 && have[0].CutOff == cutSeries && have[0].Health == "up" && samples >= 2*30
	}, func() string { return fmt.Sprintf("%+v", have) })
	if series, _ := latest(t, s, "many"); len(series) < 30 || len(series) > 40 {
		t.Errorf("%d series are stored, the budget is 40", len(series))
	}
}

func TestObjectsMayNotNameTheMachineThatScrapes(t *testing.T) {
	address, _, _ := apps(t)
	s := newStore(t)
	static := jobOf("static", address, "/many", "")
	static.Targets[0].OfPod = false // whatever its labels say
	other := static
	other.Name, other.Targets = "name", []target.Target{static.Targets[0]}
	other.Targets[0].Address = "shop.red.svc:80"
	cfg := Default()
	cfg.Own = []Own{{Name: "own", Address: address, Path: "/many", Labels: map[string]string{"job": "own", "instance": "n1"}}} // perch itself may
	l := runLoop(t, s, cfg, Parts{
		Jobs: func() ([]target.Job, []target.Dropped) { return []target.Job{static, other}, nil },
		Resolve: func(_ context.Context, host string) (string, bool, error) {
			return "169.254.169.254", host == "shop.red.svc", nil
		},
	}, nil)
	eventually(t, 2*time.Minute, func() bool {
		const no = "the machine that scrapes, which objects may not name"
		refused, up := 0, 0
		for _, s := range l.Here() {
			if strings.Contains(s.Error, no) {
				refused++
			} else if s.Pool == "own" && s.Health == "up" {
				up++
			}
		}
		left := l.Dropped()
		return refused == 1 && up == 1 && len(left) == 1 && left[0].From == "servicemonitor/red/static" && strings.Contains(left[0].Reason, address+" is "+no)
	}, func() string { return fmt.Sprintf("%+v, left out %v", l.Here(), l.Dropped()) })
}

// TestObjectsDoNotReachPerchsOwnSockets: neither by an address, nor by a redirect,
// nor by a proxy; what is behind them knows all namespaces.
func TestObjectsDoNotReachPerchsOwnSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	door, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	own := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "secret{path=%q} 1\n", r.URL.Path)
	}), ReadHeaderTimeout: time.Minute}
	go func() { _ = own.Serve(door) }()
	defer own.Close()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://agent.socket/redirected", http.StatusFound)
	}))
	defer app.Close()

	s := newStore(t)
	cfg := Default()
	cfg.Own = []Own{{Name: "agent", Labels: map[string]string{"job": "agent", "instance": "n1"}, Socket: path}}
	l := runLoop(t, s, cfg, Parts{Jobs: func() ([]target.Job, []target.Dropped) {
		return []target.Job{
			jobOf("named", "agent.socket:80", "/named", ""), jobOf("redirected", strings.TrimPrefix(app.URL, "http://"), "/", ""),
			jobOf("proxied", "shop.red.svc:80", "/proxied", "proxy_url: http://agent.socket:80\n"),
		}, nil
	}}, nil)
	eventually(t, 2*time.Minute, func() bool {
		down, up := 0, 0
		for _, row := range l.Here() {
			switch {
			case row.Pool == "agent" && row.Health == "up" && row.URL == "http://agent.socket/metrics":
				up++
			case row.Pool != "agent" && row.Health == "down":
				down++
			}
		}
		return up == 1 && down == 3
	}, func() string { return fmt.Sprintf("%+v", l.Here()) })
	series, _ := latest(t, s, "secret")
	if want := `{__name__="secret", instance="n1", job="agent", node="n1", path="/metrics"}`; len(series) != 1 || series[want] != 1 {
		t.Errorf("stored: %v", series)
	}
}

func TestRowsOfOtherNodesAreTargetsOfPrometheus(t *testing.T) {
	at := time.Now().Truncate(time.Millisecond)
	s := Status{Node: "n2", Pool: "p", URL: "http://10.0.0.1:80/probe?target=x", Labels: map[string]string{"job": "j"}, Health: "down", Last: at, Took: 0.5, Error: "no route"}
	got := s.target()
	if got.URL().String() != s.URL || string(got.Health()) != "down" || got.LastError().Error() != "no route" || !got.LastScrape().Equal(at) || got.LastScrapeDuration() != time.Second/2 {
		t.Errorf("%v %v %v", got.URL(), got.Health(), got.LastError())
	}
}
