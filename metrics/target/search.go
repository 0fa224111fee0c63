package target

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	promlabels "github.com/prometheus/prometheus/model/labels"
)

// Search is one question about targets that an object has asked for it: of a
// service over HTTP, where URL is set, or for a name of DNS.
type Search struct {
	From, Namespace string        // the object
	Field           string        // of it, for people
	Every           time.Duration // 5 s at least

	URL    string   // http or https, answers with a list of {targets, labels} as JSON
	Client Settings // how to connect: an http_config of Prometheus (YAML), may hold passwords

	Name, Type string // of DNS; Type is A, AAAA, SRV, MX or NS
	Port       uint16 // of what is found; SRV records have their own

	Lacks string // why it cannot be asked now; then Client is empty
}

// Key tells searches apart by whose they are and what they ask: how fast, and with
// which credentials, may change.
func (s Search) Key() string {
	if s.URL != "" {
		return s.From + " " + s.URL
	}
	return fmt.Sprintf("%s %s %s %d", s.From, s.Type, s.Name, s.Port)
}

// Found is what is known of a search.
type Found struct {
	Groups []Group   // of the newest good answer
	Good   time.Time // when that came; zero: never
	Failed string    // why the newest answer is none; Groups stay
	Note   string    // what there is to tell of Groups
}

// Group are targets with the same labels.
type Group struct {
	Targets []string // host:port, or host
	Labels  map[string]string
}

// The pace of searches.
const (
	everyHTTP   = time.Minute
	everyDNS    = 30 * time.Second
	fastestEver = 5 * time.Second
)

// httpSearch is one of spec.httpSDConfigs.
type httpSearch struct {
	URL             string         `json:"url"`
	RefreshInterval string         `json:"refreshInterval"`
	BasicAuth       *basicAuth     `json:"basicAuth"`
	Authorization   *authorization `json:"authorization"`
	OAuth2          *oauth2        `json:"oauth2"`
	TLSConfig       *tlsSpec       `json:"tlsConfig"`
	FollowRedirects *bool          `json:"followRedirects"`
	EnableHTTP2     *bool          `json:"enableHTTP2"`
	proxySpec
}

// dnsSearch is one of spec.dnsSDConfigs.
type dnsSearch struct {
	Names           []string `json:"names"`
	RefreshInterval string   `json:"refreshInterval"`
	Type            string   `json:"type"`
	Port            *int64   `json:"port"`
}

func (h httpSearch) settings(i int) wireSettings {
	return wireSettings{path: fmt.Sprintf("spec.httpSDConfigs[%d]", i), client: clientSpec{BasicAuth: h.BasicAuth, Authorization: h.Authorization, OAuth2: h.OAuth2,
		TLSConfig: h.TLSConfig, FollowRedirects: h.FollowRedirects, EnableHTTP2: h.EnableHTTP2, proxySpec: h.proxySpec}}
}

func (h httpSearch) check(c *check, i int) {
	s := h.settings(i)
	web := func(field, text string, needed bool) {
		if text == "" && !needed {
			return
		}
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Host == "" || needed && u.Scheme != "http" && u.Scheme != "https":
			c.bad(s.at(field), "%q, want an http or https URL", text)
		case GuardedAddress(u.Host):
			c.bad(s.at(field), "%q is the machine that asks, which objects may not name; a file of --scrape-config may", u.Redacted())
		}
	}
	web("url", h.URL, true)
	web("proxyUrl", h.ProxyURL, false)
	if h.OAuth2 != nil {
		web("oauth2.tokenUrl", h.OAuth2.TokenURL, true)
		web("oauth2.proxyUrl", h.OAuth2.ProxyURL, false)
	}
	pace(c, s.at("refreshInterval"), h.RefreshInterval)
	s.check(c)
}

func (d dnsSearch) check(c *check, i int) {
	at := func(field string) string { return fmt.Sprintf("spec.dnsSDConfigs[%d].%s", i, field) }
	if len(d.Names) == 0 {
		c.bad(at("names"), "names nothing to ask for")
	}
	for k, n := range d.Names {
		if n == "" || len(n) > 254 || strings.ContainsAny(n, "/: \t\n") {
			c.bad(at(fmt.Sprintf("names[%d]", k)), "%q is no name of DNS", n)
		}
	}
	kind := d.kind()
	switch kind {
	case "A", "AAAA", "SRV", "MX", "NS":
	default:
		c.bad(at("type"), "%q, want A, AAAA, SRV, MX or NS", d.Type)
		return
	}
	switch {
	case d.Port != nil && (*d.Port < 0 || *d.Port > 65535):
		c.bad(at("port"), "%d is no port", *d.Port)
	case kind != "SRV" && (d.Port == nil || *d.Port == 0):
		c.bad(at("port"), "is needed: records of type %s have none", kind)
	}
	pace(c, at("refreshInterval"), d.RefreshInterval)
}

// kind is SRV where the object says none.
func (d dnsSearch) kind() string { return cmp.Or(strings.ToUpper(d.Type), "SRV") }

func pace(c *check, path, text string) {
	if every, why := duration(text); why != "" {
		c.bad(path, "%s", why)
	} else if every > 0 && time.Duration(every) < fastestEver {
		c.bad(path, "%s is shorter than %s", text, fastestEver)
	}
}

// every is what check has seen to be a time.
func every(text string, otherwise time.Duration) time.Duration {
	d, _ := duration(text)
	return cmp.Or(time.Duration(d), otherwise)
}

// searches are those of the object without what is to be read of Secrets; by is
// where each of them stands in spec.httpSDConfigs, -1 for DNS.
func (o Object) searches() (out []Search, by []int) {
	if o.config == nil {
		return nil, nil
	}
	for i, h := range o.config.HTTPSDConfigs {
		out, by = append(out, Search{From: o.From(), Namespace: o.Namespace, Field: fmt.Sprintf("spec.httpSDConfigs[%d]", i), Every: every(h.RefreshInterval, everyHTTP), URL: h.URL}), append(by, i)
	}
	for i, d := range o.config.DNSSDConfigs {
		port := uint16(0)
		if kind := d.kind(); kind != "SRV" && d.Port != nil {
			port = uint16(*d.Port) //nolint:gosec // see check
		}
		for k, name := range d.Names {
			out, by = append(out, Search{From: o.From(), Namespace: o.Namespace, Field: fmt.Sprintf("spec.dnsSDConfigs[%d].names[%d]", i, k), Every: every(d.RefreshInterval, everyDNS),
				Name: name, Type: d.kind(), Port: port}), append(by, -1)
		}
	}
	return out, by
}

// Searches are the questions that somebody has to ask for the object; none of one
// that is broken. Keys of Secrets are read in its namespace only.
func (o Object) Searches(w World) []Search {
	out, by := o.searches()
	if len(out) == 0 {
		return nil
	}
	if wrong, _ := o.Check(); len(wrong) > 0 {
		return nil
	}
	p := planner{World: w}
	for i, h := range by {
		if h < 0 {
			continue
		}
		s := o.config.HTTPSDConfigs[h].settings(h)
		s.account = w.Account
		text, err := s.ready(p.value(o))
		if err != nil {
			out[i].Lacks = err.Error()
			continue
		}
		out[i].Client = text
	}
	return out
}

// searched are the targets found by others for the object, and what there is to
// tell of each search.
func (p *planner) searched(o Object, base func() *promlabels.Builder) (out []candidate, told []string) {
	list, _ := o.searches()
	seen := map[string]bool{}
	for _, s := range list {
		if seen[s.Key()] {
			continue
		}
		seen[s.Key()] = true
		var f Found
		known := false
		if p.Found != nil {
			f, known = p.Found(s.Key())
		}
		tell := func(format string, a ...any) { told = append(told, s.Field+fmt.Sprintf(format, a...)) }
		if !known {
			tell(" was not asked yet")
			continue
		}
		all, refused, why := 0, 0, ""
		for _, g := range f.Groups {
			for _, t := range g.Targets {
				all++
				if not := notAddress(t); not != "" {
					refused, why = refused+1, cmp.Or(why, not)
					continue
				}
				out = append(out, p.addressed(o, base(), g.Labels, t))
			}
		}
		switch {
		case f.Failed != "" && f.Good.IsZero():
			tell(": %s", f.Failed)
		case f.Failed != "":
			tell(": %s; what it found at %s stays (%d targets)", f.Failed, f.Good.UTC().Format(time.RFC3339), all)
		}
		if f.Note != "" {
			tell(": %s", f.Note)
		}
		if refused > 0 {
			tell(": %d of %d targets are left out: %s", refused, all, why)
		}
	}
	return out, told
}

// addressed is a target that is known by its address alone.
func (p *planner) addressed(o Object, b *promlabels.Builder, labels map[string]string, t string) candidate {
	if _, _, err := net.SplitHostPort(t); err != nil {
		port := 80
		if strings.EqualFold(o.config.Scheme, "https") {
			port = 443
		}
		t = net.JoinHostPort(strings.Trim(t, "[]"), strconv.Itoa(port))
	}
	for k, v := range labels {
		b.Set(k, v)
	}
	return candidate{labels: b.Set("__address__", t), node: p.Home, what: "target " + t}
}
