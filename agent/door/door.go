package door

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/pod"
	"perch/agent/runtime"
)

// Config is where the door is and whom it knows.
type Config struct {
	Listen string // address, e.g. ":10250"
	Node   string // name of the Node object
	// Certificate gives the serving certificate for each connection, so that it
	// can be renewed.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ClientCA    *x509.CertPool // of client certificates
	Places      pod.Places     // where output lies
	Streams     int            // long-lived requests at the same time; 0 means 256
	Crowd       Crowd          // bounds connections; nil: any number
}

// Crowd bounds the connections of a listener. Those of strangers make room.
type Crowd interface {
	Listen(l net.Listener) net.Listener
	Known(remote string) // the connection from there is not a stranger's
}

// arrival is how long a request may take to arrive before it is known that its
// sender may send it.
const arrival = 30 * time.Second

// Streams are the runtime's calls that the door needs.
type Streams interface {
	Exec(ctx context.Context, req *cri.ExecRequest) (string, error)
	Attach(ctx context.Context, req *cri.AttachRequest) (string, error)
	PortForward(ctx context.Context, req *cri.PortForwardRequest) (string, error)
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (runtime.ExecResult, error)
	ListPodSandbox(ctx context.Context, filter *cri.PodSandboxFilter) ([]*cri.PodSandbox, error)
}

// Attributes are what a request wants to do: a verb on a subresource of the
// node.
type Attributes struct{ Verb, Subresource, Path string }

// Parts are what the door opens to.
type Parts struct {
	Pods    func() []*corev1.Pod // of this node, with their newest status; read-only
	Runtime Streams
	// Authenticate says who sends a request that brings no valid client
	// certificate; false without an error means nobody known.
	Authenticate func(ctx context.Context, bearer string) (user.Info, bool, error)
	// Authorize says whether somebody may, and if not why.
	Authorize func(ctx context.Context, who user.Info, what Attributes) (bool, string, error)
	// Handlers by path: "/metrics", "/metrics/cadvisor", "/metrics/resource",
	// "/metrics/probes", "/stats/summary", and whatever else; a path that ends
	// with a slash takes all below it.
	Handlers map[string]http.Handler
}

// Door serves one node.
type Door struct {
	cfg      Config
	parts    Parts
	log      *slog.Logger
	listener net.Listener
	streams  chan struct{}
	requests *prometheus.CounterVec
	open     prometheus.Gauge
	arrival  time.Duration
}

// New opens the listener. Run serves on it.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Door, error) {
	if cfg.Streams <= 0 {
		cfg.Streams = 256
	}
	if cfg.Certificate == nil || parts.Authenticate == nil || parts.Authorize == nil {
		return nil, errors.New("open agent door: certificate, authentication and authorization are required")
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("open agent door: %w", err)
	}
	if cfg.Crowd != nil {
		l = cfg.Crowd.Listen(l)
	}
	d := &Door{
		cfg: cfg, parts: parts, log: log, listener: l, streams: make(chan struct{}, cfg.Streams), arrival: arrival,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_door_requests_total", Help: "Requests to the kubelet API, by what they want and how they were received."}, []string{"subresource", "result"}),
		open:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_door_streams", Help: "Logs, exec, attach and port-forward requests that are open."}),
	}
	reg.MustRegister(d.requests, d.open)
	return d, nil
}

// Addr is where the door listens.
func (d *Door) Addr() net.Addr { return d.listener.Addr() }

// Run serves until ctx ends; open streams then get a second.
func (d *Door) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           d.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: d.cfg.Certificate,
			ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: d.cfg.ClientCA,
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(d.listener, "", "") }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve agent door: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if server.Shutdown(limit) != nil {
		_ = server.Close() // streams outlive any patience
	}
	<-ended
	return nil
}

// routes are all doors. Everything but /healthz passes guard.
func (d *Door) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	private := http.NewServeMux()
	private.HandleFunc("GET /pods", d.pods)
	private.HandleFunc("GET /pods/", d.pods)
	private.HandleFunc("GET /runningpods/", d.runningPods)
	private.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", d.limited(d.logs))
	for _, method := range []string{"GET", "POST"} {
		private.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", d.limited(d.exec))
		private.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", d.limited(d.exec))
		private.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", d.limited(d.attach))
		private.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", d.limited(d.attach))
		private.HandleFunc(method+" /portForward/{namespace}/{pod}", d.limited(d.portForward))
		private.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", d.limited(d.portForward))
	}
	private.HandleFunc("POST /run/{namespace}/{pod}/{container}", d.limited(d.run))
	private.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", d.limited(d.run))
	for path, h := range d.parts.Handlers {
		private.Handle(path, h)
	}
	mux.Handle("/", d.guard(private))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Also a body that nobody reads: the server waits for its end before it answers.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d.arrival)) // what has none ends with its client
		mux.ServeHTTP(w, r)
	})
}

// limited bounds requests that may stay open for long.
func (d *Door) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case d.streams <- struct{}{}:
		default:
			http.Error(w, fmt.Sprintf("%d streams are open on this node, the most it allows; try again later", cap(d.streams)), http.StatusTooManyRequests)
			return
		}
		d.open.Inc()
		defer func() { <-d.streams; d.open.Dec() }()
		next(w, r)
	}
}

func (d *Door) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{}}
	for _, p := range d.parts.Pods() {
		list.Items = append(list.Items, *p)
	}
	answer(w, list)
}

// runningPods tells only what runs now, as the runtime has it.
func (d *Door) runningPods(w http.ResponseWriter, r *http.Request) {
	sandboxes, err := d.parts.Runtime.ListPodSandbox(r.Context(), &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{}}
	for _, s := range sandboxes {
		m := s.GetMetadata()
		p := corev1.Pod{}
		p.Name, p.Namespace, p.UID = m.GetName(), m.GetNamespace(), types.UID(m.GetUid())
		list.Items = append(list.Items, p)
	}
	answer(w, list)
}

func answer(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // the client may be gone
}
