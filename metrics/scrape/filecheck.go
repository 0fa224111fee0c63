package scrape

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/dns"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/http"
)

// Check says what is wrong with a file of scrape_configs, with the line where
// there is one.
func Check(path string) error {
	_, _, err := readFile(path, slog.New(slog.DiscardHandler))
	return err
}

func readFile(path string, log *slog.Logger) (*config.Config, []*config.ScrapeConfig, error) {
	full, err := config.LoadFile(path, false, log)
	if err != nil {
		return nil, nil, plain(path, err)
	}
	pools, err := full.GetScrapeConfigs()
	if err != nil {
		return nil, nil, plain(path, err)
	}
	return full, pools, nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type [\w.]+`)

// plain is a complaint of Prometheus' parser as one line in words that a reader of
// the file knows.
func plain(path string, err error) error {
	text := strings.ReplaceAll(err.Error(), "parsing YAML file "+path+": ", "")
	text = strings.ReplaceAll(text, "yaml: unmarshal errors:\n  ", "")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\n  ", "; "), "yaml: ", "")
	text = unknownField.ReplaceAllStringFunc(text, func(found string) string {
		name := unknownField.FindStringSubmatch(found)[1]
		if strings.HasSuffix(name, "_sd_configs") {
			return name + " is not supported: targets are found by static_configs, file_sd_configs, dns_sd_configs and http_sd_configs; " +
				"what runs in the cluster by annotations, ServiceMonitor, PodMonitor and ScrapeConfig objects"
		}
		return name + " is not known"
	})
	if strings.Contains(text, path) {
		return errors.New(text)
	}
	return errors.New(path + ": " + text)
}

// failures are what discovery said last of each job: its library tells nobody
// but the log.
type failures struct {
	mu sync.Mutex
	of map[string]failure // by job
}

type failure struct {
	at   time.Time
	text string
}

func (f *failures) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.of)
}

// newest is what is wrong with a job's discovery, empty when the last look said
// nothing.
func (f *failures) newest(p *config.ScrapeConfig, now time.Time) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	have, ok := f.of[p.JobName]
	if !ok || now.Sub(have.at) > lookAgain(p)+30*time.Second {
		return ""
	}
	return have.text
}

// lookAgain is how long the slowest discovery of a job waits.
func lookAgain(p *config.ScrapeConfig) time.Duration {
	var slowest time.Duration
	for _, d := range p.ServiceDiscoveryConfigs {
		switch d := d.(type) {
		case *http.SDConfig:
			slowest = max(slowest, time.Duration(d.RefreshInterval))
		case *dns.SDConfig:
			slowest = max(slowest, time.Duration(d.RefreshInterval))
		case *file.SDConfig:
			slowest = max(slowest, time.Duration(d.RefreshInterval))
		}
	}
	return slowest
}

// listener hands on what is logged and keeps what discovery complains about.
type listener struct {
	slog.Handler
	job string
	to  *failures
}

func (l listener) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || l.Handler.Enabled(ctx, level)
}

func (l listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "config" {
			l.job = a.Value.String()
		}
	}
	l.Handler = l.Handler.WithAttrs(attrs)
	return l
}

func (l listener) WithGroup(name string) slog.Handler {
	l.Handler = l.Handler.WithGroup(name)
	return l
}

func (l listener) Handle(ctx context.Context, r slog.Record) error {
	if l.job != "" && r.Level >= slog.LevelWarn {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "err" {
				text += ": " + a.Value.String()
			}
			return true
		})
		l.to.mu.Lock()
		l.to.of[l.job] = failure{r.Time, text}
		l.to.mu.Unlock()
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}
