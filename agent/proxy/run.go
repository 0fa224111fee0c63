package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Proxy keeps the kernel's service table equal to what the snapshot asks for.
type Proxy struct {
	cfg     Config
	source  Source
	log     *slog.Logger
	metrics *metrics
	synced  atomic.Bool

	// Owned by Run.
	kernel  kernel
	have    elements // nil: unknown, read it from the kernel
	skipped []Skip
}

// New checks the configuration. It opens nothing: Run does, on its own thread's
// network namespace.
func New(cfg Config, source Source, log *slog.Logger, reg prometheus.Registerer) (*Proxy, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure proxy: %w", err)
	}
	return &Proxy{cfg: cfg, source: source, log: log, metrics: newMetrics(reg)}, nil
}

// Synced tells whether the kernel has been equal to a snapshot once.
func (p *Proxy) Synced() bool { return p.synced.Load() }

// Run writes changes until ctx ends. The table stays: Services are served on
// while no agent runs. It returns an error only when nftables cannot be opened.
func (p *Proxy) Run(ctx context.Context) error {
	conn, err := openKernel()
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }() // nothing is buffered
	p.kernel.conn = conn

	verify := time.NewTicker(p.cfg.Verify)
	defer verify.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	retry := 100 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.source.Changed():
			p.metrics.changed(time.Now())
			settle.Reset(p.cfg.Settle)
		case <-verify.C:
			p.verify()
			settle.Reset(p.cfg.Settle)
		case <-settle.C:
			err := p.sync()
			var later incomplete
			switch {
			case errors.As(err, &later):
				p.log.Debug("snapshot not complete", "reason", later.error)
				settle.Reset(again)
			case err != nil:
				p.metrics.errors.Inc()
				p.log.Warn("service table not written", "err", err, "retry", retry)
				p.have = nil
				settle.Reset(retry)
				retry = min(2*retry, 10*time.Second)
			default:
				retry = 100 * time.Millisecond
			}
		}
	}
}

// incomplete is why there is nothing to act on yet; the kernel keeps what it has.
type incomplete struct{ error }

// again is how soon an incomplete snapshot is asked for anew: what it waits for
// need not be something that Changed tells of.
const again = 100 * time.Millisecond

// verify forgets what it knows of the kernel when somebody removed the table,
// as reloading a host firewall does.
func (p *Proxy) verify() {
	if p.have == nil {
		return
	}
	if ok, err := p.kernel.intact(); err != nil || !ok {
		p.log.Warn("service table is gone", "table", TableName(p.cfg.Cluster), "err", err)
		p.have = nil
	}
}

// sync brings the kernel to the current snapshot.
func (p *Proxy) sync() error {
	snapshot, err := p.source.Snapshot()
	if err != nil {
		return incomplete{err}
	}
	if !snapshot.Node.PodCIDR.IsValid() || !snapshot.Node.PodCIDR.Addr().Is4() {
		return incomplete{errors.New("the node has no IPv4 pod CIDR")}
	}
	start := time.Now()
	plan := Decide(snapshot)
	p.tell(plan.Skipped)
	if err := p.know(snapshot.Node); err != nil {
		return err
	}
	want := encode(plan)
	if err := p.kernel.affinity(want.timeouts()); err != nil {
		return err
	}
	c := diff(p.have, want)
	if err := p.apply(c); err != nil {
		return err
	}
	p.have = want
	p.synced.Store(true)
	p.metrics.elements.Set(float64(want.count()))
	p.metrics.frontends.Set(float64(len(plan.Frontends)))
	p.metrics.skipped.Set(float64(len(plan.Skipped)))
	p.metrics.wrote(start, time.Now())
	return nil
}

// know makes the table fit the node and learns what the kernel has, unless known.
func (p *Proxy) know(node Node) error {
	if p.have != nil && p.kernel.table.podCIDR == node.PodCIDR {
		return nil
	}
	t, err := newTable(p.cfg, node.PodCIDR)
	if err != nil {
		return err
	}
	p.kernel.table, p.kernel.used = t, nil
	replaced, err := p.kernel.prepare()
	if err != nil {
		return err
	}
	if replaced {
		p.metrics.replaced.Inc()
		p.log.Info("service table made", "table", t.nft.Name, "podCIDR", node.PodCIDR)
	}
	p.have, err = p.kernel.read()
	return err
}

func (p *Proxy) apply(c change) error {
	if c.empty() {
		return nil
	}
	if err := p.kernel.write(c); err != nil {
		return err
	}
	if err := p.kernel.forget(c.gone); err != nil {
		return err
	}
	n, err := forgetFlows(newStale(c))
	p.metrics.flows.Add(float64(n))
	return err
}

// tell logs what cannot be served, once for each change of that list.
func (p *Proxy) tell(skipped []Skip) {
	for _, s := range skipped {
		if !slices.Contains(p.skipped, s) {
			p.log.Warn("not served", "object", s.Object, "reason", s.Reason)
		}
	}
	p.skipped = skipped
}
