package discovery

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	config_util "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v2"

	"perch/metrics/target"
)

// openHTTP builds the client of a service: that of Prometheus, with our dial.
func (l *Loop) openHTTP(s target.Search) (asker, error) {
	how := config_util.DefaultHTTPClientConfig
	if err := yaml.Unmarshal([]byte(s.Client), &how); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	at, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("read URL: %w", err)
	}
	dial := &dialer{resolve: l.parts.Resolve, machine: l.parts.Machine, named: said(how, at), timeout: l.cfg.Timeout, most: l.cfg.Body + answerHead}
	// No connection waits for the next question, so none has to be ended.
	client, err := config_util.NewClientFromConfig(how, "discovery", config_util.WithDialContextFunc(dial.dial), config_util.WithKeepAlivesDisabled())
	if err != nil {
		return nil, fmt.Errorf("build client: %w", err)
	}
	return func(ctx context.Context) (answer, error) {
		dial.begin(ctx)
		got, err := l.askHTTP(ctx, client, s)
		if err != nil {
			return answer{}, fmt.Errorf("ask %s: %w", at.Redacted(), err)
		}
		return got, nil
	}, nil
}

func (l *Loop) askHTTP(ctx context.Context, client *http.Client, s target.Search) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return answer{}, failure(ctx, err)
	}
	req.Header.Set("User-Agent", "perch-discovery")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Prometheus-Refresh-Interval-Seconds", strconv.FormatFloat(s.Every.Seconds(), 'f', -1, 64))
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, failure(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, l.cfg.Body+1))
	switch {
	case err != nil:
		return answer{}, failure(ctx, err)
	case int64(len(body)) > l.cfg.Body:
		return answer{}, fmt.Errorf("the answer is longer than %d bytes", l.cfg.Body)
	}
	return read(body, map[string]string{"__meta_url": s.URL}, l.cfg.Targets)
}

// said are the addresses that the object says itself.
func said(how config_util.HTTPClientConfig, at *url.URL) map[string]bool {
	list := []*url.URL{at, how.ProxyURL.URL}
	if how.OAuth2 != nil {
		tokens, err := url.Parse(how.OAuth2.TokenURL)
		if err != nil {
			tokens = nil
		}
		list = append(list, tokens, how.OAuth2.ProxyURL.URL)
	}
	out := map[string]bool{}
	for _, u := range list {
		if u == nil {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		out[net.JoinHostPort(u.Hostname(), port)] = true
	}
	return out
}
