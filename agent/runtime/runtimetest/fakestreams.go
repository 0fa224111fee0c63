package runtimetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"perch/agent/runtime"
)

// streamServer starts the fake's streaming door when it is first needed.
func (f *Fake) streamServer() (streaming.Server, error) {
	var err error
	f.serveStream.Do(func() {
		if f.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return
		}
		cfg := streaming.DefaultConfig
		cfg.Addr = f.listener.Addr().String()
		cfg.BaseURL = &url.URL{Scheme: "http", Host: cfg.Addr}
		if f.streams, err = streaming.NewServer(cfg, streams{f}); err != nil {
			return
		}
		go func() { _ = http.Serve(f.listener, f.streams) }()
	})
	return f.streams, err
}

// Exec implements runtime.Streams.
func (f *Fake) Exec(_ context.Context, req *cri.ExecRequest) (string, error) {
	s, err := f.streamServer()
	if err != nil {
		return "", err
	}
	if !f.isRunning(req.ContainerId) {
		return "", fmt.Errorf("exec in container %s: %w", req.ContainerId, runtime.ErrState)
	}
	r, err := s.GetExec(req)
	return r.GetUrl(), err
}

// Attach implements runtime.Streams.
func (f *Fake) Attach(_ context.Context, req *cri.AttachRequest) (string, error) {
	s, err := f.streamServer()
	if err != nil {
		return "", err
	}
	if !f.isRunning(req.ContainerId) {
		return "", fmt.Errorf("attach to container %s: %w", req.ContainerId, runtime.ErrState)
	}
	r, err := s.GetAttach(req)
	return r.GetUrl(), err
}

// PortForward implements runtime.Streams.
func (f *Fake) PortForward(_ context.Context, req *cri.PortForwardRequest) (string, error) {
	s, err := f.streamServer()
	if err != nil {
		return "", err
	}
	r, err := s.GetPortForward(req)
	return r.GetUrl(), err
}

// streams is the other side of the streaming door.
type streams struct{ f *Fake }

type exitError struct{ code int }

func (e exitError) Error() string   { return fmt.Sprintf("command terminated with exit code %d", e.code) }
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return e.code }

// Exec runs a command in a container with streams.
func (s streams) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	s.f.mu.Lock()
	c := s.f.containers[id]
	run, ok := s.f.lookup("", cmd)
	s.f.mu.Unlock()
	if c == nil || !ok {
		return fmt.Errorf("exec %q: executable file not found in $PATH", cmd)
	}
	p := &Process{Ctx: ctx, Args: cmd, Env: env(c.config), Stdin: in, Stdout: io.Discard, Stderr: io.Discard}
	if out != nil {
		p.Stdout = out
	}
	if errOut != nil {
		p.Stderr = errOut
	}
	if code := run(p); code != 0 {
		return exitError{code}
	}
	return nil
}

// Attach connects to a container's stdin; its output goes to the log only.
func (s streams) Attach(_ context.Context, id string, in io.Reader, _, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	s.f.mu.Lock()
	c := s.f.containers[id]
	s.f.mu.Unlock()
	if c == nil {
		return runtime.ErrNotFound
	}
	if in != nil {
		_, err := io.Copy(c.stdin, in)
		return err
	}
	<-c.ended
	return nil
}

// PortForward connects to a port of this machine: fake pods have no network.
func (s streams) PortForward(ctx context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(conn, stream) }()
	_, err = io.Copy(stream, conn)
	return err
}
