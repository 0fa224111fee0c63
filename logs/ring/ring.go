package ring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says who this node is and how it finds others.
type Config struct {
	Node      string
	Addr      string // what others are told of this node: host:port of its agent's door
	Advertise netip.Addr
	Port      int // of gossip, on all addresses of this machine
	// Seeds are addresses of gossip of nodes that may be there; asked again when
	// one has to be found.
	Seeds func() []string
	// Secret is known to the cluster's nodes only.
	Secret string
	// CA, certificate and key files; the certificate has Advertise. They are read
	// when gossip begins. Without a CA there is no TLS: for tests.
	CAFile, CertFile, KeyFile string
	TokensFile                string // empty: other tokens after each start
	// Sets are further sets of nodes that are gossiped about: those that this node
	// is in, and as what. They have nothing to do with logs; see Set.
	Sets map[string]string

	Heartbeat time.Duration
	Timeout   time.Duration // without a heartbeat: not healthy
	Forget    time.Duration // without a heartbeat: not a member
	Rejoin    time.Duration // between looks for seeds
	Gossip    time.Duration // between rounds of gossip
	Quiet     time.Duration // after start, before the ring is believed to be complete
	Tokens    int
}

// Default has the times; the rest is the caller's.
func Default() Config {
	return Config{Heartbeat: 10 * time.Second, Timeout: 30 * time.Second, Forget: 10 * time.Minute, Rejoin: 30 * time.Second,
		Gossip: 500 * time.Millisecond, Quiet: 3 * time.Second, Tokens: 32}
}

// Ring is one node's view of all.
type Ring struct {
	cfg   Config
	log   *slog.Logger
	reg   prometheus.Registerer
	up    prometheus.Gauge
	limit gateLimit
	gate  *gateNumbers

	mu    sync.Mutex // guards what follows
	parts *parts     // nil while it does not run
}

// parts are what runs between a start and a stop.
type parts struct {
	gossip *memberlist.KV
	client *memberlist.Client
	life   *ring.BasicLifecycler
	sets   []*ring.BasicLifecycler
	view   *ring.Ring
	since  time.Time
}

// New checks the configuration. Nothing is opened before Run.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Ring, error) {
	if cfg.Node == "" || cfg.Addr == "" || !cfg.Advertise.IsValid() || cfg.Port == 0 || cfg.Secret == "" || cfg.Seeds == nil {
		return nil, errors.New("make ring: node, addresses, port, seeds and secret are required")
	}
	r := &Ring{cfg: cfg, log: log, reg: reg, limit: defaultGate(),
		up: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_ring_up", Help: "1 while this node takes part in the ring of log stores."})}
	var err error
	if r.gate, err = newGateNumbers(reg); err != nil {
		return nil, fmt.Errorf("make ring: %w", err)
	}
	if err := reg.Register(r.up); err != nil {
		return nil, fmt.Errorf("make ring: %w", err)
	}
	return r, nil
}

// Member is a node of the ring.
type Member struct {
	Node      string    `json:"node"`
	Addr      string    `json:"addr"`
	Healthy   bool      `json:"healthy"`
	Heartbeat time.Time `json:"heartbeat"`
	State     string    `json:"state"`
	Tokens    int       `json:"tokens"`
	As        string    `json:"as,omitempty"` // what it is in a set
}

// placed may keep a copy: an instance that joins or leaves does not yet or any
// more, and the next takes its place.
func placed() ring.Operation {
	return ring.NewOp([]ring.InstanceState{ring.ACTIVE}, func(s ring.InstanceState) bool { return s != ring.ACTIVE })
}

// followers of a node that are looked at: more are not healthy at the same time.
const followers = 8

// Followers names the healthy nodes that are to keep the copy of node, best
// first. None while the ring does not run or has just begun to.
func (r *Ring) Followers(node string) []Member {
	p := r.running()
	if p == nil || time.Since(p.since) < r.cfg.Quiet {
		return nil
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(node)) // cannot fail
	set, err := p.view.Get(h.Sum32(), placed(), nil, nil, nil)
	if err != nil {
		return nil // nobody is healthy
	}
	var out []Member
	for _, i := range set.Instances {
		if i.Id != node {
			out = append(out, r.member(i))
		}
	}
	return out
}

func (r *Ring) running() *parts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parts
}

func (r *Ring) member(i ring.InstanceDesc) Member {
	op := placed()
	return Member{Node: i.Id, Addr: i.Addr, Heartbeat: time.Unix(i.Timestamp, 0).UTC(), State: i.State.String(), Tokens: len(i.Tokens), As: i.Zone,
		Healthy: i.IsHealthy(op, r.cfg.Timeout, time.Now())}
}

// Members lists all nodes of the ring by name, this one included.
func (r *Ring) Members(ctx context.Context) ([]Member, error) { return r.Set(ctx, key) }

// Set lists all nodes that are in one of Config.Sets, by name. None while the ring
// does not run.
func (r *Ring) Set(ctx context.Context, name string) ([]Member, error) {
	p := r.running()
	if p == nil {
		return nil, nil
	}
	v, err := p.client.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read ring: %w", err)
	}
	desc, ok := v.(*ring.Desc)
	if !ok {
		return nil, nil // nobody is in it yet
	}
	var out []Member
	for id, i := range desc.Ingesters {
		i.Id = id
		if i.State != ring.LEFT {
			out = append(out, r.member(i))
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return out, nil
}
