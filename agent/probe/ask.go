package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"perch/agent/runtime"
)

// maxBody is how much of an answer is read.
const maxBody = 10 << 10

// ask runs one probe. It returns what the container said and whether that is
// good. An error means that the question did not reach it, which says nothing.
func ask(ctx context.Context, exec Exec, t Target, h *corev1.ProbeHandler, limit time.Duration) (string, bool, error) {
	switch {
	case h.Exec != nil:
		return askExec(ctx, exec, t, h.Exec, limit)
	case h.HTTPGet != nil:
		if err := Get(ctx, t, h.HTTPGet); err != nil {
			return err.Error(), false, nil
		}
		return "", true, nil
	case h.TCPSocket != nil:
		port, err := Port(t.Container, h.TCPSocket.Port)
		if err != nil {
			return err.Error(), false, nil
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(cmp.Or(h.TCPSocket.Host, t.IP), strconv.Itoa(port)))
		if err != nil {
			return err.Error(), false, nil
		}
		_ = conn.Close() // it was asked for nothing
		return "", true, nil
	case h.GRPC != nil:
		if err := askGRPC(ctx, t, h.GRPC); err != nil {
			return err.Error(), false, nil
		}
		return "", true, nil
	}
	return "probe has no action", false, nil
}

func askExec(ctx context.Context, exec Exec, t Target, h *corev1.ExecAction, limit time.Duration) (string, bool, error) {
	r, err := exec.ExecSync(ctx, t.ContainerID, h.Command, limit)
	switch {
	case errors.Is(err, runtime.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(h.Command, " "), limit), false, nil
	case err != nil:
		return "", false, err
	}
	out := string(r.Stdout) + string(r.Stderr)
	return strings.TrimSpace(out[:min(len(out), maxBody)]), r.ExitCode == 0, nil
}

// Get sends a request to a container and fails unless the answer is 200 to 399.
// Lifecycle hooks use it too.
func Get(ctx context.Context, t Target, h *corev1.HTTPGetAction) error {
	port, err := Port(t.Container, h.Port)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(cmp.Or(string(h.Scheme), "http"))
	target, err := url.Parse(cmp.Or(h.Path, "/"))
	if err != nil {
		return fmt.Errorf("parse path %q: %w", h.Path, err)
	}
	target.Scheme, target.Host = scheme, net.JoinHostPort(cmp.Or(h.Host, t.IP), strconv.Itoa(port))
	if !strings.HasPrefix(target.Path, "/") {
		target.Path = "/" + target.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/1.36")
	req.Header.Set("Accept", "*/*")
	for _, header := range h.HTTPHeaders {
		if strings.EqualFold(header.Name, "Host") {
			req.Host = header.Value
			continue
		}
		req.Header.Add(header.Name, header.Value)
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Del("Accept") // an empty header asks for none
	}
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // pods sign their own
			DisableKeepAlives: true, DisableCompression: true, Proxy: nil,
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse // it did answer
			}
			return nil
		},
	}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d: %s", answer.StatusCode, strings.TrimSpace(string(body[:min(len(body), 256)])))
	}
	return nil
}

func askGRPC(ctx context.Context, t Target, h *corev1.GRPCAction) error {
	addr := net.JoinHostPort(t.IP, strconv.Itoa(int(h.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.36"), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer conn.Close() // one question only
	service := ""
	if h.Service != nil {
		service = *h.Service
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return fmt.Errorf("ask health of service %q at %s: %w", service, addr, err)
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", answer.GetStatus())
	}
	return nil
}

// Port is the number of a port that a container may name.
func Port(c *corev1.Container, port intstr.IntOrString) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("container %s has no port %s", c.Name, port.String())
	}
	return n, nil
}
