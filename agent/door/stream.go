package door

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/proxy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/output"
	"perch/agent/pod"
	"perch/agent/runtime"
)

// problem is an error with the HTTP status that tells it.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

func fail(w http.ResponseWriter, err error) {
	var p *problem
	if errors.As(err, &p) {
		http.Error(w, p.text, p.status)
		return
	}
	status := http.StatusInternalServerError
	var known apierrors.APIStatus
	if errors.As(err, &known) && known.Status().Code != 0 {
		status = int(known.Status().Code)
	}
	if errors.Is(err, runtime.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}

// pod finds the pod a request names.
func (d *Door) pod(r *http.Request) (*corev1.Pod, error) {
	namespace, name, uid := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid")
	var found *corev1.Pod
	for _, p := range d.parts.Pods() {
		if p.Namespace != namespace || p.Name != name || uid != "" && string(p.UID) != uid {
			continue
		}
		if found == nil || found.DeletionTimestamp != nil || found.CreationTimestamp.Before(&p.CreationTimestamp) {
			found = p // of two with one name the newer one
		}
	}
	if found == nil {
		return nil, &problem{http.StatusNotFound, fmt.Sprintf("pod %q not found on this node", namespace+"/"+name)}
	}
	return found, nil
}

// container finds the status of the container a request names.
func (d *Door) container(r *http.Request) (*corev1.Pod, *corev1.ContainerStatus, error) {
	p, err := d.pod(r)
	if err != nil {
		return nil, nil, err
	}
	name := r.PathValue("container")
	if s := statusOf(p, name); s != nil {
		return p, s, nil
	}
	return nil, nil, &problem{http.StatusNotFound, fmt.Sprintf("container %q not found in pod %q", name, p.Name)}
}

func statusOf(p *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// running returns the runtime's id of a container that runs.
func (d *Door) running(r *http.Request) (string, error) {
	p, s, err := d.container(r)
	if err != nil {
		return "", err
	}
	_, id, _ := strings.Cut(s.ContainerID, "://")
	if s.State.Running == nil || id == "" {
		return "", &problem{http.StatusNotFound, fmt.Sprintf("container %q of pod %q is not running", s.Name, p.Name)}
	}
	return id, nil
}

// logs streams the output of a container.
func (d *Door) logs(w http.ResponseWriter, r *http.Request) {
	p, s, err := d.container(r)
	if err != nil {
		fail(w, err)
		return
	}
	o, previous, err := logOptions(r.URL.Query(), time.Now())
	if err != nil {
		fail(w, &problem{http.StatusUnprocessableEntity, err.Error()})
		return
	}
	attempt, ended, err := attemptOf(p, s, previous)
	if err != nil {
		fail(w, err)
		return
	}
	path := filepath.Join(d.cfg.Places.LogDir(p), pod.LogPath(s.Name, attempt))
	id := s.ContainerID
	alive := func() bool {
		if ended {
			return false
		}
		for _, now := range d.parts.Pods() {
			if now.UID == p.UID {
				st := statusOf(now, s.Name)
				return st != nil && st.State.Running != nil && st.ContainerID == id
			}
		}
		return false
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := &started{ResponseWriter: w}
	if err := output.Read(r.Context(), path, o, alive, out); err != nil {
		if out.begun {
			d.log.Debug("output not sent to its end", "namespace", p.Namespace, "pod", p.Name, "err", err)
			return
		}
		fail(w, err)
	}
}

// started notes whether an answer has begun, after which its status is fixed.
type started struct {
	http.ResponseWriter
	begun bool
}

func (s *started) Write(b []byte) (int, error) {
	s.begun = true
	return s.ResponseWriter.Write(b)
}

// Flush sends what was written. It also sends the header, so that a follower
// knows that it is connected.
func (s *started) Flush() {
	s.begun = true
	_ = http.NewResponseController(s.ResponseWriter).Flush() // the client may be gone
}

// attemptOf says which attempt's output to read and whether it has ended.
func attemptOf(p *corev1.Pod, s *corev1.ContainerStatus, previous bool) (uint32, bool, error) {
	attempt := uint32(s.RestartCount)
	if previous {
		if s.LastTerminationState.Terminated == nil || attempt == 0 && s.State.Waiting == nil {
			return 0, false, &problem{http.StatusBadRequest, fmt.Sprintf("previous terminated container %q in pod %q not found", s.Name, p.Name)}
		}
		// A container that waits for its restart has the last attempt's number.
		if s.State.Waiting == nil {
			attempt--
		}
		return attempt, true, nil
	}
	switch {
	case s.State.Running != nil:
		return attempt, false, nil
	case s.State.Terminated != nil, s.LastTerminationState.Terminated != nil:
		return attempt, true, nil
	}
	reason := "unknown"
	if s.State.Waiting != nil {
		reason = s.State.Waiting.Reason
	}
	return 0, false, &problem{http.StatusBadRequest, fmt.Sprintf("container %q in pod %q is waiting to start: %s", s.Name, p.Name, reason)}
}

// logOptions reads the query of a logs request.
func logOptions(q url.Values, now time.Time) (output.Options, bool, error) {
	o := output.Options{Tail: -1, Limit: -1}
	o.Follow, o.Timestamps = isTrue(q.Get("follow")), isTrue(q.Get("timestamps"))
	number := func(name string, into *int64, least int64) error {
		text := q.Get(name)
		if text == "" {
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < least {
			return fmt.Errorf("%s: want a number of at least %d, got %q", name, least, text)
		}
		*into = n
		return nil
	}
	since := int64(-1)
	if err := errors.Join(number("tailLines", &o.Tail, 0), number("limitBytes", &o.Limit, 1), number("sinceSeconds", &since, 1)); err != nil {
		return o, false, err
	}
	if since > 0 {
		o.Since = now.Add(-time.Duration(since) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || since > 0 {
			return o, false, fmt.Errorf("sinceTime: want an RFC 3339 time, and no sinceSeconds beside it, got %q", text)
		}
		o.Since = t
	}
	switch stream := strings.ToLower(q.Get("stream")); stream {
	case "", "all":
	case "stdout", "stderr":
		o.Stream = stream
	default:
		return o, false, fmt.Errorf("stream: want All, Stdout or Stderr, got %q", stream)
	}
	return o, isTrue(q.Get("previous")), nil
}

func isTrue(text string) bool { return text == "1" || text == "true" }

// asks reads which streams a request wants, in kubelet's words or the API's.
func asks(q url.Values, kubelet, api string) bool {
	return isTrue(q.Get(kubelet)) || isTrue(q.Get(api))
}

func (d *Door) exec(w http.ResponseWriter, r *http.Request) {
	id, err := d.running(r)
	if err != nil {
		fail(w, err)
		return
	}
	q := r.URL.Query()
	req := &cri.ExecRequest{
		ContainerId: id, Cmd: q["command"], Tty: isTrue(q.Get("tty")),
		Stdin: asks(q, "input", "stdin"), Stdout: asks(q, "output", "stdout"), Stderr: asks(q, "error", "stderr"),
	}
	if req.Tty {
		req.Stderr = false // a terminal has one output
	}
	if len(req.Cmd) == 0 || !req.Stdin && !req.Stdout && !req.Stderr {
		fail(w, &problem{http.StatusBadRequest, "you must name a command and at least one of stdin, stdout, stderr"})
		return
	}
	target, err := d.parts.Runtime.Exec(r.Context(), req)
	d.pass(w, r, target, err)
}

func (d *Door) attach(w http.ResponseWriter, r *http.Request) {
	id, err := d.running(r)
	if err != nil {
		fail(w, err)
		return
	}
	q := r.URL.Query()
	req := &cri.AttachRequest{
		ContainerId: id, Tty: isTrue(q.Get("tty")),
		Stdin: asks(q, "input", "stdin"), Stdout: asks(q, "output", "stdout"), Stderr: asks(q, "error", "stderr"),
	}
	if req.Tty {
		req.Stderr = false // a terminal has one output
	}
	target, err := d.parts.Runtime.Attach(r.Context(), req)
	d.pass(w, r, target, err)
}

func (d *Door) portForward(w http.ResponseWriter, r *http.Request) {
	p, err := d.pod(r)
	if err != nil {
		fail(w, err)
		return
	}
	sandboxes, err := d.parts.Runtime.ListPodSandbox(r.Context(), &cri.PodSandboxFilter{
		State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{pod.LabelUID: string(p.UID)},
	})
	if err == nil && len(sandboxes) == 0 {
		err = &problem{http.StatusNotFound, fmt.Sprintf("pod %q is not running", p.Name)}
	}
	if err != nil {
		fail(w, err)
		return
	}
	req := &cri.PortForwardRequest{PodSandboxId: sandboxes[0].GetId()}
	for _, list := range append(r.URL.Query()["port"], r.URL.Query()["ports"]...) {
		for text := range strings.SplitSeq(list, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				fail(w, &problem{http.StatusBadRequest, fmt.Sprintf("port %q: want 1 to 65535", text)})
				return
			}
			req.Port = append(req.Port, int32(port))
		}
	}
	target, err := d.parts.Runtime.PortForward(r.Context(), req)
	d.pass(w, r, target, err)
}

// pass connects the client with the runtime's stream.
func (d *Door) pass(w http.ResponseWriter, r *http.Request, target string, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	where, err := url.Parse(target)
	if err != nil {
		fail(w, fmt.Errorf("parse stream address: %w", err))
		return
	}
	h := proxy.NewUpgradeAwareHandler(where, nil, false, true, responder{})
	h.ServeHTTP(w, r)
}

type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) { fail(w, err) }

// run runs a command without streams and answers with its output.
func (d *Door) run(w http.ResponseWriter, r *http.Request) {
	id, err := d.running(r)
	if err != nil {
		fail(w, err)
		return
	}
	got, err := d.parts.Runtime.ExecSync(r.Context(), id, strings.Fields(r.URL.Query().Get("cmd")), time.Minute)
	if err != nil {
		fail(w, err)
		return
	}
	if got.ExitCode != 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = w.Write(append(got.Stdout, got.Stderr...)) // the client may be gone
}
