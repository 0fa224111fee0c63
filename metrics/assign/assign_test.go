package assign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/metrics/scrape"
	"perch/metrics/target"
)

func pod(name, node, ip string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name, Labels: map[string]string{"app": name}},
		Spec:   corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "m", ContainerPort: 9}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip}}
}

func monitor(name, app, secret string) target.Object {
	return target.Read(target.PodMonitor, "red", name, fmt.Appendf(nil,
		`{"selector":{"matchLabels":{"app":%q}},"podMetricsEndpoints":[{"port":"m","authorization":{"credentials":{"name":"s","key":%q}}}]}`, app, secret))
}

func until(t *testing.T, what string, good func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !good(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: " + what)
		}
	}
}

func TestANodeGetsItsOwnTargetsAndNoSecretOfOthers(t *testing.T) {
	var pods atomic.Pointer[[]*corev1.Pod]
	pods.Store(&[]*corev1.Pod{pod("a", "n1", "10.0.0.1"), pod("b", "n2", "10.0.1.1")})
	cfg := Default()
	cfg.Node, cfg.Soon, cfg.Hold = "n1", 10*time.Millisecond, 50*time.Second
	d, err := NewDesk(cfg, Parts{
		World: func() target.World {
			return target.World{Pods: *pods.Load(), Home: "n1", Value: func(r target.Ref) (string, error) { return "secret-of-" + r.Key, nil }}
		},
		Objects: func() []target.Object {
			return []target.Object{monitor("ma", "a", "a"), monitor("mb", "b", "b"), monitor("mc", "c", "c")}
		},
		NodeOf: func(r *http.Request) (string, error) {
			if n := r.Header.Get("node"); n != "" {
				return n, nil
			}
			return "", errors.New("no node")
		},
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	var down atomic.Bool
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		d.ServeHTTP(w, r)
	}))
	defer door.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	c := NewClient(ClientConfig{URL: door.URL, Timeout: time.Minute, Retry: 10 * time.Millisecond}, &http.Client{Transport: as("n2")}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	go func() { ended <- d.Run(ctx) }()
	go func() {
		ended <- c.Run(ctx, func() ([]scrape.Status, []target.Dropped) {
			return []scrape.Status{{Node: "n1", Pool: "p", URL: "http://10.0.1.1:9/metrics", Health: "up"}}, []target.Dropped{{From: "pod/red/z", Reason: "no port"}}
		})
	}()
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	have := func() string { jobs, _ := c.Jobs(); return fmt.Sprint(jobs) }
	until(t, "n2 has its target", func() bool { return strings.Contains(have(), "10.0.1.1:9") })
	if got := have(); !strings.Contains(got, "secret-of-b") || strings.Contains(got, "secret-of-a") || strings.Contains(got, "10.0.0.1") {
		t.Errorf("n2 was given %s", got)
	}
	mine, left := d.Jobs()
	if got := fmt.Sprint(mine); !strings.Contains(got, "10.0.0.1:9") || strings.Contains(got, "10.0.1.1") || len(left) != 1 || !strings.Contains(left[0].Reason, "no pod matches") {
		t.Errorf("n1 has %s, left out %v", got, left)
	}
	until(t, "its row is told as n2's", func() bool { o, left := d.Others(); return len(o) == 1 && o[0].Node == "n2" && len(left) == 1 })

	calls := asked.Load()
	pods.Store(&[]*corev1.Pod{pod("a", "n1", "10.0.0.1"), pod("b", "n2", "10.0.1.2")})
	d.Changed()
	until(t, "a change reaches a waiting request", func() bool { return strings.Contains(have(), "10.0.1.2:9") })
	if asked.Load() > calls+2 {
		t.Errorf("after %d requests", asked.Load()-calls)
	}
	pods.Store(&[]*corev1.Pod{pod("a", "n1", "10.0.0.1"), pod("b", "n1", "10.0.0.2")})
	d.Changed()
	until(t, "the pod moved away", func() bool { return have() == "[]" })

	pods.Store(&[]*corev1.Pod{pod("b", "n2", "10.0.1.3")})
	d.Changed()
	until(t, "it is back", func() bool { return strings.Contains(have(), "10.0.1.3:9") })
	down.Store(true)
	door.CloseClientConnections()
	calls = asked.Load()
	until(t, "it tries again", func() bool { return asked.Load() > calls+2 })
	if !strings.Contains(have(), "10.0.1.3:9") {
		t.Error("a silent server took the targets away")
	}
}

// TestAServerThatStartsTakesNoTargetsAway: before a desk knows the cluster's
// objects, nodes keep what the one before gave them.
func TestAServerThatStartsTakesNoTargetsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known atomic.Bool
		cfg := Default()
		cfg.Node, cfg.Hold = "n1", time.Hour
		d, err := NewDesk(cfg, Parts{
			World: func() target.World {
				if !known.Load() {
					return target.World{}
				}
				return target.World{Pods: []*corev1.Pod{pod("b", "n2", "10.0.1.1")}, Value: func(target.Ref) (string, error) { return "x", nil }}
			},
			Objects: func() []target.Object { return []target.Object{monitor("mb", "b", "b")} },
			Known:   known.Load,
			NodeOf:  func(*http.Request) (string, error) { return "n2", nil },
		}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		ask := func(mark string) answer {
			w := httptest.NewRecorder()
			d.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(fmt.Sprintf("{\"mark\":%q}", mark))))
			var out answer
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK {
				t.Fatalf("%d %v: %s", w.Code, err, w.Body)
			}
			return out
		}
		const before = "of the desk before"
		if got := ask(before); got.Mark != before || got.Jobs != nil {
			t.Errorf("a node that has targets is told %+v", got)
		}
		time.AfterFunc(3*time.Second, func() { known.Store(true) })
		if got := ask(before); len(got.Jobs) != 1 || len(got.Jobs[0].Targets) != 1 {
			t.Errorf("once they are known it is told %+v", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestANodeWithTooMuchToTellGetsItsTargetsAllTheSame.
func TestANodeWithTooMuchToTellGetsItsTargetsAllTheSame(t *testing.T) {
	for about, tc := range map[string]struct{ rows, left, bytes, untold int }{
		"little":    {10, 10, 10, 0},
		"many":      {maxRows + 5, maxRows + 2, 10, 7},
		"long ones": {1500, 1500, 8 << 10, -1},
	} {
		cfg := Default()
		cfg.Node, cfg.Hold = "n1", time.Millisecond
		d, err := NewDesk(cfg, Parts{World: func() target.World { return target.World{} }, Objects: func() []target.Object { return nil },
			NodeOf: func(*http.Request) (string, error) { return "n2", nil }}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		door := httptest.NewServer(d)
		c := NewClient(ClientConfig{URL: door.URL, Timeout: time.Minute, Retry: time.Second}, door.Client(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		err = c.ask(t.Context(), slices.Repeat([]scrape.Status{{Error: strings.Repeat("x", tc.bytes)}}, tc.rows), slices.Repeat([]target.Dropped{{From: "pod/a/b", Reason: strings.Repeat("x", tc.bytes)}}, tc.left))
		door.Close()
		if err != nil {
			t.Errorf("%s: %v", about, err)
			continue
		}
		rows, left := d.Others()
		told := 0
		if last := left[len(left)-1]; last.From == "node/n2" {
			if _, err := fmt.Sscanf(last.Reason, "%d more of its targets", &told); err != nil {
				t.Error(about, last, err)
			}
			left = left[:len(left)-1]
		}
		if got := tc.rows + tc.left - len(rows) - len(left); got != told || tc.untold >= 0 && told != tc.untold || len(rows) < 5 || len(left) < 5 {
			t.Errorf("%s: %d rows and %d reasons, %d are said to be more", about, len(rows), len(left), told)
		}
	}
}

func TestOnlyNodesAreAnswered(t *testing.T) {
	cfg := Default()
	cfg.Node = "n1"
	d, err := NewDesk(cfg, Parts{World: func() target.World { return target.World{} }, Objects: func() []target.Object { return nil },
		NodeOf: func(r *http.Request) (string, error) {
			if r.Header.Get("node") == "" {
				return "", errors.New(`"eve" is not a node`)
			}
			return "n2", nil
		}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for body, code := range map[string]int{`{}`: http.StatusForbidden, `{"here":`: http.StatusBadRequest} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		if code == http.StatusBadRequest {
			r.Header.Set("node", "n2")
		}
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if w.Code != code {
			t.Errorf("%s: %d, want %d", body, w.Code, code)
		}
	}
}

type as string

func (a as) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("node", string(a))
	return http.DefaultTransport.RoundTrip(r)
}
