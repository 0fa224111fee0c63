package route

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// hook is one webhook with the time it came.
type hook struct {
	At       time.Time `json:"-"`
	Version  string
	Status   string
	Receiver string
	Alerts   []hookAlert
}

type hookAlert struct {
	Status              string
	Labels, Annotations map[string]string
}

func inbox(t testing.TB) (string, <-chan hook) {
	t.Helper()
	hooks := make(chan hook, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		h := hook{At: time.Now()}
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil {
			t.Error(err)
		}
		hooks <- h
	}))
	t.Cleanup(s.Close)
	return s.URL, hooks
}

// open runs a router on a directory until the test or the returned func ends it.
// Without a configuration it is that of before.
func open(t testing.TB, dir, conf string) (*Router, func()) {
	t.Helper()
	return openFor(t, dir, conf, 2*time.Second)
}

// openFor is open with a Config.Grace.
func openFor(t testing.TB, dir, conf string, grace time.Duration) (*Router, func()) {
	t.Helper()
	page, err := url.Parse("https://perch.example/alertmanager")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Dir: dir, ExternalURL: page, Grace: grace}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	begin := r.Restore
	if conf != "" {
		begin = func() error { return r.Apply(conf) }
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return r, stop
}

func firing(name string) Alert {
	return Alert{Labels: map[string]string{"alertname": name}, Starts: time.Now(), Ends: time.Now().Add(time.Hour)}
}

func next(t testing.TB, hooks <-chan hook, what string, ok func(hook) bool) hook {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case h := <-hooks:
			if ok(h) {
				return h
			}
		case <-limit:
			t.Fatalf("no webhook: %s", what)
		}
	}
}

func TestWithoutWrittenWaitsAnAlertItsCompanyAndItsEndAreToldAtOnce(t *testing.T) {
	at, hooks := inbox(t)
	r, _ := open(t, t.TempDir(), "route: {receiver: shop}\nreceivers: [{name: shop, webhook_configs: [{url: "+at+"}]}]\n")
	for i := range 3 { // the second and third join a group that was told already
		began := time.Now()
		if err := r.Receive(t.Context(), firing(fmt.Sprint("A", i))); err != nil {
			t.Fatal(err)
		}
		h := next(t, hooks, "firing", func(h hook) bool { return len(h.Alerts) == i+1 })
		if took := h.At.Sub(began); took > 20*time.Second {
			t.Errorf("alert %d told after %s", i, took)
		}
	}
	began := time.Now()
	over := firing("A1")
	over.Ends = began
	if err := r.Receive(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	h := next(t, hooks, "resolved", func(h hook) bool {
		for _, a := range h.Alerts {
			if a.Status == "resolved" && a.Labels["alertname"] == "A1" {
				return true
			}
		}
		return false
	})
	if took := h.At.Sub(began); took > 20*time.Second {
		t.Errorf("end told after %s", took)
	}
}

func TestWrittenWaitsAreHonoured(t *testing.T) {
	at, hooks := inbox(t)
	r, _ := open(t, t.TempDir(), "route: {receiver: shop, group_wait: 2s, group_interval: 3s}\nreceivers: [{name: shop, webhook_configs: [{url: "+at+"}]}]\n")
	began := time.Now()
	if err := r.Receive(t.Context(), firing("A")); err != nil {
		t.Fatal(err)
	}
	first := next(t, hooks, "first", func(hook) bool { return true })
	if took := first.At.Sub(began); took < 2*time.Second {
		t.Errorf("group_wait of 2s: told after %s", took)
	}
	if err := r.Receive(t.Context(), firing("B")); err != nil {
		t.Fatal(err)
	}
	second := next(t, hooks, "second", func(h hook) bool { return len(h.Alerts) == 2 })
	if took := second.At.Sub(first.At); took < 2900*time.Millisecond {
		t.Errorf("group_interval of 3s: told after %s", took)
	}
}

func TestABrokenConfigurationNamesWhatIsWrongAndTheOneBeforeStays(t *testing.T) {
	at, hooks := inbox(t)
	r, _ := open(t, t.TempDir(), "route: {receiver: shop}\nreceivers: [{name: shop, webhook_configs: [{url: "+at+"}]}]\n")
	for text, want := range map[string]string{
		"route: {receiver: nowhere}": "nowhere",
		"route: {receiver: a, routes: [{matchers: ['a=~\"(\"']}]}\nreceivers: [{name: a}]": "missing closing",
		"route: [":               "line 1",
		"rout: {}":               "field rout not found",
		"receivers: [{name: a}]": "no route",
	} {
		if err := r.Apply(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if err := r.Receive(t.Context(), firing("A")); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "by the configuration before", func(h hook) bool { return h.Receiver == "shop" })
}

func BenchmarkQuietGroups(b *testing.B) {
	at, hooks := inbox(b)
	r, _ := open(b, b.TempDir(), "route: {receiver: shop, group_by: [alertname]}\nreceivers: [{name: shop, webhook_configs: [{url: "+at+"}]}]\n")
	const groups = 200
	for i := range groups {
		if err := r.Receive(b.Context(), firing(fmt.Sprint("A", i))); err != nil {
			b.Fatal(err)
		}
	}
	for range groups {
		<-hooks
	}
	start, began := cpuSeconds(b), time.Now()
	for b.Loop() {
		<-time.After(3 * time.Second)
	}
	flushes := time.Since(began).Seconds() / promptInterval.Seconds() * groups
	b.ReportMetric((cpuSeconds(b)-start)/flushes*1e6, "CPU-µs/flush")
}

func TestWhatIsPostedTakesTheWayOfOthersAndItsEndStaysAGuess(t *testing.T) {
	page, err := url.Parse("https://perch.example/alertmanager")
	if err != nil {
		t.Fatal(err)
	}
	var came []Alert
	var r *Router
	if r, err = New(Config{Dir: t.TempDir(), ExternalURL: page, Outside: func(ctx context.Context, in ...Alert) error {
		came = append(came, in...)
		in[0].Annotations["seen"] = "yes"
		return r.Receive(ctx, in...)
	}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(Default); err != nil {
		t.Fatal(err)
	}
	api := r.Handler("/am")
	for i, body := range []string{`[{"labels":{"alertname":"A"},"generatorURL":"http://b/"}]`,
		fmt.Sprintf(`[{"labels":{"alertname":"A"},"endsAt":%q}]`, time.Now().Add(time.Minute).UTC().Format(time.RFC3339))} {
		if code, text := ask(api, "POST", "/am/api/v2/alerts", body); code != http.StatusOK {
			t.Fatalf("%d %s", code, text)
		}
		if len(came) != i+1 || came[i].Guessed != (i == 0) || came[i].Starts.IsZero() {
			t.Fatalf("came %+v", came)
		}
	}
	if a := r.Active(); len(a) != 1 || a[0].Annotations["seen"] != "yes" || !a[0].Starts.Equal(came[0].Starts) || time.Until(a[0].Ends) > time.Minute {
		t.Errorf("known %+v", a) // what was said counts, not the five minutes guessed before
	}
	if code, text := ask(api, "POST", "/am/api/v2/alerts", `[{"labels":{}}]`); code != http.StatusBadRequest || len(came) != 2 {
		t.Errorf("no alert: %d %s, came %d", code, text, len(came))
	}
	r.stop()
	r.alerts.Close()
}
