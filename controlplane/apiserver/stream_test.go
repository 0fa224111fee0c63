package apiserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	criforward "k8s.io/cri-streaming/pkg/streaming/portforward"
	criexec "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// echo is a container that answers with what it is given, and a port that does
// the same. It streams with the code that container runtimes use.
type echo struct{}

func (echo) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan criexec.TerminalSize, _ time.Duration) error {
	_, _ = fmt.Fprintf(out, "%s:", strings.Join(cmd, " ")) // the client notices
	_, err := io.Copy(out, in)
	return err
}

func (echo) PortForward(_ context.Context, _, _ string, _ int32, stream io.ReadWriteCloser) error {
	defer func() { _ = stream.Close() }() // the client notices
	b := make([]byte, 5)
	if _, err := io.ReadFull(stream, b); err != nil {
		return err
	}
	_, err := stream.Write(bytes.ToUpper(b))
	return err
}

func (w *world) stream(rw http.ResponseWriter, r *http.Request) bool {
	q := r.URL.Query()
	switch {
	case strings.HasPrefix(r.URL.Path, "/exec/"):
		opts, err := criexec.NewOptions(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return true
		}
		criexec.ServeExec(rw, r, echo{}, "p", "", "c", q["command"], opts, time.Minute, time.Minute, criexec.SupportedStreamingProtocols)
	case strings.HasPrefix(r.URL.Path, "/portForward/"):
		opts, err := criforward.NewV4Options(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return true
		}
		criforward.ServePortForward(rw, r, echo{}, "p", "", opts, time.Minute, time.Minute, criforward.SupportedProtocols)
	default:
		return false
	}
	return true
}

func streamPod(t *testing.T) string {
	t.Helper()
	ns := namespace(t)
	node := "stream-" + ns
	aNode(t, node)
	if _, err := shared.client.CoreV1().Pods(ns).Create(t.Context(), aPod("p"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := bind(t, ns, "p", node); err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestExecWorksForOldAndNewClients(t *testing.T) {
	ns := streamPod(t)
	url := shared.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(ns).Name("p").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"cat", "-"}, Stdin: true, Stdout: true}, scheme.ParameterCodec).URL()
	for name, open := range map[string]func() (remotecommand.Executor, error){
		"SPDY": func() (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(shared.config, http.MethodPost, url)
		},
		"WebSocket": func() (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(shared.config, http.MethodGet, url.String())
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := open()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
			if err != nil || out.String() != "cat -:hello" {
				t.Errorf("have %q, %v", out.String(), err)
			}
		})
	}
}

func TestPortForwardWorksForOldAndNewClients(t *testing.T) {
	ns := streamPod(t)
	url := shared.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(ns).Name("p").SubResource("portforward").URL()
	for name, open := range map[string]func() (httpstream.Dialer, error){
		"SPDY": func() (httpstream.Dialer, error) {
			rt, upgrader, err := spdy.RoundTripperFor(shared.config)
			if err != nil {
				return nil, err
			}
			return spdy.NewDialer(upgrader, &http.Client{Transport: rt}, http.MethodPost, url), nil
		},
		"WebSocket": func() (httpstream.Dialer, error) { return portforward.NewSPDYOverWebsocketDialer(url, shared.config) },
	} {
		t.Run(name, func(t *testing.T) {
			dialer, err := open()
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }() // the test is over
			h := http.Header{}
			h.Set(corev1.StreamType, corev1.StreamTypeError)
			h.Set(corev1.PortHeader, "80")
			h.Set(corev1.PortForwardRequestIDHeader, "1")
			if _, err := c.CreateStream(h); err != nil {
				t.Fatal(err)
			}
			h.Set(corev1.StreamType, corev1.StreamTypeData)
			s, err := c.CreateStream(h)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 5)
			if _, err := io.ReadFull(s, b); err != nil || string(b) != "HELLO" {
				t.Errorf("have %q, %v", b, err)
			}
		})
	}
}
