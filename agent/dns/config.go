package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Config is what does not change while the agent runs.
type Config struct {
	Service    netip.Addr    // the cluster DNS Service's address; never a resolver of ours
	Domain     string        // cluster.local
	Kubeconfig string        // absolute path; may list and watch services, endpointslices, namespaces
	ResolvConf string        // file with the machine's resolvers, read again when it changes
	TTL        time.Duration // of answers about the cluster, whole seconds
	Reread     time.Duration // how often ResolvConf is looked at
	Patience   time.Duration // how long a question about the cluster waits for its names to be known
}

// Default has every value that fits all nodes; Service and Kubeconfig must be filled in.
func Default() Config {
	return Config{Domain: "cluster.local", ResolvConf: "/etc/resolv.conf", TTL: 5 * time.Second, Reread: 10 * time.Second, Patience: 2 * time.Second}
}

// Validate names every problem of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if _, ok := dns.IsDomainName(c.Domain); !ok || c.Domain == "" || c.Domain == "." || strings.ContainsAny(c.Domain, " \t\n{}\"#\\") {
		errs = append(errs, fmt.Errorf("domain %q: want a domain name", c.Domain))
	}
	if !filepath.IsAbs(c.Kubeconfig) || strings.ContainsAny(c.Kubeconfig, "\"\n\\") {
		errs = append(errs, fmt.Errorf("kubeconfig %q: want an absolute path without quotes", c.Kubeconfig))
	}
	if c.ResolvConf == "" {
		errs = append(errs, errors.New("resolv.conf path is empty"))
	}
	if c.TTL < 0 || c.TTL > time.Hour || c.Reread <= 0 {
		errs = append(errs, fmt.Errorf("ttl %s and reread %s: want 0s to 1h and more than 0s", c.TTL, c.Reread))
	}
	if c.Patience < 0 || c.Patience > 4*time.Second { // clients ask again after 5 s
		errs = append(errs, fmt.Errorf("patience %s: want 0s to 4s", c.Patience))
	}
	return errors.Join(errs...)
}

// maxUpstreams is how many resolvers are used; the rest of the file is left out.
const maxUpstreams = 8

// upstreams reads resolvers from the text of a resolv.conf. Our own addresses
// are left out: they would send a question round in circles.
func upstreams(text string, own ...netip.Addr) []netip.AddrPort {
	conf, err := dns.ClientConfigFromReader(strings.NewReader(text))
	if err != nil {
		return nil // only reading fails, and a string does not
	}
	var out []netip.AddrPort
	for _, server := range conf.Servers {
		addr, err := netip.ParseAddr(server)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() || slices.Contains(own, addr.Unmap()) {
			continue
		}
		at := netip.AddrPortFrom(addr.Unmap(), 53)
		if !slices.Contains(out, at) && len(out) < maxUpstreams {
			out = append(out, at)
		}
	}
	return out
}
