package door

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/pod"
	"perch/agent/runtime/runtimetest"
)

type house struct {
	url    string
	client *http.Client
	rt     *runtimetest.Fake
	places pod.Places
	pod    atomic.Pointer[corev1.Pod]
}

// open makes a door to one pod p/default with a container c.
func open(t *testing.T, set ...func(*Door)) *house {
	certs := httptest.NewTLSServer(nil)
	certificate := certs.TLS.Certificates[0]
	certs.Close()
	h := &house{places: pod.Places{Pods: t.TempDir(), Logs: t.TempDir()}, rt: runtimetest.NewFake(runtimetest.FakeConfig{Images: []string{"busybox"}})}
	t.Cleanup(h.rt.Close)
	h.pod.Store(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u1"},
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}}},
	})
	d, err := New(Config{
		Listen: "127.0.0.1:0", Node: "n1", Places: h.places,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
	}, Parts{
		Pods:    func() []*corev1.Pod { return []*corev1.Pod{h.pod.Load()} },
		Runtime: h.rt,
		Authenticate: func(_ context.Context, bearer string) (user.Info, bool, error) {
			return &user.DefaultInfo{Name: bearer}, bearer != "wrong", nil
		},
		Authorize: func(_ context.Context, who user.Info, what Attributes) (bool, string, error) {
			return who.GetName() == "admin" || who.GetName() == "scraper" && what.Subresource == "metrics" || who.GetName() == "reader" && what.Subresource == "log", "", nil
		},
		Handlers: map[string]http.Handler{"/logs/api/v1/": http.NotFoundHandler(), "/metrics": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "up 1\n") })},
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set {
		f(d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	h.url = "https://" + d.Addr().String()
	h.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(h.client.CloseIdleConnections)
	return h
}

func (h *house) get(t *testing.T, path, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := h.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// start runs a container and shows it in the pod's status.
func (h *house) start(t *testing.T, command ...string) string {
	t.Helper()
	p := h.pod.Load()
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID)},
		Labels:       map[string]string{pod.LabelUID: string(p.UID)},
		LogDirectory: h.places.LogDir(p), Linux: &cri.LinuxPodSandboxConfig{},
	}
	sandbox, err := h.rt.RunPodSandbox(t.Context(), config, "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := h.rt.CreateContainer(t.Context(), sandbox, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: "busybox"}, Command: command, LogPath: pod.LogPath("c", 0),
	}, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.rt.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	next := p.DeepCopy()
	next.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "c", ContainerID: pod.ContainerID(id), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	h.pod.Store(next)
	return id
}

func TestNobodyPassesWithoutAName(t *testing.T) {
	h := open(t)
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/healthz", "", 200},
		{"/pods", "", 401},
		{"/pods", "wrong", 401},
		{"/pods", "scraper", 403},
		{"/pods", "admin", 200},
		{"/metrics", "", 401},
		{"/metrics", "scraper", 200},
		{"/containerLogs/default/p/c", "scraper", 403},
		{"/logs/api/v1/query", "", 401},
		{"/logs/api/v1/query", "scraper", 403}, // nodes/log, as for all lines of the node
		{"/logs/api/v1/query", "reader", 404},
		{"/metrics", "reader", 403},
		{"/containerLogs/default/p/c", "reader", 403},
		{"/nowhere", "", 401},
		{"/nowhere", "admin", 404},
		{"/containerLogs/default/other/c", "admin", 404},
		{"/containerLogs/default/p/other", "admin", 404},
		{"/containerLogs/default/p/c", "admin", 400},
		{"/containerLogs/default/p/c?previous=true", "admin", 400},
		{"/containerLogs/default/p/c?tailLines=x", "admin", 422},
	} {
		if got, body := h.get(t, c.path, c.token); got != c.want {
			t.Errorf("%s as %q: %d %s, want %d", c.path, c.token, got, body, c.want)
		}
	}
}

func TestABodyOfWhoMayNotHasSomeTimeToArrive(t *testing.T) {
	h := open(t, func(d *Door) { d.arrival = 50 * time.Millisecond })
	for path, token := range map[string]string{"/healthz": "", "/pods": "", "/run/default/p/c": "wrong", "/exec/default/p/c": "scraper"} {
		c, err := tls.Dial("tcp", strings.TrimPrefix(h.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: n1\r\nAuthorization: Bearer %s\r\nContent-Length: 20\r\n\r\nbegin", path, token); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the connection is open", path)
		}
	}
}

func TestWhoMayHasAnyTime(t *testing.T) {
	const arrival = 50 * time.Millisecond
	h := open(t, func(d *Door) {
		d.arrival = arrival
		d.parts.Handlers["/long"] = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				t.Error("a request was cut off")
			case <-time.After(4 * arrival): // that nothing happens takes its time
			}
		})
	})
	if code, _ := h.get(t, "/long", "admin"); code != http.StatusOK {
		t.Errorf("%d", code)
	}
}

func TestLogsFollowUntilTheContainerEnds(t *testing.T) {
	h := open(t)
	id := h.start(t, "sh", "-c", "echo one; echo two >&2; sleep 600")
	path := filepath.Join(h.places.LogDir(h.pod.Load()), "c", "0.log")
	until(t, func() bool { b, _ := os.ReadFile(path); return bytes.Count(b, []byte("\n")) == 2 })
	if code, body := h.get(t, "/containerLogs/default/p/c", "admin"); code != 200 || !strings.Contains(body, "one\n") || !strings.Contains(body, "two\n") {
		t.Errorf("%d %q", code, body)
	}
	if _, body := h.get(t, "/containerLogs/default/p/c?stream=Stderr", "admin"); body != "two\n" {
		t.Errorf("stderr: %q", body)
	}
	time.AfterFunc(200*time.Millisecond, func() {
		h.rt.Exit(id, 0)
		next := h.pod.Load().DeepCopy()
		next.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
		h.pod.Store(next)
	})
	if _, body := h.get(t, "/containerLogs/default/p/c?follow=true&tailLines=1", "admin"); strings.Count(body, "\n") != 1 {
		t.Errorf("followed: %q", body)
	}
}

func TestExecRunsThroughTheDoor(t *testing.T) {
	h := open(t)
	h.start(t, "sleep", "600")
	target, err := url.Parse(h.url + "/exec/default/p/c?command=echo&command=hello&output=1&error=1")
	if err != nil {
		t.Fatal(err)
	}
	e, err := remotecommand.NewSPDYExecutor(&rest.Config{BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, http.MethodPost, target)
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "hello\n" {
		t.Errorf("out %q, err %q", out.String(), errOut.String())
	}
	if code, body := h.get(t, "/exec/default/p/c?command=echo&output=1", "admin"); code != 400 {
		t.Errorf("without an upgrade: %d %s", code, body)
	}
}

// until retries a question for a minute.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about")
		}
	}
}
