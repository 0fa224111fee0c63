package rule

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"

	"perch/alerts/route"
)

// TestMain lets this binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("RULE_VICTIM"); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

// pendingFor is how long Waiting has to be true.
const pendingFor = 15 * time.Second

// life are rules, router and store on a directory, as a process has them.
type life struct {
	rules  *Rules
	router *route.Router
	end    func() error
}

func begin(dir, hook string) (*life, error) {
	page, err := url.Parse("https://perch.example/alertmanager")
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	db, err := tsdb.Open(filepath.Join(dir, "metrics"), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		return nil, err
	}
	router, err := route.New(route.Config{Dir: filepath.Join(dir, "alerts"), ExternalURL: page}, log, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	if err := router.Apply("route: {receiver: shop, group_by: [alertname]}\nreceivers: [{name: shop, webhook_configs: [{url: " + hook + "}]}]\n"); err != nil {
		return nil, err
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1000, Timeout: 10 * time.Second, Parser: parser.NewParser(parser.Options{})})
	text := fmt.Sprintf("groups: [{name: g, rules: [{alert: Steady, expr: vector(1)}, {alert: Slow, expr: vector(1), for: 1s}, {alert: Waiting, expr: vector(1), for: %s}]}]", pendingFor)
	rs := New(Config{Interval: 200 * time.Millisecond, ExternalURL: page},
		Data{Query: rules.EngineQueryFunc(engine, db), Queryable: db, Append: db, Refresh: func(context.Context) error { return nil },
			Within: func(ctx context.Context, _ string) context.Context { return ctx }},
		func() []Source { return []Source{{Name: "f", Text: text}} },
		handTo(router), log, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- rs.Run(ctx) }()
	go func() { ended <- router.Run(ctx) }()
	return &life{rs, router, func() error {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				return err
			}
		}
		return db.Close()
	}}, nil
}

// now is each alert of the rules, "firing" or "pending" and since when.
func (l *life) now() map[string]*rules.Alert {
	out := map[string]*rules.Alert{}
	for _, r := range l.rules.manager.AlertingRules() {
		for _, a := range r.ActiveAlerts() {
			out[r.Name()] = a
		}
	}
	return out
}

// victim says since when its alerts are active, when they are as the test wants them,
// and goes on until it is killed.
func victim(dir string) {
	l, err := begin(dir, os.Getenv("RULE_HOOK"))
	if err != nil {
		panic(err)
	}
	for ; ; <-time.After(50 * time.Millisecond) {
		a := l.now()
		if a["Steady"] != nil && a["Slow"] != nil && a["Waiting"] != nil && a["Slow"].State == rules.StateFiring && a["Waiting"].State == rules.StatePending && time.Since(a["Waiting"].ActiveAt) > 4*time.Second {
			fmt.Println(a["Steady"].ActiveAt.Unix(), a["Slow"].ActiveAt.Unix(), a["Waiting"].ActiveAt.Unix())
			select {}
		}
	}
}

func TestAKillEndsNoAlertAndMovesNoBeginning(t *testing.T) {
	var mu sync.Mutex
	told := map[string]bool{} // "firing Steady"
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var h webhook
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, a := range h.Alerts {
			told[a.Status+" "+a.Labels["alertname"]] = true
		}
	}))
	defer hook.Close()
	was := func(what string) bool {
		mu.Lock()
		defer mu.Unlock()
		return told[what]
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RULE_VICTIM="+dir, "RULE_HOOK="+hook.URL)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if err != nil {
		t.Fatal(err)
	}
	var steady, slow, waiting int64
	if _, err := fmt.Sscan(line, &steady, &slow, &waiting); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	restarted := time.Now()
	l, err := begin(dir, hook.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.end(); err != nil {
			t.Error(err)
		}
	}()
	until := func(about string, good func(map[string]*rules.Alert) bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !good(l.now()); <-time.After(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s, after two minutes: %+v", about, l.now())
			}
		}
	}
	since := func(name string, second int64) {
		t.Helper()
		until(fmt.Sprintf("%s fires since %d", name, second), func(a map[string]*rules.Alert) bool {
			return a[name] != nil && a[name].State == rules.StateFiring && a[name].ActiveAt.Unix() == second
		})
	}
	since("Steady", steady)
	since("Slow", slow)
	// What Waiting had waited counts; the time without an evaluation does not.
	until("Waiting waits on", func(a map[string]*rules.Alert) bool {
		return a["Waiting"] != nil && a["Waiting"].ActiveAt.Before(restarted.Add(-2*time.Second)) && a["Waiting"].ActiveAt.Unix() >= waiting
	})
	until("Waiting fires", func(a map[string]*rules.Alert) bool { return a["Waiting"].State == rules.StateFiring })
	if a := l.now()["Waiting"]; a.FiredAt.Sub(a.ActiveAt) < pendingFor {
		t.Errorf("active at %s, fired at %s", a.ActiveAt, a.FiredAt)
	}
	until("Waiting is told", func(map[string]*rules.Alert) bool { return was("firing Waiting") })
	for _, name := range []string{"Steady", "Slow", "Waiting"} {
		if !was("firing "+name) || was("resolved "+name) {
			t.Errorf("told of %s: %v", name, told)
		}
	}
	for _, a := range l.router.Active() {
		if name := a.Labels["alertname"]; name == "Steady" && a.Starts.Unix() > steady+1 || strings.Contains("Steady Slow", name) && a.Starts.After(restarted) {
			t.Errorf("the router has %s since %s", name, a.Starts)
		}
	}
}
