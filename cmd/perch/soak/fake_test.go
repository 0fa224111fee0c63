package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"perch/agent"
	"perch/agent/image"
	"perch/agent/pod"
	"perch/agent/probe"
	"perch/agent/runtime/runtimetest"
	"perch/agent/tail"
	"perch/controlplane/event"
	"perch/logs/query"
	"perch/logs/record"
	"perch/logs/store"
)

// node is an agent with a fake runtime, and the capture of its lines into a
// real store.
type node struct {
	api   *fake.Clientset
	rt    *runtimetest.Fake
	dir   string
	tail  *tail.Tail
	store *store.Store
	reg   *prometheus.Registry
}

type noCgroups struct{}

func (noCgroups) Make(class corev1.PodQOSClass, uid string, _ pod.Limits) (string, error) {
	return "/perch-soak/" + string(class) + "/pod" + uid, nil
}
func (noCgroups) Remove(string) error { return nil }

// startNode runs the node until the test ends.
func startNode(t *testing.T) *node {
	t.Helper()
	n := &node{api: newAPI(), dir: t.TempDir(), reg: prometheus.NewRegistry()}
	quiet := slog.New(slog.DiscardHandler)
	n.rt = runtimetest.NewFake(runtimetest.FakeConfig{Images: []string{"moment"}})
	n.rt.Program("moment", func(p *runtimetest.Process) int {
		fmt.Fprintln(p.Stdout, "first")
		select {
		case <-time.After(100 * time.Millisecond):
		case <-p.Ctx.Done():
		}
		fmt.Fprintln(p.Stderr, "last")
		return 0
	})
	var err error
	if n.store, err = store.Open(store.Default(filepath.Join(n.dir, "logs")), quiet, n.reg); err != nil {
		t.Fatal(err)
	}
	lines := tail.Default(filepath.Join(n.dir, "podlogs"), "n1")
	lines.Linger = time.Second
	if n.tail, err = tail.New(lines, n.store, n.store.Append, quiet, n.reg); err != nil {
		t.Fatal(err)
	}
	cfg := agent.Default()
	cfg.Node, cfg.IPs, cfg.Data, cfg.ClusterDNS = "n1", []string{"192.0.2.1"}, n.dir, []string{"10.43.0.10"}
	a, err := agent.New(cfg, agent.Parts{
		API: n.api, Runtime: n.rt, Images: image.New(image.Config{}, n.rt, quiet, prometheus.NewRegistry()), Cgroups: noCgroups{},
		Tell:       func(event.Record) {},
		Services:   func(string) []*corev1.Service { return nil },
		Conditions: func() []corev1.NodeCondition { return nil },
		Drained:    func(_ context.Context, path string) bool { return n.tail.Drained(path) },
		Observe:    func(probe.Result) {},
	}, quiet, n.reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	parts := []func(context.Context) error{n.store.Run, n.tail.Run, a.Run}
	done := make(chan error, len(parts))
	for _, run := range parts {
		go func() { done <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range parts {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		n.rt.Close()
		if err := n.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// pass runs pods that live a moment, at most atOnce at a time, and deletes each
// when it has ended.
func (n *node) pass(t *testing.T, prefix string, count, atOnce int) {
	t.Helper()
	pods := n.api.CoreV1().Pods("default")
	w, err := pods.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	limit := time.After(10 * time.Minute)
	made, ended := 0, map[string]bool{}
	for len(ended) < count {
		for made < count && made-len(ended) < atOnce {
			name := fmt.Sprint(prefix, made)
			if _, err := pods.Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)},
				Spec: corev1.PodSpec{NodeName: "n1", RestartPolicy: corev1.RestartPolicyNever,
					Containers: []corev1.Container{{Name: "c", Image: "moment", Command: []string{"moment"}, ImagePullPolicy: corev1.PullIfNotPresent}}},
			}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			made++
		}
		select {
		case <-limit:
			t.Fatalf("%d of %d pods have ended", len(ended), count)
		case e := <-w.ResultChan():
			p, ok := e.Object.(*corev1.Pod)
			if !ok || ended[p.Name] || p.Status.Phase != corev1.PodSucceeded {
				continue
			}
			ended[p.Name] = true
			if err := pods.Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if len(ended)%1000 == 0 {
				n.api.ClearActions() // the fake remembers every call
				t.Logf("%d pods have ended", len(ended))
			}
		}
	}
	n.api.ClearActions()
}

// nodeUse is what must not grow with the number of pods.
type nodeUse struct {
	heap                                 uint64
	goroutines, files, series, positions int
	logs                                 int // directories of pods' lines
}

func (n *node) use(t *testing.T) nodeUse {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := nodeUse{heap: m.HeapAlloc, goroutines: runtime.NumGoroutine(), positions: len(n.store.Positions())}
	for _, of := range []struct {
		dir  string
		into *int
	}{{"/proc/self/fd", &u.files}, {filepath.Join(n.dir, "podlogs"), &u.logs}} {
		entries, err := os.ReadDir(of.dir)
		if err != nil {
			t.Fatal(err)
		}
		*of.into = len(entries)
	}
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		u.series += len(f.GetMetric())
	}
	return u
}

// settled is the use after everything of pods that ended is removed.
func (n *node) settled(t *testing.T) nodeUse {
	t.Helper()
	limit := time.After(2 * time.Minute)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		u := n.use(t)
		list, err := n.rt.ListContainers(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if ledgers := slices.ContainsFunc(n.store.Positions(), func(p record.Position) bool { return p.File != "ledger:" }); u.logs == 0 && len(list) == 0 && !ledgers {
			return n.use(t)
		}
		select {
		case <-limit:
			t.Fatalf("%d containers stay, %+v", len(list), u)
		case <-tick.C:
		}
	}
}

// TestTenThousandMomentsLeaveTheirLinesAndNothingElse runs pods of 100 ms
// through an agent, the capture and the store: every line is stored, and what
// the process holds is then what it held after the first few.
func TestTenThousandMomentsLeaveTheirLinesAndNothingElse(t *testing.T) {
	const first, pods = 200, 10_000
	n := startNode(t)
	n.pass(t, "first-", first, 100)
	before := n.settled(t)
	began := time.Now()
	n.pass(t, "p-", pods, 100)
	t.Logf("%d pods in %.1f s", pods, time.Since(began).Seconds())
	after := n.settled(t)
	t.Logf("before %+v", before)
	t.Logf("after  %+v", after)
	if after.goroutines > before.goroutines+5 || after.files > before.files+5 || after.series > before.series+5 || after.positions > before.positions {
		t.Errorf("%d pods left something", pods)
	}
	if more := int64(after.heap) - int64(before.heap); more > 96<<20 { // the store may keep 64 MB of lines that are not cut yet
		t.Errorf("%d pods left %d MB of memory", pods, more>>20)
	}
	h := query.Handler(query.New(n.store, slog.New(slog.DiscardHandler)), func(context.Context, *http.Request) (query.Access, error) { return query.Access{All: true}, nil }, slog.New(slog.DiscardHandler))
	for _, line := range []string{"first", "last"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, query.Prefix+"histogram?from=now-1h&q="+line, nil))
		var have struct{ Total int }
		if err := json.Unmarshal(w.Body.Bytes(), &have); err != nil || have.Total != first+pods {
			t.Errorf("%d lines %q are stored, want %d: %v %s", have.Total, line, first+pods, err, w.Body)
		}
	}
}
