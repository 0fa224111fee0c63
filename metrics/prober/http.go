package prober

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxRedirects as in browsers.
const maxRedirects = 10

// httpModule wants a status of 200 to 299, after redirects.
type httpModule struct {
	method   string
	insecure bool // takes any certificate
}

// trace notes the moments of the newest request.
type trace struct {
	begin, resolved, connected, secured, wrote, answered time.Time
}

func (m httpModule) ask(ctx context.Context, p *Prober, target string, ask url.Values, f *found) error {
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("read target %q: want an http or https URL", target)
	}
	if _, err := p.address(ctx, u.Hostname(), f); err != nil {
		return err
	}
	phases := f.phases("probe_http_duration_seconds", "Time of each phase, of all redirects together.", "resolve", "connect", "tls", "processing", "transfer")
	var now trace
	f.noRegex()
	redirects := 0
	dialer := p.dialer()
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: m.insecure}, //nolint:gosec // the module of that name
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, fmt.Errorf("read address %s: %w", address, err)
			}
			ip, err := p.look(ctx, host)
			if err != nil {
				return nil, err
			}
			now.resolved = time.Now()
			return dialer.DialContext(ctx, network, net.JoinHostPort(ip.String(), port))
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		now.into(phases, time.Now())
		now = trace{begin: time.Now()}
		if redirects = len(via); redirects > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return nil
	}}
	now.begin = time.Now()
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { now.wrote = time.Now() },
		ConnectDone:          func(string, string, error) { now.connected = time.Now() },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { now.secured = time.Now() },
		GotFirstResponseByte: func() { now.answered = time.Now() },
	}), m.method, u.String(), nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", target, err)
	}
	req.Header.Set("User-Agent", "perch-prober")
	if host := ask.Get("hostname"); host != "" {
		req.Host = host
		transport.TLSClientConfig.ServerName = host
	}
	resp, err := client.Do(req)
	status, size, length, version, secure := 0, int64(0), int64(0), 0.0, 0.0
	if err == nil {
		defer resp.Body.Close()
		status, length = resp.StatusCode, resp.ContentLength
		version, _ = strconv.ParseFloat(fmt.Sprintf("%d.%d", resp.ProtoMajor, resp.ProtoMinor), 64) // two digits
		size, err = io.Copy(io.Discard, io.LimitReader(resp.Body, p.cfg.Body))
		if err != nil {
			err = fmt.Errorf("read answer of %s: %w", target, err)
		}
		now.into(phases, time.Now())
		if at, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
			f.set("probe_http_last_modified_timestamp_seconds", "The answer's header Last-Modified, unix time.", float64(at.Unix()))
		}
		if resp.TLS != nil {
			secure = 1
			aboutTLS(f, *resp.TLS)
		}
	}
	f.set("probe_http_status_code", "Status of the last answer.", float64(status))
	f.set("probe_http_content_length", "Length that the answer declares, -1 when it does not, 0 without an answer.", float64(length))
	f.set("probe_http_uncompressed_body_length", "Bytes of the answer that were read.", float64(size))
	f.set("probe_http_redirects", "Redirects that were followed.", float64(redirects))
	f.set("probe_http_ssl", "1 when the last answer came over TLS.", secure)
	f.set("probe_http_version", "Version of HTTP of the last answer.", version)
	if err == nil && (status < 200 || status > 299) {
		err = fmt.Errorf("status %d, want 200 to 299", status)
	}
	return err
}

// into adds the phases of one request that ended at end.
func (t trace) into(of *prometheus.GaugeVec, end time.Time) {
	last := t.begin
	for _, ph := range []struct {
		name string
		at   time.Time
	}{{"resolve", t.resolved}, {"connect", t.connected}, {"tls", t.secured}, {"processing", t.answered}, {"transfer", end}} {
		if ph.at.After(last) {
			of.WithLabelValues(ph.name).Add(ph.at.Sub(last).Seconds())
			last = ph.at
		}
	}
}
