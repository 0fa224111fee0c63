package target

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"
)

// Ref is one key of a Secret or ConfigMap.
type Ref struct {
	ConfigMap            bool
	Namespace, Name, Key string
}

func (r Ref) String() string {
	kind := "Secret"
	if r.ConfigMap {
		kind = "ConfigMap"
	}
	return fmt.Sprintf("%s %s/%s key %s", kind, r.Namespace, r.Name, r.Key)
}

type keyRef struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional"`
}

type either struct {
	Secret    *keyRef `json:"secret"`
	ConfigMap *keyRef `json:"configMap"`
}

type tlsSpec struct {
	CA                 either  `json:"ca"`
	Cert               either  `json:"cert"`
	KeySecret          *keyRef `json:"keySecret"`
	ServerName         string  `json:"serverName"`
	InsecureSkipVerify bool    `json:"insecureSkipVerify"`
	MinVersion         string  `json:"minVersion"`
	MaxVersion         string  `json:"maxVersion"`
	CAFile             string  `json:"caFile"`
	CertFile           string  `json:"certFile"`
	KeyFile            string  `json:"keyFile"`
}

type authorization struct {
	Type        string  `json:"type"`
	Credentials *keyRef `json:"credentials"`
}

type basicAuth struct {
	Username *keyRef `json:"username"`
	Password *keyRef `json:"password"`
}

type oauth2 struct {
	ClientID       either            `json:"clientId"`
	ClientSecret   *keyRef           `json:"clientSecret"`
	TokenURL       string            `json:"tokenUrl"`
	Scopes         []string          `json:"scopes"`
	EndpointParams map[string]string `json:"endpointParams"`
	TLSConfig      *tlsSpec          `json:"tlsConfig"`
	proxySpec
}

type proxySpec struct {
	ProxyURL             string              `json:"proxyUrl"`
	NoProxy              string              `json:"noProxy"`
	ProxyFromEnvironment *bool               `json:"proxyFromEnvironment"`
	ProxyConnectHeader   map[string][]keyRef `json:"proxyConnectHeader"`
}

// clientSpec is how to connect; all kinds have it.
type clientSpec struct {
	BasicAuth         *basicAuth     `json:"basicAuth"`
	Authorization     *authorization `json:"authorization"`
	OAuth2            *oauth2        `json:"oauth2"`
	BearerTokenSecret *keyRef        `json:"bearerTokenSecret"`
	BearerTokenFile   string         `json:"bearerTokenFile"`
	TLSConfig         *tlsSpec       `json:"tlsConfig"`
	FollowRedirects   *bool          `json:"followRedirects"`
	EnableHTTP2       *bool          `json:"enableHttp2"`
	proxySpec
}

// limitSpec bounds an answer; the node's own limits count where they are lower.
type limitSpec struct {
	SampleLimit                    *uint64  `json:"sampleLimit"`
	TargetLimit                    *uint64  `json:"targetLimit"`
	LabelLimit                     *uint64  `json:"labelLimit"`
	LabelNameLengthLimit           *uint64  `json:"labelNameLengthLimit"`
	LabelValueLengthLimit          *uint64  `json:"labelValueLengthLimit"`
	KeepDroppedTargets             *uint64  `json:"keepDroppedTargets"`
	BodySizeLimit                  string   `json:"bodySizeLimit"`
	ScrapeProtocols                []string `json:"scrapeProtocols"`
	FallbackScrapeProtocol         string   `json:"fallbackScrapeProtocol"`
	ScrapeClassicHistograms        *bool    `json:"scrapeClassicHistograms"`
	ScrapeNativeHistograms         *bool    `json:"scrapeNativeHistograms"`
	NativeHistogramBucketLimit     *uint64  `json:"nativeHistogramBucketLimit"`
	NativeHistogramMinBucketFactor any      `json:"nativeHistogramMinBucketFactor"`
	ConvertClassicHistograms       *bool    `json:"convertClassicHistogramsToNHCB"`
	ScrapeClass                    string   `json:"scrapeClass"`
}

// wireSettings is all that makes a scrape_config, apart from targets.
type wireSettings struct {
	path string // of the client's fields in the object

	interval, timeout            string
	intervalField, timeoutField  string // their names in the object
	honorLabels, honorTimestamps *bool
	trackTimestamps, compression *bool
	metricRelabelings            []relabeling
	params                       map[string][]string
	client                       clientSpec
	limits                       limitSpec
	nameValidation, nameEscaping string
	account                      Account
}

// Account is what charts expect in the files of the pod that scrapes.
type Account struct {
	CA    string // the cluster's, PEM
	Token string // of an account that may read /metrics and nothing else
}

// The files that charts name; what they mean is known here.
const (
	serviceAccountCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path
)

func (s wireSettings) at(field string) string {
	if s.path == "" {
		return "spec." + field
	}
	return s.path + "." + field
}

func (s wireSettings) check(c *check) {
	every, why := duration(s.interval)
	if why != "" {
		c.bad(s.at(s.intervalField), "%s", why)
	}
	limit, why := duration(s.timeout)
	if why != "" {
		c.bad(s.at(s.timeoutField), "%s", why)
	} else if every > 0 && limit > every {
		c.bad(s.at(s.timeoutField), "%s is longer than %s %s", s.timeout, s.intervalField, s.interval)
	}
	if every > 0 && time.Duration(every) < time.Second {
		c.bad(s.at(s.intervalField), "%s is shorter than 1s", s.interval)
	}
	if _, _, err := steps(s.at("metricRelabelings"), s.metricRelabelings); err != nil {
		c.wrong = append(c.wrong, err.Error())
	}
	if f := s.limits.NativeHistogramMinBucketFactor; f != nil {
		if _, err := strconv.ParseFloat(fmt.Sprint(f), 64); err != nil {
			c.bad("spec.nativeHistogramMinBucketFactor", "%v is no number", f)
		}
	}
	if s.limits.BodySizeLimit != "" {
		if n, err := units.ParseBase2Bytes(s.limits.BodySizeLimit); err != nil || n < 0 {
			c.bad("spec.bodySizeLimit", "%q is no size, want for example 10MB", s.limits.BodySizeLimit)
		}
	}
	for i, p := range s.limits.ScrapeProtocols {
		if !protocol.MatchString(p) {
			c.bad(fmt.Sprintf("spec.scrapeProtocols[%d]", i), "%q is not known, want for example PrometheusText0.0.4", p)
		}
	}
	if p := s.limits.FallbackScrapeProtocol; p != "" && !protocol.MatchString(p) {
		c.bad("spec.fallbackScrapeProtocol", "%q is not known, want for example PrometheusText0.0.4", p)
	}
	c.does(s.limits.ScrapeClass != "", "spec.scrapeClass", "there are no scrape classes")
	s.client.check(c, s.at)
	if len(c.wrong) == 0 {
		// What only Prometheus' own reader knows of.
		s.account = Account{CA: "x", Token: "x"}
		if text, err := s.text(func(Ref) (string, error) { return "x", nil }); err != nil {
			c.bad(cmp.Or(s.path, "spec"), "%v", err)
		} else if err := Settings(text).valid(); err != nil {
			c.bad(cmp.Or(s.path, "spec"), "%v", err)
		}
	}
}

var protocol = regexp.MustCompile(`^(PrometheusProto|OpenMetricsText(0\.0\.1|1\.0\.0)|PrometheusText(0\.0\.4|1\.0\.0))$`)

func (s clientSpec) check(c *check, at func(string) string) {
	ways := 0
	for _, used := range []bool{s.BasicAuth != nil, s.Authorization != nil, s.OAuth2 != nil, s.BearerTokenSecret != nil && s.BearerTokenSecret.Name != "", s.BearerTokenFile != ""} {
		if used {
			ways++
		}
	}
	if ways > 1 {
		c.bad(at("authorization"), "basicAuth, authorization, oauth2, bearerTokenSecret and bearerTokenFile exclude each other")
	}
	if file := s.file(at); file != "" {
		c.idle = append(c.idle, file+", so nothing is asked there")
	}
	if s.Authorization != nil && strings.EqualFold(s.Authorization.Type, "basic") {
		c.bad(at("authorization.type"), "is Basic, use basicAuth")
	}
	s.TLSConfig.check(c, at("tlsConfig"))
	s.proxySpec.check(c, at)
	if s.OAuth2 != nil {
		in := func(field string) string { return at("oauth2." + field) }
		if s.OAuth2.TokenURL == "" {
			c.bad(in("tokenUrl"), "is needed")
		}
		s.OAuth2.TLSConfig.check(c, in("tlsConfig"))
		s.OAuth2.proxySpec.check(c, in)
	}
}

func (p proxySpec) check(c *check, at func(string) string) {
	if u, err := url.Parse(p.ProxyURL); err != nil || p.ProxyURL != "" && u.Host == "" {
		c.bad(at("proxyUrl"), "is no URL") // it may have a password
	}
}

// file says which file of the machine the settings name, empty when none. Charts
// mount Secrets into Prometheus' pod and name the files: such an object is not
// refused, for it would keep the whole chart out.
func (s clientSpec) file(at func(string) string) string {
	if f := s.BearerTokenFile; f != "" && f != serviceAccountToken {
		return at("bearerTokenFile") + ": files of the machine are not read; put the token into a Secret and name it as authorization.credentials"
	}
	if s.OAuth2 != nil {
		if why := s.OAuth2.TLSConfig.file(at("oauth2.tlsConfig")); why != "" {
			return why
		}
	}
	return s.TLSConfig.file(at("tlsConfig"))
}

func (t *tlsSpec) file(path string) string {
	if t == nil {
		return ""
	}
	for _, f := range []struct{ field, name string }{{"caFile", t.CAFile}, {"certFile", t.CertFile}, {"keyFile", t.KeyFile}} {
		if f.name != "" && (f.field != "caFile" || f.name != serviceAccountCA) {
			return path + "." + f.field + ": files of the machine are not read; use a Secret or ConfigMap"
		}
	}
	return ""
}

func (t *tlsSpec) check(c *check, path string) {
	if t == nil {
		return
	}
	if t.CA.Secret != nil && t.CA.ConfigMap != nil || t.Cert.Secret != nil && t.Cert.ConfigMap != nil {
		c.bad(path, "name a Secret or a ConfigMap, not both")
	}
}

// duration reads a time in Prometheus' words; zero when it is not given.
func duration(text string) (model.Duration, string) {
	if text == "" {
		return 0, ""
	}
	d, err := model.ParseDuration(text)
	if err != nil || d == 0 {
		return 0, fmt.Sprintf("%q is no time, want for example 30s", text)
	}
	return d, ""
}

// longestLabel is less than a label of the database may have (16 MiB), with what steps
// add of their own: a longer one ends the process. A label is as long as a body at most.
const longestLabel = 15 << 20

// errAbsent is what World.Value answers for a key that is not there.
var errAbsent = errors.New("is not there")

// reading collects values and the first reason why one is missing.
type reading struct {
	value func(Ref) (string, error)
	err   error
}

func (r *reading) key(path string, k *keyRef, configMap bool) string {
	if k == nil || k.Name == "" { // charts leave empty ones
		return ""
	}
	v, err := r.value(Ref{ConfigMap: configMap, Name: k.Name, Key: k.Key})
	if err != nil && (k.Optional == nil || !*k.Optional) && r.err == nil {
		r.err = fmt.Errorf("%s: %w", path, err)
	}
	return v
}

func (r *reading) either(path string, e either) string {
	if e.ConfigMap != nil {
		return r.key(path+".configMap", e.ConfigMap, true)
	}
	return r.key(path+".secret", e.Secret, false)
}

// text writes the settings as a scrape_config of Prometheus, with the values of
// Secrets in it.
func (s wireSettings) text(value func(Ref) (string, error)) (Settings, error) {
	r := &reading{value: value}
	m := map[string]any{}
	put := func(key string, v any) {
		switch v := v.(type) {
		case string:
			if v != "" {
				m[key] = v
			}
		case *bool:
			if v != nil {
				m[key] = *v
			}
		case *uint64:
			if v != nil && *v > 0 {
				m[key] = *v
			}
		}
	}
	put("scrape_interval", s.interval)
	put("scrape_timeout", s.timeout)
	put("honor_labels", s.honorLabels)
	put("honor_timestamps", s.honorTimestamps)
	put("track_timestamps_staleness", s.trackTimestamps)
	put("enable_compression", s.compression)
	put("metric_name_validation_scheme", strings.ToLower(s.nameValidation))
	put("metric_name_escaping_scheme", escaping[s.nameEscaping])
	l := s.limits
	put("sample_limit", l.SampleLimit)
	put("target_limit", l.TargetLimit)
	put("label_limit", l.LabelLimit)
	put("label_name_length_limit", l.LabelNameLengthLimit)
	put("label_value_length_limit", l.LabelValueLengthLimit)
	put("keep_dropped_targets", l.KeepDroppedTargets)
	put("body_size_limit", l.BodySizeLimit)
	put("fallback_scrape_protocol", l.FallbackScrapeProtocol)
	put("always_scrape_classic_histograms", l.ScrapeClassicHistograms)
	put("scrape_native_histograms", l.ScrapeNativeHistograms)
	put("convert_classic_histograms_to_nhcb", l.ConvertClassicHistograms)
	put("native_histogram_bucket_limit", l.NativeHistogramBucketLimit)
	if f, err := strconv.ParseFloat(fmt.Sprint(l.NativeHistogramMinBucketFactor), 64); err == nil {
		m["native_histogram_min_bucket_factor"] = f
	}
	if len(s.params) > 0 {
		m["params"] = s.params
	}
	if len(l.ScrapeProtocols) > 0 {
		m["scrape_protocols"] = l.ScrapeProtocols
	}
	if _, list, err := steps(s.at("metricRelabelings"), s.metricRelabelings); err != nil {
		return "", err
	} else if len(list) > 0 {
		m["metric_relabel_configs"] = list
	}
	if n := growth(s.metricRelabelings); n > 1 {
		limit := units.Base2Bytes(longestLabel / n)
		if own, err := units.ParseBase2Bytes(l.BodySizeLimit); err != nil || own <= 0 || own > limit {
			m["body_size_limit"] = fmt.Sprintf("%dB", limit)
		}
	}
	s.client.into(m, r, s.at, s.account)
	if r.err != nil {
		return "", r.err
	}
	out, err := yaml.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("write settings: %w", err)
	}
	return Settings(out), nil
}

// ready is text with the values of now; certificates that are none are found
// here, because a scrape pool would only log them.
func (s wireSettings) ready(value func(Ref) (string, error)) (Settings, error) {
	if file := s.client.file(s.at); file != "" {
		return "", errors.New(file)
	}
	if s.client.BearerTokenFile != "" && s.account.Token == "" {
		return "", fmt.Errorf("%s: the account's token %w yet", s.at("bearerTokenFile"), errAbsent)
	}
	text, err := s.text(value)
	if err == nil && (s.client.TLSConfig != nil || s.client.OAuth2 != nil) {
		err = text.valid()
	}
	return text, err
}

var escaping = map[string]string{"AllowUTF8": "allow-utf-8", "Underscores": "underscores", "Dots": "dots", "Values": "values"}

func (s clientSpec) into(m map[string]any, r *reading, at func(string) string, own Account) {
	if b := s.BasicAuth; b != nil {
		m["basic_auth"] = map[string]any{"username": r.key(at("basicAuth.username"), b.Username, false), "password": r.key(at("basicAuth.password"), b.Password, false)}
	}
	if a := s.Authorization; a != nil {
		m["authorization"] = map[string]any{"type": cmp.Or(a.Type, "Bearer"), "credentials": r.key(at("authorization.credentials"), a.Credentials, false)}
	}
	if token := r.key(at("bearerTokenSecret"), s.BearerTokenSecret, false); token != "" {
		m["authorization"] = map[string]any{"type": "Bearer", "credentials": token}
	}
	if s.BearerTokenFile == serviceAccountToken {
		m["authorization"] = map[string]any{"type": "Bearer", "credentials": own.Token}
	}
	if t := s.TLSConfig.into(r, at("tlsConfig"), own.CA); t != nil {
		m["tls_config"] = t
	}
	if s.FollowRedirects != nil {
		m["follow_redirects"] = *s.FollowRedirects
	}
	if s.EnableHTTP2 != nil {
		m["enable_http2"] = *s.EnableHTTP2
	}
	s.proxySpec.into(m, r, at)
	if o := s.OAuth2; o != nil {
		in := func(field string) string { return at("oauth2." + field) }
		x := map[string]any{"client_id": r.either(in("clientId"), o.ClientID), "client_secret": r.key(in("clientSecret"), o.ClientSecret, false), "token_url": o.TokenURL}
		if len(o.Scopes) > 0 {
			x["scopes"] = o.Scopes
		}
		if len(o.EndpointParams) > 0 {
			x["endpoint_params"] = o.EndpointParams
		}
		if t := o.TLSConfig.into(r, in("tlsConfig"), own.CA); t != nil {
			x["tls_config"] = t
		}
		o.proxySpec.into(x, r, in)
		m["oauth2"] = x
	}
}

func (p proxySpec) into(m map[string]any, r *reading, at func(string) string) {
	if p.ProxyURL != "" {
		m["proxy_url"] = p.ProxyURL
	}
	if p.NoProxy != "" {
		m["no_proxy"] = p.NoProxy
	}
	if p.ProxyFromEnvironment != nil {
		m["proxy_from_environment"] = *p.ProxyFromEnvironment
	}
	header := map[string][]string{}
	for name, keys := range p.ProxyConnectHeader {
		for _, k := range keys {
			header[name] = append(header[name], r.key(at("proxyConnectHeader."+name), &k, false))
		}
	}
	if len(header) > 0 {
		m["proxy_connect_header"] = header
	}
}

func (t *tlsSpec) into(r *reading, path, clusterCA string) map[string]any {
	if t == nil {
		return nil
	}
	m := map[string]any{"insecure_skip_verify": t.InsecureSkipVerify}
	ca := r.either(path+".ca", t.CA)
	if t.CAFile == serviceAccountCA {
		ca = clusterCA
	}
	for key, v := range map[string]string{"ca": ca, "cert": r.either(path+".cert", t.Cert), "key": r.key(path+".keySecret", t.KeySecret, false),
		"server_name": t.ServerName, "min_version": t.MinVersion, "max_version": t.MaxVersion} {
		if v != "" {
			m[key] = v
		}
	}
	return m
}
