package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/target"
)

// TestFromAnObjectToItsTargets: what a service and a name answer becomes jobs.
func TestFromAnObjectToItsTargets(t *testing.T) {
	ip := outside(t)
	var broken atomic.Bool
	at := serve(t, ip, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, `[{"targets":["app:9100"],"labels":{"team":"a"}}]`)
	})
	dns := &names{records: map[string][]string{"web.red.svc.cluster.local. A": {"10.42.0.5"}}}
	spec := func(more string) []byte {
		return []byte(`{"httpSDConfigs":[{"url":"` + at + `","refreshInterval":"5s"` + more + `}],"dnsSDConfigs":[{"names":["web"],"type":"A","port":9}]}`)
	}
	var mu sync.Mutex
	objects := []target.Object{target.Read(target.ScrapeConfig, "red", "x", spec(""))}
	now := func() []target.Object { mu.Lock(); defer mu.Unlock(); return objects }
	changed := make(chan struct{}, 100)
	w := target.World{Home: "n0"}
	l, err := New(Default(), Parts{
		Searches: func(context.Context) (out []target.Search) {
			for _, o := range now() {
				out = append(out, o.Searches(w)...)
			}
			return out
		},
		Changed: func() { changed <- struct{}{} },
		Cluster: dns.resolver(t), Domain: "cluster.local", Machine: &net.Resolver{},
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	w.Found = l.Found
	ctx, stop := context.WithCancel(t.Context())
	var end sync.WaitGroup
	end.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer end.Wait()
	defer stop()
	until := func(targets, why string) {
		t.Helper()
		limit := time.After(time.Minute)
		for {
			jobs, left := target.Plan(w, now())
			text := ""
			for _, j := range jobs {
				for _, x := range j.Targets {
					text += x.Node + " " + x.Scheme + "://" + x.Address + x.Path + x.Labels["team"] + ","
				}
			}
			if told := fmt.Sprint(left); text == targets && (why == "") == (len(left) == 0) && strings.Contains(told, why) {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("targets %q, want %q; left %v, want %q", text, targets, left, why)
			}
		}
	}
	const both = "n0 http://10.42.0.5:9/metrics,n0 http://app:9100/metricsa,"
	until(both, "")
	broken.Store(true)
	mu.Lock()
	objects = []target.Object{target.Read(target.ScrapeConfig, "red", "x", spec(`,"followRedirects":false`))}
	mu.Unlock()
	l.Changed() // asked at once, for it is another one
	until(both, "spec.httpSDConfigs[0]: ask "+at+": it answers with status 502; what it found at ")
	mu.Lock()
	objects = nil
	mu.Unlock()
	l.Changed()
	until("", "")
}
