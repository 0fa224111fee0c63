package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Store is the part of the runtime that holds images; runtime.Service is one.
type Store interface {
	ImageStatus(ctx context.Context, image *cri.ImageSpec) (*cri.Image, error)
	PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, pod *cri.PodSandboxConfig) (string, error)
}

// Config limits the puller.
type Config struct {
	Parallel int // pulls at the same time; 3
	Remember int // images whose failures are remembered; 1000, the oldest is forgotten
}

// Request is one container's wish for its image.
type Request struct {
	Image   string // as the pod's spec says
	Policy  corev1.PullPolicy
	Secrets []corev1.Secret       // the pod's pull secrets, as far as they exist
	Pod     *cri.PodSandboxConfig // for runtimes that pull per pod; may be nil
}

// Result is an image that can be used.
type Result struct {
	ID     string        // what CreateContainer takes
	Ref    string        // for containerStatuses[].imageID
	Image  *cri.Image    // with its default user and size
	Pulled bool          // fetched just now
	Took   time.Duration // of the pull, waiting for a place included
	Waited time.Duration // for a place
}

// Puller makes sure that images are on the node. Callers for the same image
// with the same credentials share one pull. When all places are taken, callers
// wait in line for as long as their context allows; perch_image_pulls_waiting
// tells how many.
type Puller struct {
	cfg    Config
	store  Store
	log    *slog.Logger
	places chan struct{}
	now    func() time.Time
	m      *metrics

	mu    sync.Mutex
	past  map[string]Attempt // by normalized name
	under map[string]*flight // by name and credentials
}

type flight struct {
	done   chan struct{}
	waited time.Duration
	err    error
}

type metrics struct {
	pulls   *prometheus.CounterVec
	seconds prometheus.Histogram
	waiting prometheus.Gauge
}

// New makes a puller.
func New(cfg Config, store Store, log *slog.Logger, reg prometheus.Registerer) *Puller {
	cfg.Parallel, cfg.Remember = cmp.Or(cfg.Parallel, 3), cmp.Or(cfg.Remember, 1000)
	m := &metrics{
		pulls:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_image_pulls_total", Help: "Image pulls by result: ok, failed."}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_image_pull_duration_seconds", Help: "How long pulls took.", Buckets: []float64{.1, .5, 2, 10, 30, 120, 600}}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_image_pulls_waiting", Help: "Pulls that wait for a place."}),
	}
	reg.MustRegister(m.pulls, m.seconds, m.waiting)
	return &Puller{cfg: cfg, store: store, log: log, places: make(chan struct{}, cfg.Parallel), now: time.Now, m: m,
		past: map[string]Attempt{}, under: map[string]*flight{}}
}

// Ensure returns the image, pulling it if the policy asks for it. Its error is
// a *Waiting, or the context's.
func (p *Puller) Ensure(ctx context.Context, want Request) (Result, error) {
	name, err := Normalize(want.Image)
	if err != nil {
		return Result{}, err
	}
	spec := &cri.ImageSpec{Image: name, UserSpecifiedImage: want.Image}
	have, err := p.store.ImageStatus(ctx, spec)
	if err != nil {
		return Result{}, &Waiting{Reason: ReasonInspect, Message: fmt.Sprintf("Failed to inspect image %q: %v", want.Image, err), Retry: p.now().Add(firstDelay), Err: err}
	}
	p.mu.Lock()
	past := p.past[name]
	p.mu.Unlock()
	pull, err := Decide(p.now(), want.Image, want.Policy, have != nil, past)
	if err != nil {
		return Result{}, err
	}
	if !pull {
		return result(have), nil
	}
	start := p.now()
	waited, err := p.share(ctx, name, spec, want)
	if err != nil {
		return Result{}, err
	}
	if have, err = p.store.ImageStatus(ctx, spec); err != nil || have == nil {
		return Result{}, &Waiting{Reason: ReasonInspect, Message: fmt.Sprintf("Failed to inspect image %q after it was pulled", want.Image), Retry: p.now().Add(firstDelay), Err: err}
	}
	r := result(have)
	r.Pulled, r.Took, r.Waited = true, p.now().Sub(start), waited
	return r, nil
}

func result(img *cri.Image) Result {
	r := Result{ID: img.Id, Ref: img.Id, Image: img}
	if len(img.RepoDigests) > 0 {
		r.Ref = img.RepoDigests[0]
	}
	return r
}

// share joins a pull under way or starts one.
func (p *Puller) share(ctx context.Context, name string, spec *cri.ImageSpec, want Request) (time.Duration, error) {
	auths, problems := Credentials(name, want.Secrets)
	for _, err := range problems {
		p.log.Warn("pull secret not usable", "image", name, "err", err)
	}
	key := name
	for _, a := range auths {
		key += "\x00" + a.Username + "\x00" + a.Password + "\x00" + a.IdentityToken + "\x00" + a.RegistryToken
	}
	p.mu.Lock()
	f, shared := p.under[key]
	if !shared {
		f = &flight{done: make(chan struct{})}
		p.under[key] = f
	}
	p.mu.Unlock()
	if shared {
		select {
		case <-f.done:
			if (errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)) && ctx.Err() == nil {
				return p.share(ctx, name, spec, want) // the other one gave up, we did not
			}
			return f.waited, f.err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	f.waited, f.err = p.pull(ctx, name, spec, auths, want)
	p.mu.Lock()
	delete(p.under, key)
	p.mu.Unlock()
	close(f.done)
	return f.waited, f.err
}

// pull takes a place and tries the credentials in turn, then none.
func (p *Puller) pull(ctx context.Context, name string, spec *cri.ImageSpec, auths []*cri.AuthConfig, want Request) (time.Duration, error) {
	start := p.now()
	p.m.waiting.Inc()
	select {
	case p.places <- struct{}{}:
		p.m.waiting.Dec()
	case <-ctx.Done():
		p.m.waiting.Dec()
		return 0, ctx.Err()
	}
	defer func() { <-p.places }()
	begun := p.now()
	if len(auths) == 0 {
		auths = []*cri.AuthConfig{nil}
	}
	var err error
	for _, auth := range auths {
		if _, err = p.store.PullImage(ctx, spec, auth, want.Pod); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil && ctx.Err() != nil {
		return 0, ctx.Err() // the pod went; that says nothing about the image
	}
	p.m.seconds.Observe(p.now().Sub(begun).Seconds())
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.m.pulls.WithLabelValues("ok").Inc()
		delete(p.past, name)
		p.log.Info("image pulled", "image", name, "took", p.now().Sub(begun))
		return begun.Sub(start), nil
	}
	p.m.pulls.WithLabelValues("failed").Inc()
	p.remember(name, err)
	return 0, &Waiting{Reason: ReasonPull, Message: fmt.Sprintf("Failed to pull image %q: %v", want.Image, err), Retry: p.past[name].Next(), Err: err}
}

// remember counts a failure, with the lock held.
func (p *Puller) remember(name string, err error) {
	if _, known := p.past[name]; !known && len(p.past) >= p.cfg.Remember {
		oldest := ""
		for n, a := range p.past {
			if oldest == "" || a.Last.Before(p.past[oldest].Last) {
				oldest = n
			}
		}
		delete(p.past, oldest)
	}
	p.past[name] = Attempt{Failures: p.past[name].Failures + 1, Last: p.now(), Message: err.Error()}
}
