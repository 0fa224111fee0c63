package prober

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// askICMP wants an answer to one echo request.
func askICMP(ctx context.Context, p *Prober, target string, _ url.Values, f *found) error {
	phases := f.phases("probe_icmp_duration_seconds", "Time of each phase.", "resolve", "setup", "rtt")
	begin := time.Now()
	ip, err := p.address(ctx, target, f)
	if err != nil {
		return err
	}
	phases.WithLabelValues("resolve").Set(time.Since(begin).Seconds())
	begin = time.Now()
	e, err := openEcho(ip)
	if err != nil {
		return err
	}
	defer e.conn.Close()
	defer e.endWith(ctx)()
	phases.WithLabelValues("setup").Set(time.Since(begin).Seconds())
	begin = time.Now()
	hops, err := e.ask(ip)
	if err != nil {
		return fmt.Errorf("ping %s: %w", target, err)
	}
	phases.WithLabelValues("rtt").Set(time.Since(begin).Seconds())
	if hops > 0 {
		f.set("probe_icmp_reply_hop_limit", "Hops the answer might still have gone.", float64(hops))
	}
	return nil
}

// echo is a raw socket and one question on it.
type echo struct {
	conn *icmp.PacketConn
	v6   bool
	id   uint16
	body []byte // tells answers to this question from others
}

func openEcho(ip netip.Addr) (*echo, error) {
	e := &echo{v6: ip.Is6(), body: make([]byte, 32)}
	if _, err := rand.Read(e.body); err != nil {
		return nil, fmt.Errorf("make ICMP question: %w", err)
	}
	e.id = binary.BigEndian.Uint16(e.body)
	network, from := "ip4:icmp", "0.0.0.0"
	if e.v6 {
		network, from = "ip6:ipv6-icmp", "::"
	}
	var err error
	if e.conn, err = icmp.ListenPacket(network, from); err != nil {
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	// Only for the hop limit: without it the rest works.
	if e.v6 {
		_ = e.conn.IPv6PacketConn().SetControlMessage(ipv6.FlagHopLimit, true)
	} else {
		_ = e.conn.IPv4PacketConn().SetControlMessage(ipv4.FlagTTL, true)
	}
	return e, nil
}

// endWith ends what waits on the socket when ctx ends.
func (e *echo) endWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = e.conn.SetDeadline(time.Now()) }) // else it is closed already
}

// ask sends the question and waits for its answer; hops is 0 when unknown.
func (e *echo) ask(ip netip.Addr) (hops int, err error) {
	var kind, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	protocol := 1
	if e.v6 {
		kind, answer, protocol = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	text, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: int(e.id), Seq: 1, Data: e.body}}).Marshal(nil)
	if err != nil {
		return 0, fmt.Errorf("write question: %w", err)
	}
	if _, err := e.conn.WriteTo(text, &net.IPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}); err != nil {
		return 0, fmt.Errorf("send question: %w", err)
	}
	buf := make([]byte, 1500)
	for {
		n, ttl, err := e.read(buf)
		if err != nil {
			return 0, fmt.Errorf("no answer: %w", err)
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || m.Type != answer {
			continue // for somebody else
		}
		if got, ok := m.Body.(*icmp.Echo); ok && got.ID == int(e.id) && string(got.Data) == string(e.body) {
			return ttl, nil
		}
	}
}

func (e *echo) read(buf []byte) (n, ttl int, err error) {
	if e.v6 {
		n, cm, _, err := e.conn.IPv6PacketConn().ReadFrom(buf)
		if cm != nil {
			ttl = cm.HopLimit
		}
		return n, ttl, err //nolint:wrapcheck // ask says what it was for
	}
	n, cm, _, err := e.conn.IPv4PacketConn().ReadFrom(buf)
	if cm != nil {
		ttl = cm.TTL
	}
	return n, ttl, err //nolint:wrapcheck // ask says what it was for
}
