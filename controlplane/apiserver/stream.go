package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/apimachinery/pkg/util/proxy"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	genericrest "k8s.io/apiserver/pkg/registry/generic/rest"
	"k8s.io/apiserver/pkg/registry/rest"
	streamproxy "k8s.io/apiserver/pkg/util/proxy"
)

// logREST streams a container's log from the node that keeps it.
type logREST struct {
	pods   *genericregistry.Store
	agents *agents
}

var (
	_ rest.GetterWithOptions = (*logREST)(nil)
	_ rest.StorageMetadata   = (*logREST)(nil)
)

// New is an empty Pod.
func (l *logREST) New() runtime.Object { return &corev1.Pod{} }

// Destroy leaves the shared storage alone.
func (l *logREST) Destroy() {}

// ProducesMIMETypes says that logs are text.
func (l *logREST) ProducesMIMETypes(string) []string { return []string{"text/plain"} }

// ProducesObject says that logs are text.
func (l *logREST) ProducesObject(string) any { return "" }

// NewGetOptions are the query parameters.
func (l *logREST) NewGetOptions() (runtime.Object, bool, string) {
	return &corev1.PodLogOptions{}, false, ""
}

// Get opens the stream.
func (l *logREST) Get(ctx context.Context, name string, options runtime.Object) (runtime.Object, error) {
	want, ok := options.(*corev1.PodLogOptions)
	if !ok {
		return nil, fmt.Errorf("BUG: log options are %T", options)
	}
	if err := checkLogOptions(want); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	o, err := l.pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	p := o.(*corev1.Pod)
	container, err := containerOf(p, want.Container)
	if err != nil {
		return nil, err
	}
	at, err := l.agents.podAt(ctx, p)
	if err != nil {
		return nil, err
	}
	at.Path, at.RawQuery = path.Join("/containerLogs", p.Namespace, p.Name, container), logQuery(want).Encode()
	return &genericrest.LocationStreamer{
		Location: at, Transport: l.agents.transport, ContentType: "text/plain", Flush: want.Follow,
		ResponseChecker: genericrest.NewGenericHttpResponseChecker(corev1.Resource("pods/log"), name),
		RedirectChecker: genericrest.PreventRedirects,
	}, nil
}

func checkLogOptions(o *corev1.PodLogOptions) error {
	switch {
	case o.TailLines != nil && *o.TailLines < 0:
		return fmt.Errorf("tailLines: %d is negative", *o.TailLines)
	case o.LimitBytes != nil && *o.LimitBytes < 1:
		return fmt.Errorf("limitBytes: %d is not positive", *o.LimitBytes)
	case o.SinceSeconds != nil && o.SinceTime != nil:
		return fmt.Errorf("sinceSeconds and sinceTime exclude each other")
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		return fmt.Errorf("sinceSeconds: %d is not positive", *o.SinceSeconds)
	case o.Stream != nil && !slices.Contains([]string{corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr}, *o.Stream):
		return fmt.Errorf("stream: %q is none of All, Stdout, Stderr", *o.Stream)
	}
	return nil
}

func logQuery(o *corev1.PodLogOptions) url.Values {
	q := url.Values{}
	for name, set := range map[string]bool{"follow": o.Follow, "previous": o.Previous, "timestamps": o.Timestamps} {
		if set {
			q.Set(name, "true")
		}
	}
	for name, n := range map[string]*int64{"tailLines": o.TailLines, "limitBytes": o.LimitBytes, "sinceSeconds": o.SinceSeconds} {
		if n != nil {
			q.Set(name, strconv.FormatInt(*n, 10))
		}
	}
	if o.SinceTime != nil {
		q.Set("sinceTime", o.SinceTime.Format(time.RFC3339Nano))
	}
	if o.Stream != nil {
		q.Set("stream", *o.Stream)
	}
	return q
}

// containerOf checks a container's name, or finds the only one.
func containerOf(p *corev1.Pod, want string) (string, error) {
	var names, first []string
	for _, c := range p.Spec.Containers {
		names, first = append(names, c.Name), append(first, c.Name)
	}
	for _, c := range p.Spec.InitContainers {
		names = append(names, c.Name)
	}
	for _, c := range p.Spec.EphemeralContainers {
		names = append(names, c.Name)
	}
	switch {
	case want == "" && len(first) == 1:
		return first[0], nil
	case want == "":
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", p.Name, strings.Join(names, " ")))
	case !slices.Contains(names, want):
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", want, p.Name))
	}
	return want, nil
}

// streamREST hands an upgraded connection through to the agent of a pod's node.
type streamREST struct {
	pods    *genericregistry.Store
	agents  *agents
	options func() runtime.Object
	target  func(p *corev1.Pod, options runtime.Object) (target, error)
}

// target is where a stream goes below the node's URL, and what it carries.
type target struct {
	path    string
	query   url.Values
	streams *streamproxy.Options // nil for port forwarding
}

var _ rest.Connecter = (*streamREST)(nil)

// New is an empty set of options.
func (s *streamREST) New() runtime.Object { return s.options() }

// Destroy leaves the shared storage alone.
func (s *streamREST) Destroy() {}

// NewConnectOptions are the query parameters.
func (s *streamREST) NewConnectOptions() (runtime.Object, bool, string) {
	return s.options(), false, ""
}

// ConnectMethods are those that carry an upgrade: SPDY uses POST, WebSocket GET.
func (s *streamREST) ConnectMethods() []string { return []string{http.MethodGet, http.MethodPost} }

// Connect answers with a handler for the upgraded connection. SPDY and older
// WebSocket protocols pass through as they are. The newest ones (v5 with a close
// signal, and tunnelled port forwarding) are translated to SPDY, which every
// agent speaks.
func (s *streamREST) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, err := s.pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	p := o.(*corev1.Pod)
	to, err := s.target(p, options)
	if err != nil {
		return nil, err
	}
	at, err := s.agents.podAt(ctx, p)
	if err != nil {
		return nil, err
	}
	at.Path, at.RawQuery = to.path, to.query.Encode()
	through := proxy.NewUpgradeAwareHandler(at, s.agents.transport, false, true, proxy.NewErrorResponder(responder))
	if to.streams == nil {
		return streamproxy.NewTranslatingHandler(through, streamproxy.NewTunnelingHandler(through), wsstream.IsWebSocketRequestWithTunnelingProtocol), nil
	}
	translate := streamproxy.NewStreamTranslatorHandler(at, s.agents.transport, 0, *to.streams)
	return streamproxy.NewTranslatingHandler(through, translate, wsstream.IsWebSocketRequestWithStreamCloseProtocol), nil
}

func execTarget(p *corev1.Pod, options runtime.Object) (target, error) {
	o := options.(*corev1.PodExecOptions)
	if len(o.Command) == 0 {
		return target{}, apierrors.NewBadRequest("you must specify at least 1 command for the container")
	}
	t, err := streamTarget("/exec", p, o.Container, streamproxy.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY})
	if err == nil {
		t.query["command"] = o.Command
	}
	return t, err
}

func attachTarget(p *corev1.Pod, options runtime.Object) (target, error) {
	o := options.(*corev1.PodAttachOptions)
	return streamTarget("/attach", p, o.Container, streamproxy.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY})
}

func streamTarget(verb string, p *corev1.Pod, want string, streams streamproxy.Options) (target, error) {
	container, err := containerOf(p, want)
	if err != nil {
		return target{}, err
	}
	if !streams.Stdin && !streams.Stdout && !streams.Stderr {
		return target{}, apierrors.NewBadRequest("you must specify at least one of stdin, stdout, stderr")
	}
	q := url.Values{}
	for name, set := range map[string]bool{
		corev1.ExecStdinParam: streams.Stdin, corev1.ExecStdoutParam: streams.Stdout,
		corev1.ExecStderrParam: streams.Stderr && !streams.Tty, corev1.ExecTTYParam: streams.Tty,
	} {
		if set {
			q.Set(name, "1")
		}
	}
	return target{path: path.Join(verb, p.Namespace, p.Name, container), query: q, streams: &streams}, nil
}

func forwardTarget(p *corev1.Pod, options runtime.Object) (target, error) {
	q := url.Values{}
	for _, port := range options.(*corev1.PodPortForwardOptions).Ports {
		q.Add(corev1.PortHeader, strconv.Itoa(int(port)))
	}
	return target{path: path.Join("/portForward", p.Namespace, p.Name), query: q}, nil
}
