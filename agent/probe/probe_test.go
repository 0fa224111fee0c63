package probe

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"perch/agent/runtime"
	"perch/controlplane/event"
)

func TestAfter(t *testing.T) {
	p := &corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}
	cases := []struct {
		name     string
		kind     Kind
		outcomes string // + and -
		ok, hold bool
		changes  int
	}{
		{"readiness starts unready", Readiness, "", false, false, 0},
		{"one success is not enough", Readiness, "+", false, false, 0},
		{"two in a row are", Readiness, "++", true, false, 1},
		{"a failure between starts the count anew", Readiness, "+-+", false, false, 0},
		{"two failures do not make it unready", Readiness, "++--", true, false, 1},
		{"three do", Readiness, "++---", false, false, 2},
		{"readiness never asks for a restart", Readiness, "-----", false, false, 1},
		{"liveness starts alive", Liveness, "", true, false, 0},
		{"three failures ask for a restart", Liveness, "---", false, true, 1},
		{"after that nothing counts", Liveness, "---+++", false, true, 1},
		{"startup waits for success", Startup, "--", false, false, 0},
		{"startup succeeds", Startup, "--++", true, false, 1},
		{"startup that fails asks for a restart", Startup, "---", false, true, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, changes := begin(c.kind, false), 0
			for _, o := range c.outcomes {
				next, changed := s.after(o == '+', p)
				if s = next; changed {
					changes++
				}
			}
			if s.ok != c.ok || s.hold != c.hold || changes != c.changes {
				t.Errorf("ok %v hold %v changes %d, want %v %v %d", s.ok, s.hold, changes, c.ok, c.hold, c.changes)
			}
		})
	}
}

func TestDue(t *testing.T) {
	p := &corev1.Probe{InitialDelaySeconds: 5}
	cases := []struct {
		name            string
		kind            Kind
		started, ending bool
		running         time.Duration
		want            bool
	}{
		{"not before its delay", Readiness, true, false, 4 * time.Second, false},
		{"after its delay", Readiness, true, false, 5 * time.Second, true},
		{"liveness waits for startup", Liveness, false, false, time.Minute, false},
		{"startup ends once started", Startup, true, false, time.Minute, false},
		{"a pod that ends is not restarted", Liveness, true, true, time.Minute, false},
		{"but its readiness is still of interest", Readiness, true, true, time.Minute, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := due(c.kind, p, c.started, c.ending, c.running); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// script answers exec probes by the command's name.
type script struct{ code atomic.Int32 }

func (s *script) ExecSync(context.Context, string, []string, time.Duration) (runtime.ExecResult, error) {
	if s.code.Load() < 0 {
		return runtime.ExecResult{}, runtime.ErrUnavailable
	}
	return runtime.ExecResult{ExitCode: s.code.Load()}, nil
}

func TestProbesInTheirRhythm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exec := &script{}
		exec.code.Store(1)
		var results, events, changes atomic.Int32
		p := New(Default(), exec, Hooks{
			Changed: func(types.UID) { changes.Add(1) }, Tell: func(event.Record) { events.Add(1) }, Observe: func(Result) { results.Add(1) },
		}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		run := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}
		target := Target{
			Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}, ContainerID: "1", StartedAt: time.Now(),
			Container: &corev1.Container{
				Name: "c", StartupProbe: &corev1.Probe{ProbeHandler: run, PeriodSeconds: 1, FailureThreshold: 10},
				ReadinessProbe: &corev1.Probe{ProbeHandler: run, PeriodSeconds: 2}, LivenessProbe: &corev1.Probe{ProbeHandler: run, PeriodSeconds: 2, FailureThreshold: 2},
			},
		}
		p.Keep("u", []Target{target})
		<-time.After(5 * time.Second) // bubble time
		if h := p.Health("u")["c"]; h.Started || h.Ready || h.Unhealthy != "" || results.Load() != 5 {
			t.Errorf("before startup: %+v, %d results", h, results.Load())
		}
		exec.code.Store(0)
		<-time.After(5 * time.Second)
		if h := p.Health("u")["c"]; !h.Started || !h.Ready || h.Unhealthy != "" {
			t.Errorf("healthy: %+v", h)
		}
		exec.code.Store(-1)
		<-time.After(time.Minute)
		if h := p.Health("u")["c"]; !h.Ready || h.Unhealthy != "" {
			t.Errorf("a runtime that does not answer: %+v", h)
		}
		exec.code.Store(1)
		<-time.After(6 * time.Second)
		if h := p.Health("u")["c"]; h.Unhealthy != "liveness probe" {
			t.Errorf("ill: %+v", h)
		}
		target.ContainerID, target.StartedAt = "2", time.Now()
		p.Keep("u", []Target{target})
		if h := p.Health("u")["c"]; h.Unhealthy != "" || h.ContainerID != "2" {
			t.Errorf("new instance: %+v", h)
		}
		p.Keep("u", nil)
		before := results.Load()
		<-time.After(time.Minute)
		if results.Load() != before || len(p.Health("u")) != 0 {
			t.Error("probes of a pod that is gone still run")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAsk(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/host":
			if r.Host != "example.com" || r.Header.Get("X-A") != "b" || r.URL.RawQuery != "q=1" {
				http.Error(w, r.Host+r.URL.RawQuery, 500)
			}
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/bad", http.StatusFound)
		case "/bad":
			http.Error(w, "very bad", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer secure.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	port := func(a net.Addr) int { return a.(*net.TCPAddr).Port }
	web, tls, rpc := port(server.Listener.Addr()), port(secure.Listener.Addr()), port(l.Addr())
	get := func(path string) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "example.com"}, {Name: "X-A", Value: "b"}}}}
	}
	service := "none"
	cases := []struct {
		name string
		h    corev1.ProbeHandler
		ok   bool
		why  string
	}{
		{"http with host, header, query and named port", get("/host?q=1"), true, ""},
		{"http that fails", get("/bad"), false, "statuscode: 503: very bad"},
		{"a redirect to itself is followed", get("/here"), false, "503"},
		{"a redirect away counts as an answer", get("/away"), true, ""},
		{"https of any certificate", corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Scheme: "HTTPS", Port: intstr.FromInt(tls)}}, true, ""},
		{"tcp", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(web)}}, true, ""},
		{"tcp nobody listens to", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(1)}}, false, "refused"},
		{"a port without a number", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("none")}}, false, "has no port none"},
		{"grpc", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(rpc)}}, true, ""},
		{"grpc of a service that is not there", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(rpc), Service: &service}}, false, "unknown service"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			target := Target{IP: "127.0.0.1", Container: &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(web)}}}}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			why, ok, err := ask(ctx, &script{}, target, &c.h, time.Second)
			if err != nil || ok != c.ok || !strings.Contains(why, c.why) {
				t.Errorf("ok %v, %q, %v", ok, why, err)
			}
		})
	}
	if _, _, err := ask(t.Context(), failing{}, Target{}, &corev1.ProbeHandler{Exec: &corev1.ExecAction{}}, time.Second); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("a runtime that is away: %v", err)
	}
}

type failing struct{}

func (failing) ExecSync(context.Context, string, []string, time.Duration) (runtime.ExecResult, error) {
	return runtime.ExecResult{}, runtime.ErrUnavailable
}
