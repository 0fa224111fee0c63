package agent

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/output"
	"perch/agent/pod"
	"perch/agent/runtime"
)

// seen remembers what cannot change, so that a look costs two calls.
type seen struct {
	ips        map[string][]string      // of sandboxes
	containers map[string]pod.Container // by id; trusted while the state is the same
}

func newSeen() seen {
	return seen{ips: map[string][]string{}, containers: map[string]pod.Container{}}
}

// observe asks the runtime what there is of this pod.
func (w *worker) observe(ctx context.Context) (pod.Observed, error) {
	rt := w.agent.parts.Runtime
	label := map[string]string{pod.LabelUID: string(w.uid)}
	var have pod.Observed
	sandboxes, err := rt.ListPodSandbox(ctx, &cri.PodSandboxFilter{LabelSelector: label})
	if err != nil {
		return have, err
	}
	containers, err := rt.ListContainers(ctx, &cri.ContainerFilter{LabelSelector: label})
	if err != nil {
		return have, err
	}
	now := newSeen()
	for _, s := range sandboxes {
		ready := s.GetState() == cri.PodSandboxState_SANDBOX_READY
		ips := w.seen.ips[s.GetId()]
		if ready && len(ips) == 0 && !w.want.Spec.HostNetwork {
			st, err := rt.PodSandboxStatus(ctx, s.GetId())
			if errors.Is(err, runtime.ErrNotFound) {
				continue
			}
			if err != nil {
				return have, err
			}
			ips = addresses(st)
		}
		now.ips[s.GetId()] = ips
		if id := s.GetId(); ready {
			w.box.Store(&id)
		}
		have.Sandboxes = append(have.Sandboxes, pod.Sandbox{
			ID: s.GetId(), Attempt: s.GetMetadata().GetAttempt(), Ready: ready, CreatedAt: time.Unix(0, s.GetCreatedAt()), IPs: ips,
		})
	}
	for _, c := range containers {
		known, ok := w.seen.containers[c.GetId()]
		if fresh := pod.FromStatus(&cri.ContainerStatus{State: c.GetState()}, ""); !ok || known.State != fresh.State {
			st, err := rt.ContainerStatus(ctx, c.GetId())
			if errors.Is(err, runtime.ErrNotFound) {
				continue
			}
			if err != nil {
				return have, err
			}
			known = pod.FromStatus(st, c.GetPodSandboxId())
			if known.State == pod.Exited {
				w.ended(&known, known.Message)
				if w.agent.parts.Ended != nil {
					w.agent.parts.Ended(w.want, known.ID, known.ExitCode, known.Reason == "OOMKilled")
				}
			}
		}
		now.containers[known.ID] = known
		have.Containers = append(have.Containers, known)
	}
	w.seen = now
	have.Sort()
	return have, nil
}

func addresses(s *cri.PodSandboxStatus) []string {
	var ips []string
	if ip := s.GetNetwork().GetIp(); ip != "" {
		ips = append(ips, ip)
	}
	for _, more := range s.GetNetwork().GetAdditionalIps() {
		ips = append(ips, more.GetIp())
	}
	return ips
}

// limits of a container's last words, as Kubernetes has them.
const (
	messageBytes = 4096
	messageLines = 80
	logBytes     = 2048
)

// ended adds the last words of a container: its message file, or on request the
// end of its output.
func (w *worker) ended(c *pod.Container, fromRuntime string) {
	text, err := readHead(w.agent.places.MessageFile(string(w.uid), c.Name, c.Attempt), messageBytes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.log.Warn("termination message not read", "container", c.Name, "err", err)
	}
	spec := pod.Find(w.want, c.Name)
	if text == "" && c.ExitCode != 0 && spec != nil && spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		text, err = output.Last(c.LogPath, messageLines, logBytes)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.log.Warn("last lines not read", "container", c.Name, "err", err)
		}
	}
	c.Message = text
	if text == "" {
		c.Message = fromRuntime
	}
}

// readHead reads up to limit bytes of a file.
func readHead(path string, limit int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // read only
	buf := make([]byte, limit)
	n, err := f.Read(buf)
	if n == 0 {
		return "", nil //nolint:nilerr // an empty file ends at once
	}
	return strings.ToValidUTF8(string(buf[:n]), "�"), err
}
