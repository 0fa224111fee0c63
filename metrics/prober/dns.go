package prober

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// dnsModule asks a server, the target, for a name: parameters query (default the
// root) and type (default NS for the root, A else). It wants an answer without
// error.
type dnsModule struct{ net string }

func (m dnsModule) ask(ctx context.Context, p *Prober, target string, ask url.Values, f *found) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		host, port = target, "53"
	}
	name := dns.Fqdn(ask.Get("query"))
	kind := cmp.Or(strings.ToUpper(ask.Get("type")), map[bool]string{true: "NS", false: "A"}[name == "."])
	number, ok := dns.StringToType[kind]
	if !ok {
		return fmt.Errorf("type %q is none of DNS", kind)
	}
	got, err := m.exchange(ctx, p, net.JoinHostPort(host, port), new(dns.Msg).SetQuestion(name, number), f)
	f.set("probe_dns_query_succeeded", "1 when the server answered at all.", map[bool]float64{true: 1}[err == nil])
	if err != nil {
		got = new(dns.Msg)
	}
	f.set("probe_dns_answer_rrs", "Records in the answer.", float64(len(got.Answer)))
	f.set("probe_dns_authority_rrs", "Records about authority.", float64(len(got.Ns)))
	f.set("probe_dns_additional_rrs", "Additional records.", float64(len(got.Extra)))
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", target, name, err)
	}
	for _, rr := range got.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			f.set("probe_dns_serial", "Serial number of the zone.", float64(soa.Serial))
			break
		}
	}
	if got.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("%s answers %s for %s", target, dns.RcodeToString[got.Rcode], name)
	}
	return nil
}

// exchange asks the server at address and times the phases.
func (m dnsModule) exchange(ctx context.Context, p *Prober, address string, q *dns.Msg, f *found) (*dns.Msg, error) {
	phases := f.phases("probe_dns_duration_seconds", "Time of each phase.", "resolve", "connect", "request")
	begin := time.Now()
	phase := func(name string) {
		phases.WithLabelValues(name).Set(time.Since(begin).Seconds())
		begin = time.Now()
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("read address %s: %w", address, err)
	}
	ip, err := p.address(ctx, host, f)
	if err != nil {
		return nil, err
	}
	phase("resolve")
	conn, err := p.dialer().DialContext(ctx, m.net, net.JoinHostPort(ip.String(), port))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	phase("connect")
	got, _, err := (&dns.Client{Net: m.net}).ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: conn})
	if err != nil {
		return nil, err //nolint:wrapcheck // ask says what it was for
	}
	phase("request")
	return got, nil
}
