package ring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-kit/log/level"
	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	key = "logs" // of the ring among gossiped values
	// tryAgain is the wait after gossip could not begin, as when its port is taken.
	tryAgain = 10 * time.Second
	leave    = 2 * time.Second
)

// Run takes part in the ring until ctx ends. It does not fail: what the ring is
// for waits while it cannot begin.
func (r *Ring) Run(ctx context.Context) error {
	for {
		if err := r.once(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("ring did not run, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(tryAgain):
		}
	}
}

// once starts everything, waits for ctx or a failure, and stops everything.
func (r *Ring) once(ctx context.Context) (err error) {
	numbers := &gathered{Registerer: prometheus.WrapRegistererWithPrefix("perch_", r.reg)}
	defer numbers.forget()
	at, shut, err := r.listen(ctx)
	if err != nil {
		return err
	}
	defer shut()
	p, err := r.make(numbers, at)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	watch := services.NewListener(nil, nil, nil, nil, func(_ services.State, err error) {
		select {
		case failed <- err:
		default: // the first one counts
		}
	})
	var started []services.Service
	defer func() {
		r.mu.Lock()
		r.parts = nil
		r.mu.Unlock()
		r.up.Set(0)
		for i := len(started) - 1; i >= 0; i-- {
			limit, cancel := context.WithTimeout(context.Background(), 2*leave)
			stopErr := services.StopAndAwaitTerminated(limit, started[i])
			cancel()
			if ctx.Err() == nil {
				err = errors.Join(err, stopErr)
			}
		}
	}()
	parts := []services.Service{p.gossip, p.life}
	for _, s := range p.sets {
		parts = append(parts, s)
	}
	for _, s := range append(parts, p.view) {
		s.AddListener(watch)
		started = append(started, s)
		if err := services.StartAndAwaitRunning(ctx, s); err != nil {
			return fmt.Errorf("start ring: %w", err)
		}
	}
	p.since = time.Now()
	r.mu.Lock()
	r.parts = p
	r.mu.Unlock()
	r.up.Set(1)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("run ring: %w", err)
	}
}

// place is where the library listens: an address, or all if there is none.
type place struct {
	addr []string
	port int
}

// listen opens the gate until shut is called, and says where the library listens
// behind it. Without TLS there is no gate.
func (r *Ring) listen(ctx context.Context) (at place, shut func(), err error) {
	if r.cfg.CAFile == "" {
		return place{port: r.cfg.Port}, func() {}, nil
	}
	g, err := r.openGate()
	if err != nil {
		return place{}, nil, err
	}
	// It outlives ctx: others answer this node's farewell.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { g.run(running) })
	return place{[]string{"127.0.0.1"}, g.inside}, func() { cancel(); done.Wait() }, nil
}

func (r *Ring) make(reg prometheus.Registerer, at place) (*parts, error) {
	var cfg memberlist.KVConfig
	flagext.DefaultValues(&cfg)
	cfg.NodeName = r.cfg.Node
	cfg.TCPTransport.BindAddrs, cfg.TCPTransport.BindPort = at.addr, at.port
	cfg.AdvertiseAddr, cfg.AdvertisePort = r.cfg.Advertise.String(), r.cfg.Port
	cfg.ClusterLabel = r.cfg.Secret
	cfg.Codecs = []codec.Codec{ring.GetCodec()}
	cfg.JoinMembers = flagext.StringSliceCSVMulti{"seeds"} // what they are, the provider says
	cfg.RejoinInterval = r.cfg.Rejoin
	cfg.GossipInterval = r.cfg.Gossip
	cfg.LeaveTimeout = leave
	cfg.BroadcastTimeoutForLocalUpdatesOnShutdown = leave / 2
	if r.cfg.CAFile != "" {
		cfg.TCPTransport.TLSEnabled = true
		cfg.TCPTransport.TLS.CAPath = r.cfg.CAFile
		cfg.TCPTransport.TLS.CertPath = r.cfg.CertFile
		cfg.TCPTransport.TLS.KeyPath = r.cfg.KeyFile
		cfg.TCPTransport.TLS.MinVersion = "VersionTLS12"
	}
	log := kit{r.log}
	p := &parts{gossip: memberlist.NewKV(cfg, log, seeds{r.cfg.Seeds}, reg)}
	var err error
	if p.client, err = memberlist.NewClient(p.gossip, ring.GetCodec()); err != nil {
		return nil, fmt.Errorf("make ring: %w", err)
	}
	p.life, err = r.lifecycler(p.client, key, "", r.cfg.Tokens, r.cfg.TokensFile, reg)
	if err != nil {
		return nil, err
	}
	for set, as := range r.cfg.Sets {
		// A set has no places: one token, which nobody looks at.
		l, err := r.lifecycler(p.client, set, as, 1, "", reg)
		if err != nil {
			return nil, err
		}
		p.sets = append(p.sets, l)
	}
	p.view, err = ring.NewWithStoreClientAndStrategy(ring.Config{HeartbeatTimeout: r.cfg.Timeout, ReplicationFactor: followers, SubringCacheDisabled: true},
		key, key, p.client, ring.NewIgnoreUnhealthyInstancesReplicationStrategy(), reg, log)
	if err != nil {
		return nil, fmt.Errorf("make ring: %w", err)
	}
	return p, nil
}

// lifecycler says of this node that it is there, in one set of nodes.
func (r *Ring) lifecycler(client *memberlist.Client, set, as string, tokens int, tokensFile string, reg prometheus.Registerer) (*ring.BasicLifecycler, error) {
	log := kit{r.log}
	var life ring.BasicLifecyclerDelegate = ring.NewInstanceRegisterDelegate(ring.ACTIVE, tokens)
	life = ring.NewTokensPersistencyDelegate(tokensFile, ring.ACTIVE, life, log)
	life = ring.NewAutoForgetDelegate(r.cfg.Forget, life, log)
	l, err := ring.NewBasicLifecycler(ring.BasicLifecyclerConfig{
		ID: r.cfg.Node, Addr: r.cfg.Addr, Zone: as, NumTokens: tokens, HeartbeatPeriod: r.cfg.Heartbeat, HeartbeatTimeout: r.cfg.Timeout,
		KeepInstanceInTheRingOnShutdown: true, // a restart is no reason to move copies
	}, set, set, client, life, log, reg)
	if err != nil {
		return nil, fmt.Errorf("make ring: %w", err)
	}
	return l, nil
}

// gathered knows what was registered, so that all of it goes at once.
type gathered struct {
	prometheus.Registerer
	mu   sync.Mutex // guards have
	have []prometheus.Collector
}

// Register fits prometheus.Registerer.
func (g *gathered) Register(c prometheus.Collector) error {
	if err := g.Registerer.Register(c); err != nil {
		return err
	}
	g.mu.Lock()
	g.have = append(g.have, c)
	g.mu.Unlock()
	return nil
}

// MustRegister fits prometheus.Registerer.
func (g *gathered) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := g.Register(c); err != nil {
			panic(err)
		}
	}
}

func (g *gathered) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.have {
		g.Unregister(c)
	}
	g.have = nil
}

// seeds gives memberlist the addresses to join.
type seeds struct{ list func() []string }

func (s seeds) Resolve(context.Context, []string) error { return nil }
func (s seeds) Addresses() []string                     { return s.list() }

// kit writes the library's messages. What it calls a warning is its daily life
// with nodes that come and go; the label is the secret.
type kit struct{ log *slog.Logger }

// Log fits go-kit's Logger.
func (k kit) Log(pairs ...any) error {
	at, text := slog.LevelDebug, "ring"
	var args []any
	for i := 0; i+1 < len(pairs); i += 2 {
		switch pairs[i] {
		case level.Key():
			if pairs[i+1] == level.ErrorValue() {
				at = slog.LevelInfo
			}
		case "msg":
			text = fmt.Sprint(pairs[i+1])
		case "err":
			args = append(args, "err", pairs[i+1])
		}
	}
	if k.log.Enabled(context.Background(), at) {
		k.log.Log(context.Background(), at, "ring library said", append(args, "what", text)...)
	}
	return nil
}
