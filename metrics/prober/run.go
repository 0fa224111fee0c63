package prober

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config bounds the prober.
type Config struct {
	AtOnce  int           // probes; more are refused
	Timeout time.Duration // where the request says none
	Body    int64         // bytes of an HTTP answer that are read

	// Resolve finds the address behind a name of the cluster. The machine's resolver is
	// asked for those that are not ours, not for those it does not find. May be nil.
	Resolve func(ctx context.Context, host string) (ip string, ours bool, err error)
	// Open says whether an address may be asked; nil: all.
	Open func(netip.Addr) bool
}

// Default suits one node.
func Default() Config {
	return Config{AtOnce: 64, Timeout: 10 * time.Second, Body: 4 << 20}
}

// Prober answers GET /probe.
type Prober struct {
	cfg   Config
	log   *slog.Logger
	slots chan struct{}
	count *prometheus.CounterVec
}

// New opens nothing yet.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Prober, error) {
	if cfg.AtOnce <= 0 || cfg.Timeout <= 0 || cfg.Body <= 0 {
		return nil, errors.New("build prober: limits must be positive")
	}
	p := &Prober{cfg: cfg, log: log, slots: make(chan struct{}, cfg.AtOnce), count: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "perch_prober_probes_total", Help: "Probes by module and result; refused: too many at once."}, []string{"module", "result"})}
	reg.MustRegister(p.count)
	return p, nil
}

// margin is how much earlier than the scrape a probe ends, so that its answer
// still arrives.
const margin = 500 * time.Millisecond

// ServeHTTP asks target by module and writes what it found. What cannot be asked
// at all is an error of the scrape, what does not answer a probe_success of 0.
func (p *Prober) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ask := r.URL.Query()
	target, name := ask.Get("target"), ask.Get("module")
	if name == "" {
		name = "http_2xx"
	}
	m, known := modules()[name]
	switch {
	case !known:
		http.Error(w, fmt.Sprintf("module %q is not known, there are %v", name, Modules()), http.StatusBadRequest)
		return
	case target == "":
		http.Error(w, "target is empty", http.StatusBadRequest)
		return
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		p.count.WithLabelValues(name, "refused").Inc()
		http.Error(w, fmt.Sprintf("%d probes run already", p.cfg.AtOnce), http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), p.limit(r))
	defer cancel()
	reg := prometheus.NewRegistry()
	f := &found{reg: reg}
	begin := time.Now()
	err := m(ctx, p, target, ask, f)
	f.set("probe_duration_seconds", "How long the probe took.", time.Since(begin).Seconds())
	result, good := "failed", 0.0
	if err == nil {
		result, good = "success", 1
	} else {
		p.log.Debug("probe failed", "module", name, "target", target, "err", err)
	}
	f.set("probe_success", "1 when the target answered as the module wants.", good)
	p.count.WithLabelValues(name, result).Inc()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// limit is the time for one probe, by the scrape's own.
func (p *Prober) limit(r *http.Request) time.Duration {
	s, err := strconv.ParseFloat(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err != nil || s <= 0 || s > 600 {
		return p.cfg.Timeout
	}
	d := time.Duration(s * float64(time.Second))
	return d - min(margin, d/4)
}

// found is what one probe says.
type found struct{ reg *prometheus.Registry }

func (f *found) set(name, help string, v float64) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	g.Set(v)
	f.reg.MustRegister(g)
}

// noRegex says what holds of all modules that could look for a text: none does.
func (f *found) noRegex() {
	f.set("probe_failed_due_to_regex", "1 when the probe failed because of a text that was or was not found.", 0)
}

// phases are gauges by phase, all present from the start.
func (f *found) phases(name, help string, all ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"phase"})
	for _, ph := range all {
		g.WithLabelValues(ph)
	}
	f.reg.MustRegister(g)
	return g
}

// address finds the address of a host: the cluster's names first, then the
// machine's resolver; IPv4 before IPv6.
func (p *Prober) address(ctx context.Context, host string, f *found) (netip.Addr, error) {
	begin := time.Now()
	ip, err := p.look(ctx, host)
	f.set("probe_dns_lookup_time_seconds", "Time to find the address.", time.Since(begin).Seconds())
	version, hash := 0.0, 0.0
	if err == nil {
		version, hash = 4, hashOf(ip)
		if ip.Is6() {
			version = 6
		}
	}
	f.set("probe_ip_protocol", "4 or 6, 0 without an address.", version)
	f.set("probe_ip_addr_hash", "FNV-1a of the address: another value is another address.", hash)
	if err != nil {
		return ip, err
	}
	return ip, p.may(ip)
}

func hashOf(ip netip.Addr) float64 {
	h := fnv.New32a()
	_, _ = h.Write(ip.AsSlice()) // never fails
	return float64(h.Sum32())
}

func (p *Prober) look(ctx context.Context, host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	if p.cfg.Resolve != nil {
		text, ours, err := p.cfg.Resolve(ctx, host)
		if err != nil {
			return netip.Addr{}, err
		}
		if ours {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				return ip, fmt.Errorf("resolve %s: %w", host, err)
			}
			return ip, nil
		}
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("resolve %s: %w", host, err)
	}
	for _, ip := range all {
		if ip.Unmap().Is4() {
			return ip.Unmap(), nil
		}
	}
	if len(all) == 0 {
		return netip.Addr{}, fmt.Errorf("resolve %s: no address", host)
	}
	return all[0], nil
}

// errClosed is the answer for addresses that may not be asked.
var errClosed = errors.New("the machine that probes may not be asked")

func (p *Prober) may(ip netip.Addr) error {
	if p.cfg.Open != nil && !p.cfg.Open(ip) {
		return fmt.Errorf("%s: %w", ip, errClosed)
	}
	return nil
}

// dialer refuses, whatever a name resolved to in the end, what may not be asked.
func (p *Prober) dialer() *net.Dialer {
	return &net.Dialer{Control: func(_, to string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(to)
		if err != nil {
			return fmt.Errorf("read address %s: %w", to, err)
		}
		return p.may(at.Addr())
	}}
}
