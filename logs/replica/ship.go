package replica

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/store"
)

// ShipConfig says what is shipped and how fast.
type ShipConfig struct {
	Node   string
	Dir    string               // of the store
	Every  time.Duration        // between shipments while there is something to send
	Idle   time.Duration        // between marks while there is nothing
	Rate   int64                // bytes per second
	Settle time.Duration        // a healthy follower stays so long when the ring names another
	Keep   func() time.Duration // how long lines are kept; 0: for ever
}

// DefaultShip loses at most a second or two of lines.
func DefaultShip(node, dir string) ShipConfig {
	return ShipConfig{Node: node, Dir: dir, Every: time.Second, Idle: 4 * time.Second, Rate: 32 << 20, Settle: time.Minute,
		Keep: func() time.Duration { return 0 }}
}

// Shipper keeps the copy of this node's store on another node.
type Shipper struct {
	cfg     ShipConfig
	id      string
	files   func() (store.Files, error)
	members func() []Member
	client  *http.Client
	log     *slog.Logger
	m       *shipMetrics

	// The fields below belong to Run.
	place placement
	links map[string]*link // by node
	first Member           // the head of the ring's order
	since time.Time        // when it became that
	told  map[string]bool  // nodes that know that they do not follow
	sore  map[string]sore  // nodes that refuse, by name

	mu     sync.Mutex // guards what follows
	status Status
}

// Status is where the copy is.
type Status struct {
	Follower string    `json:"follower,omitempty"` // where it is complete or was; empty: nowhere yet
	Next     string    `json:"next,omitempty"`     // where it is being brought up
	At       time.Time `json:"at,omitzero"`        // every line acknowledged before is there
	Pending  int64     `json:"pendingBytes"`
	Whole    bool      `json:"whole"` // all partitions are there
	Reason   string    `json:"reason"`
	Error    string    `json:"error,omitempty"`
}

// NewShipper makes a shipper of the files of a store. members lists the nodes
// that can follow, in the order of preference, without this one; it must not
// block. client reaches their doors as this node.
func NewShipper(cfg ShipConfig, files func() (store.Files, error), members func() []Member, client *http.Client, log *slog.Logger, reg prometheus.Registerer) (*Shipper, error) {
	id, err := Identity(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Shipper{cfg: cfg, id: id, files: files, members: members, client: client, log: log, m: newShipMetrics(reg),
		links: map[string]*link{}, told: map[string]bool{}, sore: map[string]sore{}}, nil
}

// Identity tells a store from one that was made later on a node of that name. It is
// made when it is asked for first.
func Identity(dir string) (string, error) {
	path := filepath.Join(dir, "id")
	text, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return id, nil
	}
	var b [8]byte
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		_, err = rand.Read(b[:])
	}
	id := hex.EncodeToString(b[:])
	if err == nil {
		err = replaceFile(path, []byte(id+"\n"), true)
	}
	if err != nil {
		return "", fmt.Errorf("read identity of log store: %w", err)
	}
	return id, nil
}

// Status is where the copy is now.
func (s *Shipper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run ships until ctx ends.
func (s *Shipper) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	begun := time.Now()
	for {
		s.step(ctx, begun, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fresh is how old a new follower's copy may be to take the place of the old.
const fresh = 15 * time.Second

// step does everything that is due once.
func (s *Shipper) step(ctx context.Context, begun, now time.Time) {
	members := able(now, s.members(), s.sore)
	if len(members) > 0 && members[0] != s.first {
		s.first, s.since = members[0], now
	}
	var reason string
	had := s.place
	s.place, reason = decidePlace(now, s.place, members, s.since, s.cfg.Settle)
	if s.place.next != nil && (had.next == nil || *had.next != *s.place.next) {
		s.m.placed.Inc()
		s.log.Info("log copy is placed", "node", s.place.next.Node, "reason", reason)
	}
	var targets []*link
	for _, m := range []*Member{s.place.at, s.place.next} {
		if m != nil {
			targets = append(targets, s.link(*m))
		}
	}
	at := time.Now()
	var files store.Files
	var err error
	if slices.ContainsFunc(targets, func(l *link) bool { return !now.Before(l.again) }) {
		if files, err = s.files(); err != nil {
			s.log.Error("files of the log store were not listed", "err", err)
			targets = nil
		}
	}
	var all sync.WaitGroup
	for _, l := range targets {
		if !now.Before(l.again) {
			all.Go(func() { l.ship(ctx, files, at) })
		}
	}
	all.Wait()
	for _, l := range targets {
		s.sore[l.to.Node] = s.sore[l.to.Node].after(now, l.failed != nil, s.cfg.Settle)
	}
	if n := s.place.next; n != nil && s.links[n.Node].readable && time.Since(s.links[n.Node].at) < fresh {
		s.place = placement{at: n}
	}
	s.forget(ctx, now, members)
	s.measure(begun, reason)
}

func (s *Shipper) link(m Member) *link {
	l := s.links[m.Node]
	if l == nil || l.to != m {
		l = newLink(s, m)
		s.links[m.Node] = l
	}
	return l
}

// forget ends what is not needed any more, and tells nodes that may have a copy
// of an earlier time to drop it, once there is a whole one. The one that the
// ring wants keeps what it has.
func (s *Shipper) forget(ctx context.Context, now time.Time, members []Member) {
	used := func(node string) bool {
		return s.place.at != nil && s.place.at.Node == node || s.place.next != nil && s.place.next.Node == node
	}
	for node := range s.links {
		if !used(node) {
			delete(s.links, node)
		}
	}
	for node, x := range s.sore {
		if !used(node) && !now.Before(x.until) {
			delete(s.sore, node)
		}
	}
	for node := range s.told {
		if used(node) || !slices.ContainsFunc(members, func(m Member) bool { return m.Node == node }) {
			delete(s.told, node)
		}
	}
	if s.place.at == nil || s.place.next != nil || !s.links[s.place.at.Node].whole || s.links[s.place.at.Node].failed != nil {
		return
	}
	for _, m := range members {
		if used(m.Node) || s.told[m.Node] || m == s.first {
			continue
		}
		if err := s.drop(ctx, m); err != nil {
			s.log.Debug("node was not told to drop its copy", "node", m.Node, "err", err)
			return // again at the next step
		}
		s.told[m.Node] = true
	}
}

func (s *Shipper) drop(ctx context.Context, m Member) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, s.url(m), nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // nothing in it
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func (s *Shipper) url(m Member) string { return m.URL + Prefix + s.cfg.Node + "/" + s.id }

func (s *Shipper) measure(begun time.Time, reason string) {
	now := Status{Reason: reason}
	var l *link
	if m := s.place.next; m != nil {
		now.Next, l = m.Node, s.links[m.Node]
	}
	if m := s.place.at; m != nil {
		now.Follower, l = m.Node, s.links[m.Node]
	}
	if l != nil {
		now.At, now.Pending, now.Whole = l.at, l.pending, l.whole
		if l.failed != nil {
			now.Error = l.failed.Error()
		}
	}
	lag := time.Since(begun)
	if !now.At.IsZero() {
		lag = time.Since(now.At)
	}
	s.m.lagSeconds.Set(lag.Seconds())
	s.m.lagBytes.Set(float64(now.Pending))
	s.mu.Lock()
	s.status = now
	s.mu.Unlock()
}
