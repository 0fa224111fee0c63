package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"perch/agent/probe"
)

// hook runs a lifecycle handler to its end.
func (w *worker) hook(ctx context.Context, want *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler, ips []string) error {
	switch {
	case h.Exec != nil:
		r, err := w.agent.parts.Runtime.ExecSync(ctx, id, h.Exec.Command, 0)
		if err != nil {
			return err
		}
		if r.ExitCode != 0 {
			return fmt.Errorf("command %q exited with %d: %s", h.Exec.Command, r.ExitCode, tail(append(r.Stdout, r.Stderr...)))
		}
		return nil
	case h.HTTPGet != nil:
		if want.Spec.HostNetwork {
			ips = w.agent.cfg.IPs
		}
		target := probe.Target{Pod: want, Container: c, ContainerID: id}
		if len(ips) > 0 {
			target.IP = ips[0]
		}
		return probe.Get(ctx, target, h.HTTPGet)
	case h.Sleep != nil:
		t := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("lifecycle handler of container %s has no action", c.Name)
}

// tail is the end of an output, short enough for an event.
func tail(b []byte) string { return string(b[max(0, len(b)-256):]) }
