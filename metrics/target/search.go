package target

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
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

// NamespaceOf is the namespace of the object whose search has the key; empty for
// what is none.
func NamespaceOf(key string) string {
	from, _, _ := strings.Cut(key, " ")
	_, rest, _ := strings.Cut(from, "/")
	namespace, _, _ := strings.Cut(rest, "/")
	return namespace
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

// What one object may have.
const (
	mostServices = 100     // httpSDConfigs
	mostZones    = 100     // dnsSDConfigs
	mostNames    = 200     // of all dnsSDConfigs; more of them are not asked for
	longestURL   = 2 << 10 // bytes
	longestText  = 4 << 10 // bytes of what is sent in headers
	longestName  = 254     // bytes, with a dot at the end
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
	if i >= mostServices {
		if i == mostServices {
			c.bad("spec.httpSDConfigs", "are more than %d", mostServices)
		}
		return
	}
	s := h.settings(i)
	web := func(field, text string, needed bool) {
		if text == "" && !needed {
			return
		}
		u, err := url.Parse(text)
		switch {
		case len(text) > longestURL:
			c.bad(s.at(field), "is longer than %d bytes", longestURL)
		case err != nil || u.Host == "": // it may have a password, who knows where
			c.bad(s.at(field), "want an http or https URL")
		case needed && u.Scheme != "http" && u.Scheme != "https":
			c.bad(s.at(field), "%q, want an http or https URL", u.Redacted())
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
	h.short(c, s.at)
	pace(c, s.at("refreshInterval"), h.RefreshInterval)
	s.check(c)
}

// short bounds what of the object is sent to others with each question.
func (h httpSearch) short(c *check, at func(string) string) {
	texts := map[string]string{"noProxy": h.NoProxy}
	join := func(field string, all ...string) { texts[field] += strings.Join(all, " ") }
	headers := func(field string, p proxySpec) {
		for name := range p.ProxyConnectHeader {
			join(field, name, " ")
		}
	}
	headers("proxyConnectHeader", h.proxySpec)
	if h.Authorization != nil {
		join("authorization.type", h.Authorization.Type)
	}
	if h.TLSConfig != nil {
		join("tlsConfig.serverName", h.TLSConfig.ServerName)
	}
	if o := h.OAuth2; o != nil {
		headers("oauth2.proxyConnectHeader", o.proxySpec)
		join("oauth2.noProxy", o.NoProxy)
		join("oauth2.scopes", o.Scopes...)
		for k, v := range o.EndpointParams {
			join("oauth2.endpointParams", k, v)
		}
		if o.TLSConfig != nil {
			join("oauth2.tlsConfig.serverName", o.TLSConfig.ServerName)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(texts)) {
		if len(texts[field]) > longestText {
			c.bad(at(field), "is longer than %d bytes", longestText)
		}
	}
}

func (d dnsSearch) check(c *check, i int) {
	if i >= mostZones {
		if i == mostZones {
			c.bad("spec.dnsSDConfigs", "are more than %d", mostZones)
		}
		return
	}
	at := func(field string) string { return fmt.Sprintf("spec.dnsSDConfigs[%d].%s", i, field) }
	if len(d.Names) == 0 {
		c.bad(at("names"), "names nothing to ask for")
	}
	if len(d.Names) > mostNames {
		c.bad(at("names"), "are more than %d", mostNames)
		return
	}
	for k, n := range d.Names {
		switch {
		case len(n) > longestName:
			c.bad(at(fmt.Sprintf("names[%d]", k)), "is longer than %d bytes", longestName)
		case n == "" || strings.ContainsAny(n, "/: \t\n"):
			c.bad(at(fmt.Sprintf("names[%d]", k)), "%q is no name of DNS", n)
		}
	}
	kind := d.kind()
	switch kind {
	case "A", "AAAA", "SRV", "MX", "NS":
	default:
		c.bad(at("type"), "%.20q, want A, AAAA, SRV, MX or NS", d.Type)
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
		// Prometheus would take it.
		c.idle = append(c.idle, fmt.Sprintf("%s is %s, which is too often: asked every %s", path, text, fastestEver))
	}
}

// every is what check has seen to be a time.
func every(text string, otherwise time.Duration) time.Duration {
	d, _ := duration(text)
	return max(cmp.Or(time.Duration(d), otherwise), fastestEver)
}

// searches are those of the object without what is to be read of Secrets; by is
// where each of them stands in spec.httpSDConfigs, -1 for DNS. Of names the first
// count, cut is how many there are where that are not all.
func (o Object) searches() (out []Search, by []int, cut int) {
	if o.config == nil {
		return nil, nil, 0
	}
	for i, h := range o.config.HTTPSDConfigs {
		out, by = append(out, Search{From: o.From(), Namespace: o.Namespace, Field: fmt.Sprintf("spec.httpSDConfigs[%d]", i), Every: every(h.RefreshInterval, everyHTTP), URL: h.URL}), append(by, i)
	}
	names := 0
	for i, d := range o.config.DNSSDConfigs {
		port := uint16(0)
		if kind := d.kind(); kind != "SRV" && d.Port != nil {
			port = uint16(*d.Port) //nolint:gosec // see check
		}
		for k, name := range d.Names {
			if names++; names > mostNames {
				continue
			}
			out, by = append(out, Search{From: o.From(), Namespace: o.Namespace, Field: fmt.Sprintf("spec.dnsSDConfigs[%d].names[%d]", i, k), Every: every(d.RefreshInterval, everyDNS),
				Name: name, Type: d.kind(), Port: port}), append(by, -1)
		}
	}
	if names > mostNames {
		cut = names
	}
	return out, by, cut
}

// Searches are the questions that somebody has to ask for the object; none of one
// that is broken. Keys of Secrets are read in its namespace only.
func (o Object) Searches(w World) []Search {
	out, by, _ := o.searches()
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
	list, _, cut := o.searches()
	if cut > 0 {
		told = append(told, fmt.Sprintf("spec.dnsSDConfigs: the first %d of %d names are asked for", mostNames, cut))
	}
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
