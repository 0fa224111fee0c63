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

// Config says what is sent.
type Config struct {
	WAL  string        // directory of the server's store
	Dir  string        // for what must survive a restart
	Lost Gap           // of the server's store, see GapOf
	Look time.Duration // between looks who the stores are
	// Retention is how long the stores keep samples.
	Retention time.Duration
	// Forget is how long a store that is away keeps its place, and how long the WAL
	// is kept for it.
	Forget time.Duration
	// Forward is how each forwarder goes about it; the rest of it is set here.
	Forward stream.ForwardConfig
}

// Default has the times; the rest is the caller's. A store may be away for an hour
// and has some time to come back. The server's store writes no block meanwhile.
func Default() Config {
	return Config{Look: 5 * time.Second, Forget: 75 * time.Minute, Forward: stream.DefaultForward("")}
}

// Parts are a Sender's collaborators.
type Parts struct {
	// Stores tells who is there now.
	Stores func(context.Context) []Store
	// To says how samples get to a store.
	To func(Store) (url string, client *http.Client)
	// Hold has the WAL kept. Full says that the store cannot afford that: then it
	// is not kept, and a store that is away may lose samples.
	Hold func(bool)
	Full func() bool
}

// Sender sends each series of the server's store to the further store where it
// belongs.
type Sender struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	reg     prometheus.Registerer
	history *History
	holds   *holds
	changes prometheus.Counter

	mu      sync.Mutex // guards sending
	sending map[string]*stream.Forwarder
}

// NewSender reads what it remembers.
func NewSender(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Sender, error) {
	h, err := openHistory(cfg.Dir, cfg.WAL, cfg.Lost, log)
	if err != nil {
		return nil, err
	}
	s := &Sender{cfg: cfg, parts: parts, log: log, reg: reg, history: h, holds: &holds{hold: parts.Hold}, sending: map[string]*stream.Forwarder{},
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_share_changes_total", Help: "Times that further stores of series came or went for good."})}
	for _, c := range []prometheus.Collector{s.changes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_share_stores", Help: "Stores over which the second copies of series are spread; 0: only the server has series."},
			func() float64 { return float64(len(h.seen())) })} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of sharing: %w", err)
		}
	}
	return s, nil
}

// Stores are those that have a place, by name.
func (s *Sender) Stores() (out []Store) {
	for _, x := range s.history.seen() {
		out = append(out, x.Store)
	}
	return out
}

// Standing is how a store does that has a place.
type Standing struct {
	Name   string        `json:"name"`
	Behind time.Duration `json:"behind"` // how old the newest sample is that it was sent
	Seen   time.Time     `json:"seen"`   // when it was last there
	Until  time.Time     `json:"until"`  // it is away: then its place goes to others; else zero
}

// Standings are those of the stores, by name.
func (s *Sender) Standings(now time.Time) (out []Standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.history.seen() {
		one := Standing{Name: x.Name, Seen: x.At}
		if f := s.sending[x.Name]; f != nil {
			one.Behind = f.Behind()
		}
		if now.Sub(x.At) > awayAfter*s.cfg.Look {
			one.Until = x.At.Add(s.cfg.Forget)
		}
		out = append(out, one)
	}
	return out
}

// awayAfter looks that did not find a store it is told to be away.
const awayAfter = 3

// Gap is the time of which the server's store may lack what the others have. It ends
// when that time is older than Config.Retention.
func (s *Sender) Gap() Gap { return s.history.gap() }

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
	s.holds.afford(!s.parts.Full())
	now := time.Now()
	want, reason := Decide(s.history.seen(), s.parts.Stores(ctx), now, s.cfg.Forget)
	had := s.history.gap()
	gap, why := had.left(now, s.cfg.Retention)
	changed, err := s.history.became(want, gap, now)
	if err != nil {
		return err
	}
	if why != "" {
		s.log.Info("other stores are not asked any more for what the server lost", "lost until", time.UnixMilli(had.To), "reason", why)
	}
	if changed {
		s.changes.Inc()
		s.log.Info("stores of series changed", "stores", strings.Join(namesOf(want), " "), "reason", reason)
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
	for name, f := range running {
		if !slices.Contains(stores, f.to) {
			f.stop()
			delete(running, name)
		}
	}
	for _, to := range stores {
		if running[to.Name] != nil {
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
	cfg.StateFile = filepath.Join(s.cfg.Dir, sentPrefix+to.Name)
	cfg.Name, cfg.Begin, cfg.Pick, cfg.Hold, cfg.HoldMax = "store "+to.Name, s.history.since(to.Name), s.history.pick(to.Name), s.holds.one(), s.cfg.Forget
	f, err := stream.NewForwarder(cfg, s.cfg.WAL, stream.NewClient(cfg.Name, stream.ClientConfig{URL: url, Timeout: 30 * time.Second}, client, numbers), s.log, numbers)
	if err != nil {
		return nil, err
	}
	if err := s.reg.Register(numbers); err != nil {
		return nil, fmt.Errorf("register metrics of sharing: %w", err)
	}
	s.mu.Lock()
	s.sending[to.Name] = f
	s.mu.Unlock()
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
	return &forwarding{to, func() {
		cancel()
		<-done
		s.reg.Unregister(numbers)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sending, to.Name)
	}}, nil
}

// holds keeps a WAL as long as one of several readers needs it.
type holds struct {
	hold func(bool)

	mu   sync.Mutex // guards what follows
	n    int
	full bool
}

// one is for one reader: it may say the same twice.
func (h *holds) one() func(bool) {
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
		h.hold(h.n > 0 && !h.full)
	}
}

// afford says whether the WAL may be kept at all.
func (h *holds) afford(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full == !yes {
		return
	}
	h.full = !yes
	h.hold(h.n > 0 && !h.full)
}
