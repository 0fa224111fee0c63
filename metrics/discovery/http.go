package discovery

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	config_util "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v2"

	"perch/metrics/target"
)

// openHTTP builds the client of a service: that of Prometheus, with our dial.
func (l *Loop) openHTTP(ctx context.Context, s target.Search) (asker, error) {
	how := config_util.DefaultHTTPClientConfig
	if err := yaml.Unmarshal([]byte(s.Client), &how); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	dial := dialer{until: ctx, resolve: l.parts.Resolve, timeout: l.cfg.Timeout, most: l.cfg.Body + answerHead}
	// No connection waits for the next question, so none has to be ended.
	client, err := config_util.NewClientFromConfig(how, "discovery", config_util.WithDialContextFunc(dial.dial), config_util.WithKeepAlivesDisabled())
	if err != nil {
		return nil, fmt.Errorf("build client: %w", err)
	}
	at, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("read URL: %w", err)
	}
	return func(ctx context.Context) (answer, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
		if err != nil {
			return answer{}, fmt.Errorf("ask %s: %w", at.Redacted(), err)
		}
		req.Header.Set("User-Agent", "perch-discovery")
		req.Header.Set("Accept", "application/json")
		req.Header.Set("X-Prometheus-Refresh-Interval-Seconds", strconv.FormatFloat(s.Every.Seconds(), 'f', -1, 64))
		resp, err := client.Do(req)
		if err != nil {
			return answer{}, err //nolint:wrapcheck // it names the URL
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return answer{}, fmt.Errorf("%s answers with status %d", at.Redacted(), resp.StatusCode)
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, l.cfg.Body+1))
		switch {
		case err != nil:
			return answer{}, fmt.Errorf("read answer of %s: %w", at.Redacted(), err)
		case int64(len(body)) > l.cfg.Body:
			return answer{}, fmt.Errorf("the answer of %s is longer than %d bytes", at.Redacted(), l.cfg.Body)
		}
		got, err := read(body, map[string]string{"__meta_url": s.URL}, l.cfg.Targets)
		if err != nil {
			return answer{}, fmt.Errorf("ask %s: %w", at.Redacted(), err)
		}
		return got, nil
	}, nil
}
