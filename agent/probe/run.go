package probe

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"perch/agent/pod"
	"perch/agent/runtime"
	"perch/controlplane/event"
)

// Config bounds the probes of a node.
type Config struct {
	AtOnce int // probes that run at the same time
}

// Default suits a node of some hundred pods.
func Default() Config { return Config{AtOnce: 64} }

// Exec runs a command in a container.
type Exec interface {
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (runtime.ExecResult, error)
}

// Hooks are called with results, from several goroutines at once; none may
// block.
type Hooks struct {
	Changed func(types.UID) // what Health says about a pod has changed
	Tell    event.Tell      // failures become events
	Observe func(Result)    // each single result
}

// Result is the outcome of one probe.
type Result struct {
	Namespace, Pod, Container string
	UID                       types.UID
	Kind                      Kind
	OK                        bool
	Reason                    string // why not OK, or what an OK probe said
	At                        time.Time
	Took                      time.Duration
}

// Target is one running container instance.
type Target struct {
	Pod         *corev1.Pod
	Container   *corev1.Container
	ContainerID string
	IP          string
	StartedAt   time.Time
	Ending      bool // the pod is being deleted
	// What was known of this very instance before, so that a restart of the
	// agent does not make it unready.
	Started, Ready bool
}

// Probes keeps the probes of a node.
type Probes struct {
	cfg   Config
	exec  Exec
	hooks Hooks
	log   *slog.Logger
	slots chan struct{}
	wait  prometheus.Gauge
	runs  *prometheus.CounterVec

	mu    sync.Mutex // guards all below
	start func(*subject)
	pods  map[types.UID]map[string]*subject // by container name
}

// subject is one container instance with its probes.
type subject struct {
	stop context.CancelFunc

	mu     sync.Mutex // guards all below
	target Target
	states map[Kind]state
}

// New makes the probes of a node; Run runs them.
func New(cfg Config, exec Exec, hooks Hooks, log *slog.Logger, reg prometheus.Registerer) *Probes {
	p := &Probes{
		cfg: cfg, exec: exec, hooks: hooks, log: log, slots: make(chan struct{}, cfg.AtOnce), pods: map[types.UID]map[string]*subject{},
		wait: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_probe_waiting", Help: "Probes that wait because too many run at the same time."}),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_probe_runs_total", Help: "Probes run, by kind and result."}, []string{"kind", "result"}),
	}
	reg.MustRegister(p.wait, p.runs)
	return p
}

// Run runs probes until ctx ends.
func (p *Probes) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	p.mu.Lock()
	p.start = func(s *subject) {
		ctx, cancel := context.WithCancel(ctx)
		s.stop = cancel
		for kind, probe := range probesOf(s.target.Container) {
			running.Go(func() { p.watch(ctx, s, kind, probe) })
		}
	}
	for _, subjects := range p.pods {
		for _, s := range subjects {
			p.start(s)
		}
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.start = nil
	p.mu.Unlock()
	return nil
}

// Keep sets which containers of a pod run. Probes of new instances start, those
// of others end.
func (p *Probes) Keep(uid types.UID, targets []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.pods[uid]
	now := map[string]*subject{}
	for _, t := range targets {
		if len(probesOf(t.Container)) == 0 {
			continue
		}
		s := old[t.Container.Name]
		if s != nil && s.id() == t.ContainerID {
			s.update(t)
			now[t.Container.Name] = s
			continue
		}
		s = newSubject(t)
		now[t.Container.Name] = s
		if p.start != nil {
			p.start(s)
		}
	}
	for name, s := range old {
		if now[name] != s && s.stop != nil {
			s.stop()
		}
	}
	if len(now) == 0 {
		delete(p.pods, uid)
		return
	}
	p.pods[uid] = now
}

// Health says what is known about the containers of a pod that have probes.
func (p *Probes) Health(uid types.UID) map[string]pod.Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]pod.Health{}
	for name, s := range p.pods[uid] {
		out[name] = s.health()
	}
	return out
}

func probesOf(c *corev1.Container) map[Kind]*corev1.Probe {
	out := map[Kind]*corev1.Probe{}
	for kind, p := range map[Kind]*corev1.Probe{Startup: c.StartupProbe, Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe} {
		if p != nil {
			out[kind] = p
		}
	}
	return out
}

func newSubject(t Target) *subject {
	s := &subject{target: t, states: map[Kind]state{}}
	for kind := range probesOf(t.Container) {
		s.states[kind] = begin(kind, kind == Startup && t.Started || kind == Readiness && t.Ready)
	}
	return s
}

func (s *subject) id() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.target.ContainerID
}

func (s *subject) since() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.target.StartedAt
}

func (s *subject) update(t Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = t
	for kind, known := range map[Kind]bool{Startup: t.Started, Readiness: t.Ready} {
		if st, has := s.states[kind]; has && known && !st.decided && st.run == 0 {
			s.states[kind] = begin(kind, true) // the API knew it, and has just said so
		}
	}
}

func (s *subject) health() pod.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := pod.Health{ContainerID: s.target.ContainerID, Started: s.started(), Ready: true}
	if st, has := s.states[Readiness]; has {
		h.Ready = st.ok
	}
	for _, kind := range []Kind{Startup, Liveness} {
		if st := s.states[kind]; st.hold {
			h.Unhealthy = fmt.Sprintf("%s probe", lower(kind))
		}
	}
	return h
}

// started needs mu.
func (s *subject) started() bool {
	st, has := s.states[Startup]
	return !has || st.ok
}

func lower(k Kind) string { return string(k[0]|0x20) + string(k[1:]) }

// watch runs one probe in its rhythm until ctx ends.
func (p *Probes) watch(ctx context.Context, s *subject, kind Kind, probe *corev1.Probe) {
	every := period(probe)
	// The first probe of a new container comes at once. After a restart of the
	// agent they spread over their period.
	wait := rand.N(100 * time.Millisecond)
	if time.Since(s.since()) > 10*time.Second {
		wait = rand.N(every)
	}
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		wait = every
		s.mu.Lock()
		target := s.target
		ok := due(kind, probe, s.started(), target.Ending, time.Since(target.StartedAt)) && !s.states[kind].hold
		s.mu.Unlock()
		if ok {
			p.once(ctx, s, target, kind, probe)
		} else if left := time.Duration(probe.InitialDelaySeconds)*time.Second - time.Since(target.StartedAt); left > 0 {
			wait = min(every, left+10*time.Millisecond)
		} else {
			wait = min(every, time.Second) // it waits for the startup probe
		}
	}
}

// once runs a probe and takes its outcome.
func (p *Probes) once(ctx context.Context, s *subject, target Target, kind Kind, probe *corev1.Probe) {
	p.wait.Inc()
	select {
	case p.slots <- struct{}{}:
		p.wait.Dec()
		defer func() { <-p.slots }()
	case <-ctx.Done():
		p.wait.Dec()
		return
	}
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, timeout(probe))
	reason, ok, err := ask(limited, p.exec, target, &probe.ProbeHandler, timeout(probe))
	cancel()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.runs.WithLabelValues(lower(kind), "unknown").Inc()
		p.log.Debug("probe did not reach its container", "pod", target.Pod.Name, "container", target.Container.Name, "err", err)
		return
	}
	r := Result{
		Namespace: target.Pod.Namespace, Pod: target.Pod.Name, UID: target.Pod.UID, Container: target.Container.Name,
		Kind: kind, OK: ok, Reason: reason, At: start, Took: time.Since(start),
	}
	p.runs.WithLabelValues(lower(kind), map[bool]string{true: "successful", false: "failed"}[ok]).Inc()
	p.hooks.Observe(r)
	if !ok {
		ref := event.Ref(target.Pod, "v1", "Pod")
		ref.FieldPath = "spec.containers{" + target.Container.Name + "}"
		p.hooks.Tell(event.Record{Component: "kubelet", Object: ref, Type: event.Warning, Reason: "Unhealthy", Message: fmt.Sprintf("%s probe failed: %s", kind, reason)})
	}
	s.mu.Lock()
	next, changed := s.states[kind].after(ok, probe)
	s.states[kind] = next
	s.mu.Unlock()
	if changed {
		p.hooks.Changed(target.Pod.UID)
	}
}
