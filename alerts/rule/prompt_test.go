package rule

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
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
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	for limit := time.Now().Add(20 * time.Second); len(r.manager.RuleGroups()) == 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("rules were not loaded")
		}
	}
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
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
