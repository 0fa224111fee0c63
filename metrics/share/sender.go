package share

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/stream"
)

// Config says whose samples are sent.
type Config struct {
	Self string        // on the server, which keeps what it made itself: its name; else empty
	WAL  string        // directory of the store with this node's own samples
	Dir  string        // for what must survive a restart
	Look time.Duration // between looks who the stores are
	// Forget is how long a store that is away keeps its place. Its samples wait in
	// the WAL as long, see stream.ForwardConfig.
	Forget time.Duration
	// Forward is how each forwarder goes about it; the rest of it is set here.
	Forward stream.ForwardConfig
}

// Default has the times; the rest is the caller's.
func Default() Config {
	return Config{Look: 5 * time.Second, Forget: 3 * time.Hour, Forward: stream.DefaultForward("")}
}

// Parts are a Sender's collaborators.
type Parts struct {
	// Stores tells who is there now.
	Stores func(context.Context) []Store
	// To says how samples get to a store that is not the server.
	To func(Store) (url string, client *http.Client)
	// Hold has the WAL kept.
	Hold func(bool)
	// First is called before series begin to be shared; nil: nothing is to be done.
	First func() error
}

// Sender sends each of a node's own series to the stores where it belongs, except
// to the server's: a worker's forwarder to it does that, with PickServer.
type Sender struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	reg     prometheus.Registerer
	history *History
	holds   *Holds
	changes prometheus.Counter
}

// NewSender reads what it remembers.
func NewSender(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Sender, error) {
	h, err := openHistory(filepath.Join(cfg.Dir, "stores.json"), cfg.WAL)
	if err != nil {
		return nil, err
	}
	s := &Sender{cfg: cfg, parts: parts, log: log, reg: reg, history: h, holds: &Holds{hold: parts.Hold},
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_share_changes_total", Help: "Times that stores of series came or went for good."})}
	for _, c := range []prometheus.Collector{s.changes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_share_stores", Help: "Stores over which series are spread; 0: the server's has all."},
			func() float64 { return float64(len(shared(s.Stores()))) })} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of sharing: %w", err)
		}
	}
	return s, nil
}

// PickServer chooses what goes to the server.
func (s *Sender) PickServer() stream.Pick { return s.history.pick(theServer, s.cfg.Self) }

// Holds lets another forwarder from the same WAL have it kept too.
func (s *Sender) Holds() *Holds { return s.holds }

// Stores are those over which series are spread, by name. Fewer than two: the
// server has all.
func (s *Sender) Stores() (out []Store) {
	for _, x := range s.history.seen() {
		out = append(out, x.Store)
	}
	return out
}

// Run looks who the stores are, and sends, until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	running := map[string]*forwarding{}
	defer func() {
		for _, f := range running {
			f.stop()
		}
	}()
	failed := make(chan error, 1)
	for {
		if err := s.look(ctx); err != nil {
			s.log.Error("change of stores was not taken, trying again", "err", err)
		}
		if err := s.follow(ctx, running, failed); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-time.After(s.cfg.Look):
		}
	}
}

// look takes over who the stores are.
func (s *Sender) look(ctx context.Context) error {
	now := time.Now()
	want, reason := Decide(s.history.seen(), s.parts.Stores(ctx), now, s.cfg.Forget)
	changed, err := s.history.became(want, now, s.parts.First)
	if err != nil {
		return err
	}
	if changed {
		s.changes.Inc()
		s.log.Info("stores of series changed", "stores", strings.Join(shared(s.Stores()), " "), "reason", reason)
	}
	return nil
}

// forwarding is a forwarder that runs.
type forwarding struct {
	to   Store
	stop func()
}

// follow has a forwarder for each store, at its address.
func (s *Sender) follow(ctx context.Context, running map[string]*forwarding, failed chan<- error) error {
	stores := s.Stores()
	names := shared(stores)
	for name, f := range running {
		if !slices.Contains(names, name) || !slices.Contains(stores, f.to) {
			f.stop()
			delete(running, name)
		}
	}
	for _, to := range stores {
		if running[to.Name] != nil || to.Server || !slices.Contains(names, to.Name) {
			continue
		}
		f, err := s.forward(ctx, to, failed)
		if err != nil {
			return err
		}
		running[to.Name] = f
	}
	return nil
}

func (s *Sender) forward(ctx context.Context, to Store, failed chan<- error) (*forwarding, error) {
	url, client := s.parts.To(to)
	numbers := prometheus.NewRegistry() // gone with the store
	cfg := s.cfg.Forward
	cfg.StateFile = filepath.Join(s.cfg.Dir, "sent-"+to.Name)
	cfg.Name, cfg.Begin, cfg.Pick, cfg.Hold = "store "+to.Name, s.history.since(to.Name), s.history.pick(to.Name, s.cfg.Self), s.holds.One()
	f, err := stream.NewForwarder(cfg, s.cfg.WAL, stream.NewClient(cfg.Name, stream.ClientConfig{URL: url, Timeout: 30 * time.Second}, client, numbers), s.log, numbers)
	if err != nil {
		return nil, err
	}
	if err := s.reg.Register(numbers); err != nil {
		return nil, fmt.Errorf("register metrics of sharing: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		if err := f.Run(ctx); err != nil {
			select {
			case failed <- fmt.Errorf("send to store %s: %w", to.Name, err):
			default: // another was first
			}
		}
	}()
	return &forwarding{to, func() { cancel(); <-done; s.reg.Unregister(numbers) }}, nil
}

// Holds keeps a WAL as long as one of several readers needs it.
type Holds struct {
	hold func(bool)

	mu sync.Mutex // guards n
	n  int
}

// One is for one reader: it may say the same twice.
func (h *Holds) One() func(bool) {
	mine := false
	return func(on bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if on == mine {
			return
		}
		mine = on
		if on {
			h.n++
		} else {
			h.n--
		}
		if h.hold != nil {
			h.hold(h.n > 0)
		}
	}
}
