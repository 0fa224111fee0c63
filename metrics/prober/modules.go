package prober

import (
	"context"
	"maps"
	"net/url"
	"slices"
)

// module asks one target; an error says why it did not answer as it should.
type module func(ctx context.Context, p *Prober, target string, ask url.Values, f *found) error

// modules have the names that the blackbox exporter's example configuration has
// made common.
func modules() map[string]module {
	return map[string]module{
		"http_2xx":          httpModule{method: "GET"}.ask,
		"http_2xx_insecure": httpModule{method: "GET", insecure: true}.ask,
		"http_post_2xx":     httpModule{method: "POST"}.ask,
		"tcp_connect":       tcpModule{}.ask,
		"tls_connect":       tcpModule{tls: true}.ask,
		"icmp":              askICMP,
		"dns_udp":           dnsModule{net: "udp"}.ask,
		"dns_tcp":           dnsModule{net: "tcp"}.ask,
	}
}

// Modules lists the names, sorted.
func Modules() []string { return slices.Sorted(maps.Keys(modules())) }
