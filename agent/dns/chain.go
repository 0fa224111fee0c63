package dns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/forward"
	"github.com/coredns/coredns/plugin/kubernetes"
	coremetrics "github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/pkg/proxy"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/miekg/dns"
)

// newKubernetes makes the plugin that answers about the cluster. Its settings
// can only be given as text; the reverse zones fall through to the resolvers
// where the cluster has no answer.
func newKubernetes(cfg Config) (*kubernetes.Kubernetes, error) {
	text := fmt.Sprintf(`kubernetes %s in-addr.arpa ip6.arpa {
		kubeconfig "%s"
		pods insecure
		fallthrough in-addr.arpa ip6.arpa
		ttl %d
		startup_timeout 1ms
	}`, dns.Fqdn(cfg.Domain), cfg.Kubeconfig, int(cfg.TTL.Seconds()))
	c := caddy.NewTestController("dns", text) // "test": without a Corefile
	c.Next()
	k, err := kubernetes.ParseStanza(c)
	if err != nil {
		return nil, fmt.Errorf("configure cluster names: %w", err)
	}
	return k, nil
}

// newServer puts the plugins in their order: count, wait, cluster names, cache,
// resolvers.
func newServer(at netip.AddrPort, k *kubernetes.Kubernetes, p *patience, r *resolvers, m *metrics) (*dnsserver.Server, error) {
	block := &dnsserver.Config{
		Zone: ".", ListenHosts: []string{at.Addr().String()}, Port: fmt.Sprint(at.Port()), Transport: transport.DNS,
	}
	block.AddPlugin(func(next plugin.Handler) plugin.Handler { return counter{next, m} })
	block.AddPlugin(func(next plugin.Handler) plugin.Handler {
		own := coremetrics.New("") // without a door of its own, see Library
		for _, zone := range append([]string{"."}, k.Zones...) {
			own.AddZone(zone)
		}
		own.Next = next
		return own
	})
	block.AddPlugin(func(next plugin.Handler) plugin.Handler {
		p.next = next
		return p
	})
	block.AddPlugin(func(next plugin.Handler) plugin.Handler {
		k.Next = next
		return k
	})
	block.AddPlugin(func(next plugin.Handler) plugin.Handler {
		c := cache.New()
		c.Next = next
		return c
	})
	block.AddPlugin(func(plugin.Handler) plugin.Handler { return r })
	s, err := dnsserver.NewServer(transport.DNS+"://"+at.String(), []*dnsserver.Config{block})
	if err != nil {
		return nil, fmt.Errorf("make dns server: %w", err)
	}
	return s, nil
}

// maxWaiting is how many questions wait for the cluster's names at a time; more
// are answered at once as if the wait were over.
const maxWaiting = 1000

// patience keeps a question about the cluster until the cluster's names are
// known, or limit long: after a restart, an answer that comes a little later is
// worth more to a client than the failure that could be told at once.
type patience struct {
	next    plugin.Handler
	zones   plugin.Zones
	synced  <-chan struct{}
	limit   time.Duration
	metrics *metrics
	waiting atomic.Int64
}

// Name makes patience a plugin.
func (p *patience) Name() string { return "patience" }

// ServeDNS waits where it must, then asks the next plugin.
func (p *patience) ServeDNS(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) (int, error) {
	select {
	case <-p.synced:
	default:
		if len(q.Question) > 0 && p.zones.Matches(strings.ToLower(q.Question[0].Name)) != "" {
			p.wait(ctx)
		}
	}
	return p.next.ServeDNS(ctx, w, q)
}

func (p *patience) wait(ctx context.Context) {
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > maxWaiting {
		p.metrics.impatient.Inc()
		return
	}
	p.metrics.waited.Inc()
	limit := time.NewTimer(p.limit)
	defer limit.Stop()
	select {
	case <-p.synced:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// resolvers sends questions to the machine's resolvers as they are at the moment.
type resolvers struct {
	path string
	own  []netip.Addr

	mu      sync.RWMutex
	text    string
	servers []netip.AddrPort
	forward *forward.Forward // nil: there is none
}

// Name makes resolvers a plugin.
func (r *resolvers) Name() string { return "resolvers" }

// ServeDNS passes the question on. Without a resolver, or without an answer
// from any, the client gets SERVFAIL at once.
func (r *resolvers) ServeDNS(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) (int, error) {
	r.mu.RLock()
	f := r.forward
	r.mu.RUnlock()
	if f == nil {
		return dns.RcodeServerFailure, nil
	}
	return f.ServeDNS(ctx, w, q)
}

// reread follows the file. It tells whether the resolvers changed.
func (r *resolvers) reread() (servers []netip.AddrPort, changed bool, err error) {
	text, err := os.ReadFile(r.path)
	if err != nil {
		return nil, false, fmt.Errorf("read resolvers: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if string(text) == r.text {
		return r.servers, false, nil
	}
	r.text = string(text)
	r.swap(upstreams(r.text, r.own...))
	return r.servers, true, nil
}

// swap must be called with mu held. Questions under way finish at the old resolvers.
func (r *resolvers) swap(servers []netip.AddrPort) {
	old := r.forward
	r.servers, r.forward = servers, nil
	if len(servers) > 0 {
		r.forward = forward.New()
		for _, s := range servers {
			r.forward.SetProxy(proxy.NewProxy("forward", s.String(), transport.DNS))
		}
	}
	if old != nil {
		_ = old.OnShutdown() // stops health checks; never fails
	}
}

func (r *resolvers) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swap(nil)
}

// counter counts questions by answer.
type counter struct {
	next    plugin.Handler
	metrics *metrics
}

// Name makes counter a plugin.
func (c counter) Name() string { return "count" }

// ServeDNS counts the answer of the plugins behind it.
func (c counter) ServeDNS(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) (int, error) {
	start := time.Now()
	seen := &seenWriter{ResponseWriter: w, rcode: -1}
	rcode, err := c.next.ServeDNS(ctx, seen, q)
	if seen.rcode >= 0 {
		c.metrics.answered(seen.rcode, start)
	} else {
		c.metrics.answered(rcode, start)
	}
	return rcode, err
}

type seenWriter struct {
	dns.ResponseWriter
	rcode int
}

// WriteMsg notes the answer's code.
func (s *seenWriter) WriteMsg(m *dns.Msg) error {
	s.rcode = m.Rcode
	return s.ResponseWriter.WriteMsg(m)
}

// answerLabel keeps the label's values few.
func answerLabel(rcode int) string {
	switch rcode {
	case dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeServerFailure, dns.RcodeRefused:
		return strings.ToLower(dns.RcodeToString[rcode])
	}
	return "other"
}
