package rule

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"

	"perch/alerts/route"
)

// webhook is the part of Alertmanager's version 4 body that receivers rely on.
type webhook struct {
	Version, Status string
	Alerts          []struct {
		Status              string
		Labels, Annotations map[string]string
	}
}

func data(t *testing.T) Data {
	t.Helper()
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1000, Timeout: 10 * time.Second, Parser: parser.NewParser(parser.Options{})})
	return Data{Query: rules.EngineQueryFunc(engine, db), Queryable: db, Append: db, Refresh: func(context.Context) error { return nil },
		Within: func(ctx context.Context, _ string) context.Context { return ctx }}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".part", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
}

// handTo gives alerts to a router.
func handTo(r *route.Router) func(context.Context, ...Alert) error {
	return func(ctx context.Context, in ...Alert) error {
		var out []route.Alert
		for _, a := range in {
			out = append(out, route.Alert{Labels: a.Labels, Annotations: a.Annotations, Starts: a.Starts, Ends: a.Ends, Source: a.Source})
		}
		return r.Receive(ctx, out...)
	}
}

func await(t *testing.T, hooks <-chan webhook, what string, ok func(webhook) bool) webhook {
	t.Helper()
	limit := time.After(40 * time.Second)
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

func TestAFiringRuleReachesTheReceiverAndSoDoesItsEnd(t *testing.T) {
	hooks := make(chan webhook, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var h webhook
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil {
			t.Error(err)
		}
		hooks <- h
	}))
	defer receiver.Close()
	page, err := url.Parse("https://perch.example/alertmanager")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r, err := route.New(route.Config{Dir: t.TempDir(), ExternalURL: page}, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(route.Default); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply("route: {receiver: shop, group_by: [alertname]}\nreceivers: [{name: shop, webhook_configs: [{url: " + receiver.URL + "}]}]\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply("route: {receiver: nowhere}"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a configuration with an unknown receiver: %v", err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.yaml"), `groups: [{name: g, rules: [{alert: PodDown, expr: 'label_replace(vector(1), "pod", "web-1", "", "")', annotations: {summary: 'pod {{ $labels.pod }} is down'}}]}]`)
	write(t, filepath.Join(dir, "broken.yaml"), `groups: [{name: g, rules: [{alert: X, expr: 'sum('}]}]`)
	rs := New(Config{Interval: 200 * time.Millisecond, Dir: dir, ExternalURL: page}, data(t), func() []Source { return nil },
		handTo(r), log, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- rs.Run(ctx) }()
	go func() { ended <- r.Run(ctx) }()
	got := await(t, hooks, "PodDown firing", func(h webhook) bool { return h.Alerts[0].Labels["alertname"] == "PodDown" })
	if got.Version != "4" || got.Status != "firing" || got.Alerts[0].Labels["pod"] != "web-1" || got.Alerts[0].Annotations["summary"] != "pod web-1 is down" {
		t.Errorf("webhook: %+v", got)
	}
	if p := rs.Problems(); len(p) != 1 || !strings.Contains(p[0].Source, "broken.yaml") || !strings.Contains(p[0].Error, "1:5") || p[0].Group != "g" || p[0].Rule != "X" || p[0].Position == "" {
		t.Errorf("problems: %+v", p)
	}
	write(t, filepath.Join(dir, "good.yaml"), `groups: [{name: g, rules: [{alert: PodDown, expr: 'label_replace(vector(1) > 2, "pod", "web-1", "", "")'}]}]`)
	await(t, hooks, "PodDown resolved", func(h webhook) bool { return h.Status == "resolved" && h.Alerts[0].Labels["alertname"] == "PodDown" })

	answer := httptest.NewRecorder()
	r.Handler("/alertmanager").ServeHTTP(answer, httptest.NewRequest("GET", "/alertmanager/api/v2/alerts", nil))
	if answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), "Watchdog") {
		t.Errorf("API: %d %s", answer.Code, answer.Body)
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestTheSourceOfAnAlertShowsItsExpressionAroundItsBeginning(t *testing.T) {
	page, err := url.Parse("https://perch.example:9443")
	if err != nil {
		t.Fatal(err)
	}
	fired := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	rs := &Rules{cfg: Config{ExternalURL: page}}
	got := rs.told(`up == 0`, []*rules.Alert{{FiredAt: fired, ValidUntil: fired.Add(time.Hour)}})
	if want := "https://perch.example:9443/metrics?expr=up+%3D%3D+0&from=2026-11-22T02%3A45%3A00Z&to=2026-11-22T03%3A10%3A00Z"; got[0].Source != want {
		t.Errorf("%s, want %s", got[0].Source, want)
	}
}

func TestObjectsAreSourcesAndANameCountsOnce(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	text := `groups: [{name: g, rules: [{record: a, expr: '1'}]}]`
	good, bad := parse([]Source{{Name: "PrometheusRule/shop/x", Text: text}, {Name: "PrometheusRule/shop/x", Text: text}, {Name: "PrometheusRule/shop/y", Text: "groups: [{name: 3}, {rules: 4}]"}}, p)
	if len(good) != 1 || len(bad) < 2 {
		t.Errorf("good %v, bad %v", good, bad)
	}
}

func TestAFileThatCannotBeReadIsNamedAndTheOthersAreInForce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "good.yaml"), []byte(`groups: [{name: g, rules: [{record: a, expr: '1'}]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken.yml") // root reads everything but this
	if err := os.Symlink(filepath.Join(dir, "nowhere"), broken); err != nil {
		t.Fatal(err)
	}
	files, err := FromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := parse(files, parser.NewParser(parser.Options{}))
	if len(good) != 1 || len(bad) != 1 || bad[0].Source != broken || !strings.Contains(bad[0].Error, "no such file") {
		t.Errorf("good %v, bad %v", good, bad)
	}
}
