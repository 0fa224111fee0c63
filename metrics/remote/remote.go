package remote

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote"
	"go.yaml.in/yaml/v2"

	"perch/metrics/family"
	"perch/metrics/store"
)

// maxTargets bounds the receivers; each costs a reader of the WAL, its shards
// and their queues.
const maxTargets = 16

// flushLimit is how long Close waits for what is under way.
const flushLimit = 5 * time.Second

// Sender sends on what is committed to a store.
type Sender struct {
	store   *store.Store
	storage *remote.WriteStorage
	log     *slog.Logger
	targets prometheus.Gauge

	families     func() []family.Told
	sent, untold prometheus.Counter

	mu     sync.Mutex // guards what follows
	told   []*told
	beside time.Duration // how often families are looked at for receivers of version 2; 0: there are none
}

// New makes a sender of what is committed to a store, and of the families: what is
// known of metrics now. It sends nothing before Apply.
func New(st *store.Store, families func() []family.Told, log *slog.Logger, reg prometheus.Registerer) *Sender {
	s := &Sender{
		store: st, storage: remote.NewWriteStorage(log, reg, st.Dir(), flushLimit, nil, false), log: log,
		targets:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_remote_write_targets", Help: "Receivers that samples are sent to."}),
		families: families,
		sent:     prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_remote_write_families_sent_total", Help: "Types and helps of metric families that receivers took."}),
		untold:   prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_remote_write_families_failed_total", Help: "Types and helps of metric families that a receiver did not take; they are sent again later."}),
	}
	if reg != nil {
		reg.MustRegister(s.targets, s.sent, s.untold)
	}
	return s
}

// Notify says that something was committed; it never blocks.
func (s *Sender) Notify() { s.storage.Notify() }

// Apply puts a configuration into force: the sections global and remote_write
// of a prometheus.yml; an empty text ends all sending. After an error what was
// in force stays. Targets that did not change go on undisturbed.
func (s *Sender) Apply(text string) error {
	cfg, err := parse(text)
	if err != nil {
		return err
	}
	var all []*told
	var beside time.Duration
	for i, t := range cfg.RemoteWriteConfigs {
		// Tried first, because ApplyConfig would end the queues it came to before
		// one it cannot make, for example for want of a file.
		client, err := remote.NewWriteClient(cmp.Or(t.Name, fmt.Sprint("families of ", i)), clientConfig(t))
		if err != nil {
			return fmt.Errorf("apply remote write configuration: remote_write[%d] (%s): %w", i, t.URL.Redacted(), err)
		}
		if one := tells(t, client); one != nil {
			all = append(all, one)
		}
		if every := besideSeries(t); every > 0 && (beside == 0 || every < beside) {
			beside = every
		}
	}
	if err := s.storage.ApplyConfig(cfg); err != nil {
		return fmt.Errorf("apply remote write configuration: %w", err)
	}
	s.targets.Set(float64(len(cfg.RemoteWriteConfigs)))
	s.mu.Lock()
	s.told, s.beside = all, beside
	s.mu.Unlock()
	return nil
}

func clientConfig(t *config.RemoteWriteConfig) *remote.ClientConfig {
	return &remote.ClientConfig{URL: t.URL, WriteProtoMsg: t.ProtobufMessage, Timeout: t.RemoteTimeout, HTTPClientConfig: t.HTTPClientConfig,
		Headers: t.Headers, SigV4Config: t.SigV4Config, AzureADConfig: t.AzureADConfig, GoogleIAMConfig: t.GoogleIAMConfig}
}

// Close sends what is under way, for a few seconds at most.
func (s *Sender) Close() error { return s.storage.Close() }

// Check says what is wrong with a configuration.
func Check(text string) error {
	_, err := parse(text)
	return err
}

// file is the part of a prometheus.yml that matters here.
type file struct {
	Global config.GlobalConfig         `yaml:"global"`
	Write  []*config.RemoteWriteConfig `yaml:"remote_write"`
}

// parse reads a configuration; its errors name the line or the target.
func parse(text string) (*config.Config, error) {
	cfg := config.DefaultConfig
	read := file{Global: config.DefaultGlobalConfig}
	decoder := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.SetStrict(true)
	if err := decoder.Decode(&read); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("parse remote write configuration (only global and remote_write of a prometheus.yml are read): %w", err)
	}
	if len(read.Write) > maxTargets {
		return nil, fmt.Errorf("parse remote write configuration: %d targets, %d are allowed", len(read.Write), maxTargets)
	}
	names, whole := map[string]bool{}, map[string]bool{}
	for i, t := range read.Write {
		if t == nil {
			return nil, fmt.Errorf("parse remote write configuration: remote_write[%d] is empty: give a url", i)
		}
		if err := t.Validate(read.Global.MetricNameValidationScheme); err != nil {
			return nil, fmt.Errorf("parse remote write configuration: remote_write[%d] (%s): %w", i, t.URL.Redacted(), err)
		}
		if t.Name != "" && names[t.Name] {
			return nil, fmt.Errorf("parse remote write configuration: remote_write[%d]: the name %q is taken", i, t.Name)
		}
		names[t.Name] = true
		// ApplyConfig refuses two that are written alike, but only after it let go
		// of the first.
		written, err := yaml.Marshal(t)
		if err != nil {
			return nil, fmt.Errorf("parse remote write configuration: remote_write[%d]: %w", i, err)
		}
		if whole[string(written)] {
			return nil, fmt.Errorf("parse remote write configuration: remote_write[%d] (%s) is there twice", i, t.URL.Redacted())
		}
		whole[string(written)] = true
	}
	cfg.GlobalConfig, cfg.RemoteWriteConfigs = read.Global, read.Write
	return &cfg, nil
}
