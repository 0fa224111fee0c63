package rule

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
)

func TestWhichGroupsReadTheStateOfObjects(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	good, bad := parse([]Source{
		{Name: "a", Text: `groups: [{name: far, rules: [{alert: X, expr: 'shop:ready:sum < 1'}]}, {name: not, rules: [{alert: X, expr: 'node_load1 > 1'}]}]`},
		{Name: "b", Text: `groups: [{name: records, rules: [{record: 'shop:ready:sum', expr: 'sum(shop:ready)'}, {record: 'shop:ready', expr: 'sum by (pod) (kube_pod_status_ready)'}]}]`},
		{Name: "c", Text: `groups: [{name: matcher, rules: [{alert: X, expr: 'absent({__name__="kube_node_info"})'}]}]`},
	}, p)
	if len(bad) > 0 {
		t.Fatal(bad)
	}
	want := map[string]bool{"a;far": true, "b;records": true, "c;matcher": true}
	if got := stateReaders(good, p); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAChangeIsToldAtOnceAndAStormOfThemCostsABoundedNumberOfEvaluations(t *testing.T) {
	db := data(t)
	var down atomic.Bool
	var looks atomic.Int32
	db.Refresh = func(ctx context.Context) error {
		looks.Add(1)
		app := db.Append.Appender(ctx)
		v := map[bool]float64{true: 1, false: 0}[down.Load()]
		if _, err := app.Append(0, labels.FromStrings("__name__", "kube_pod_down", "pod", "web-1"), time.Now().UnixMilli(), v); err != nil {
			return err
		}
		return app.Commit()
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "r.yaml"), `groups: [{name: g, interval: 1h, rules: [{alert: PodDown, expr: 'kube_pod_down == 1'}]}]`)
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan Alert, 10)
	r := New(Config{Interval: time.Hour, Dir: dir, ExternalURL: page}, db, func() []Source { return nil }, func(_ context.Context, in ...Alert) error {
		for _, a := range in {
			if a.Labels["alertname"] == "PodDown" {
				told <- a
			}
		}
		return nil
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	stop := run(t, r)
	until(t, "rules were not loaded", func() bool { return len(r.manager.RuleGroups()) > 0 })
	began := time.Now()
	down.Store(true)
	r.Changed()
	select {
	case a := <-told:
		if a.Labels["pod"] != "web-1" || !strings.HasPrefix(a.Source, "https://perch.example/metrics?expr=kube_pod_down+%3D%3D+1&from=") || !a.Ends.After(time.Now()) {
			t.Errorf("told %+v", a)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the change was not told")
	}
	for time.Since(began) < 3*time.Second { // ten thousand changes a second
		r.Changed()
		<-time.After(100 * time.Microsecond)
	}
	down.Store(false)
	r.Changed()
	for resolved := false; !resolved; {
		select {
		case a := <-told:
			resolved = !a.Ends.After(time.Now())
		case <-time.After(20 * time.Second):
			t.Fatal("the end was not told")
		}
	}
	took := time.Since(began)
	if most := int32(took/pause) + 2; looks.Load() > most {
		t.Errorf("%d looks in %s, want at most %d", looks.Load(), took, most)
	}
	stop()
}

func TestRulesGoOnWhenTheClockWasSetBack(t *testing.T) {
	db := data(t)
	var asked atomic.Int32
	query := db.Query
	db.Query = func(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
		asked.Add(1)
		return query(ctx, expr, at)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "r.yaml"), `groups: [{name: g, interval: 1w, rules: [{alert: A, expr: 'vector(1)'}]}]`)
	var lines strings.Builder
	r := New(Config{Interval: time.Hour, Dir: dir, ExternalURL: &url.URL{}}, db, func() []Source { return nil }, func(context.Context, ...Alert) error { return nil },
		slog.New(slog.NewTextHandler(&lines, nil)), prometheus.NewRegistry())
	stop := run(t, r)
	until(t, "rules were not loaded", func() bool { return len(r.manager.RuleGroups()) > 0 })
	g := r.manager.RuleGroups()[0]
	key := rules.GroupKey(g.File(), g.Name())
	now, every := time.Now().Round(0), g.Interval() // so long that no tick comes meanwhile
	for _, c := range []struct {
		what     string
		last, at time.Time
		done     bool
	}{
		{"one after the other", now.Add(-every), now, true},
		{"one that waited while another was done", now, now.Add(-time.Minute), false},
		{"one that waited for longer than some intervals", now, now.Add(-5 * every), false},
		{"a clock that was set back a little", now.Add(every), now, false},
		{"a clock that was set back", now.Add(4 * every), now, true},
		{"a clock that was set back, another group", now.Add(4 * every), now, true},
	} {
		r.prompt.mu.Lock()
		r.prompt.gates[key] = &gate{last: c.last}
		r.prompt.mu.Unlock()
		before := asked.Load()
		r.evaluate(t.Context(), g, c.at)
		if done := asked.Load() > before; done != c.done {
			t.Errorf("%s: evaluated %v", c.what, done)
		}
	}
	stop()
	if n, told := testutil.ToFloat64(r.prompt.setBack), strings.Count(lines.String(), "the clock was set back"); n != 2 || told != 1 {
		t.Errorf("counted %v, told %d times: %s", n, told, lines.String())
	}
}

// An alert that ends after the clock was set back is told to have ended at once, one
// that waits waits as long as it should, and one that fires goes on.
func TestAlertsKeepTheirAgeWhenTheClockIsSetBack(t *testing.T) {
	db := data(t)
	var on atomic.Bool
	on.Store(true)
	db.Query = func(_ context.Context, expr string, at time.Time) (promql.Vector, error) {
		if !on.Load() && expr != "vector(2)" {
			return nil, nil
		}
		return promql.Vector{{T: at.UnixMilli(), F: 1}}, nil
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "r.yaml"), `groups: [{name: g, interval: 1h, rules: [{alert: Ends, expr: 'vector(1)'}, {alert: Stays, for: 10m, expr: 'vector(2)'}, {alert: Waits, for: 1h, expr: 'vector(2)'}]}]`)
	now := time.Now().Round(0)
	var mu sync.Mutex
	ended := map[string]time.Time{}
	r := New(Config{Interval: time.Hour, Dir: dir, ExternalURL: &url.URL{}}, db, func() []Source { return nil }, func(_ context.Context, alerts ...Alert) error {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range alerts {
			if a.Ends.Before(now.Add(time.Minute)) {
				ended[a.Labels["alertname"]] = a.Ends
			}
		}
		return nil
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	stop := run(t, r)
	until(t, "rules were not loaded", func() bool { return len(r.manager.RuleGroups()) > 0 })
	g := r.manager.RuleGroups()[0]
	const ahead = 40 * time.Hour
	r.prompt.mu.Lock()
	r.prompt.gates[rules.GroupKey(g.File(), g.Name())] = &gate{}
	r.prompt.mu.Unlock()
	ages := func(at time.Time) map[string]string {
		out := map[string]string{}
		for _, x := range g.Rules() {
			x.(*rules.AlertingRule).ForEachActiveAlert(func(a *rules.Alert) {
				out[x.Name()] = fmt.Sprint(a.State, " ", at.Sub(a.ActiveAt).Round(time.Minute))
			})
		}
		return out
	}
	for _, at := range []time.Duration{ahead - 20*time.Minute, ahead - 10*time.Minute, ahead} {
		rules.DefaultEvalIterationFunc(t.Context(), g, now.Add(at))
	}
	before := ages(now.Add(ahead))
	if before["Ends"] != "firing 20m0s" || before["Stays"] != "firing 20m0s" || before["Waits"] != "pending 20m0s" {
		t.Fatal(before)
	}
	r.prompt.mu.Lock()
	r.prompt.gates[rules.GroupKey(g.File(), g.Name())] = &gate{last: now.Add(ahead)}
	r.prompt.mu.Unlock()
	on.Store(false)
	r.evaluate(t.Context(), g, now.Add(time.Millisecond))
	until(t, "the end was not told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ended) > 0
	})
	stop()
	have := ages(now)
	if have["Ends"] != "inactive 20m0s" || have["Stays"] != "firing 20m0s" || have["Waits"] != "pending 20m0s" {
		t.Errorf("%v, were %v", have, before)
	}
	mu.Lock()
	defer mu.Unlock()
	if at, ok := ended["Ends"]; !ok || at.Sub(now).Abs() > time.Minute || len(ended) != 1 {
		t.Errorf("told to have ended: %v", ended)
	}
}

// After a change the groups of the cluster come first, and one of a namespace that is
// slow, or is evaluated now, does not hold up the others.
func TestSlowGroupsOfANamespaceHoldUpNobody(t *testing.T) {
	db := data(t)
	var mu sync.Mutex
	var asked []string
	slow, held := make(chan struct{}), make(chan struct{}, 1)
	db.Query = func(_ context.Context, expr string, _ time.Time) (promql.Vector, error) {
		if strings.Contains(expr, "kube_own_held") {
			select {
			case held <- struct{}{}:
				<-slow
			default:
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if name, ok := strings.CutPrefix(strings.Fields(expr)[0], "kube_own_"); ok {
			asked = append(asked, name)
		}
		return nil, nil
	}
	text := func(name string) string {
		return `groups: [{name: ` + name + `, interval: 1w, rules: [{alert: A, expr: 'kube_own_` + name + ` > 1'}]}]`
	}
	sources := []Source{{Name: "PrometheusRule/shop/a", Namespace: "shop", Text: text("held")}, {Name: "PrometheusRule/shop/b", Namespace: "shop", Text: text("second")}, {Name: "perch/z", Text: text("wide")}}
	r := New(Config{Interval: time.Hour, Dir: t.TempDir(), ExternalURL: &url.URL{}}, db, func() []Source { return sources }, func(context.Context, ...Alert) error { return nil },
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	stop := run(t, r)
	var one *rules.Group
	until(t, "rules were not loaded", func() bool {
		for _, g := range r.manager.RuleGroups() {
			if g.Name() == "held" {
				one = g
			}
		}
		return one != nil
	})
	done := make(chan struct{})
	go func() { defer close(done); r.evaluate(t.Context(), one, time.Now()) }() // its tick, which takes long
	until(t, "it is not under way", func() bool { return len(held) == 1 })
	mu.Lock()
	asked = nil
	mu.Unlock()
	r.Changed()
	until(t, "the others wait", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(asked) == 2
	})
	if asked[0] != "wide" || asked[1] != "second" {
		t.Errorf("asked %v", asked)
	}
	until(t, "what was skipped is not counted", func() bool { return testutil.ToFloat64(r.prompt.skipped) == 1 })
	close(slow)
	<-done
	stop()
}
