package route

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/api"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/inhibit"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	amroute "github.com/prometheus/common/route"
)

// promptInterval is what an unset group_interval means: changes of a group
// (a new alert, a resolved one) are told within this time. Asking a group that
// has nothing new costs about 35 µs of CPU (BenchmarkQuietGroups).
const promptInterval = 500 * time.Millisecond

// maintenance is how often what is past its retention is dropped from silences
// and notification log.
const maintenance = 15 * time.Minute

// Config of the router.
type Config struct {
	Dir         string        // silences, notification log, known alerts, the configuration
	ExternalURL *url.URL      // shown in notifications; its path is where Handler is mounted
	Retention   time.Duration // of silences and notification log, default 120 h
	Grace       time.Duration // for alerts of before to be told again after a start, default 4 min

	// Outside takes alerts that are posted to Handler. What is to be told comes back
	// by Receive. nil: they go the short way.
	Outside func(context.Context, ...Alert) error

	Resolve func(host string) (ip string, ok bool) // names that only the cluster knows; nil: none
	Guarded func(netip.Addr) bool                  // addresses that receivers of namespaces do not reach; nil: none
}

// Router owns everything between a firing rule and a receiver.
type Router struct {
	cfg     Config
	log     *slog.Logger
	reg     prometheus.Registerer
	applied prometheus.Gauge

	alerts   *mem.Alerts
	silences *silence.Silences
	silencer *silence.Silencer
	sent     *nflog.Log
	groups   marker.GroupMarker
	pipeline *notify.PipelineBuilder
	metrics  *dispatch.DispatcherMetrics
	api      *api.API

	silenceFile, sentFile, activeFile, textFile *kept

	mu         sync.Mutex
	dispatcher *dispatch.Dispatcher
	inhibitor  *inhibit.Inhibitor
	text       string // the configuration in force
	written    string // the same, secrets masked
}

// Default configuration: alerts are kept and shown, and sent to nobody.
const Default = `route: {receiver: nobody}
receivers: [{name: nobody}]
`

// New opens the state; Apply or Restore puts a configuration into force.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Router, error) {
	utf8Names()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open alert state: %w", err)
	}
	if cfg.Retention == 0 {
		cfg.Retention = 120 * time.Hour
	}
	if cfg.Grace == 0 {
		cfg.Grace = 4 * time.Minute // as long as a rule's alert lasts without being told again
	}
	r := &Router{cfg: cfg, log: log, reg: reg, groups: marker.NewGroupMarker(),
		applied: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_route_config_last_apply_successful", Help: "1 when the newest Alertmanager configuration is in force, else 0."})}
	reg.MustRegister(r.applied)
	am := prometheus.WrapRegistererWith(nil, reg)
	flags := featurecontrol.NoopFlags{}
	rec := eventrecorder.NopRecorder()
	var err error
	if err = r.openKept(am); err != nil {
		return nil, err
	}
	r.silencer = silence.NewSilencer(r.silences, log, rec)
	if r.alerts, err = mem.NewAlerts(context.Background(), 30*time.Minute, 0, watchedStore{r.silencer, r.activeFile.touch}, log, rec, am, flags); err != nil {
		return nil, fmt.Errorf("open alerts: %w", err)
	}
	if err = r.openActive(); err != nil {
		return nil, err
	}
	r.pipeline = notify.NewPipelineBuilder(am, flags, rec)
	r.metrics = dispatch.NewDispatcherMetrics(false, am, flags)
	r.api, err = api.New(api.Options{Alerts: posted{r.alerts, cfg.Outside}, Silences: r.silences, GroupMutedFunc: r.groups.Muted, Logger: log, Registry: am,
		RequestDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "perch_route_http_request_duration_seconds", Help: "Duration of requests to the Alertmanager API."}, []string{"handler", "method", "code"}),
		GroupFunc: func(ctx context.Context, routes func(*dispatch.Route) bool, alerts func(*alert.Alert, time.Time) bool) (dispatch.AlertGroups, map[model.Fingerprint][]string, error) {
			r.mu.Lock()
			d := r.dispatcher
			r.mu.Unlock()
			return d.Groups(ctx, routes, alerts)
		}})
	if err != nil {
		return nil, fmt.Errorf("open alert API: %w", err)
	}
	return r, nil
}

func (r *Router) file(name string) string { return filepath.Join(r.cfg.Dir, name) }

// Check tells what is wrong with a configuration without using it.
func Check(text string) error {
	_, err := load(text)
	return err
}

// utf8Names has the library take names of labels in UTF-8, as rules do and Alertmanager
// does; without it is as old ones were. It is the library's own for all of a process.
var utf8Names = sync.OnceFunc(func() { compat.InitFromFlags(slog.New(slog.DiscardHandler), featurecontrol.NoopFlags{}) })

func load(text string) (*config.Config, error) {
	utf8Names()
	conf, err := config.Load(text)
	if err != nil {
		return nil, fmt.Errorf("read Alertmanager configuration: %w", err)
	}
	if conf.Route.GroupWait == nil {
		conf.Route.GroupWait = new(model.Duration)
	}
	if conf.Route.GroupInterval == nil {
		prompt := model.Duration(promptInterval)
		conf.Route.GroupInterval = &prompt
	}
	return conf, nil
}

// Apply puts a configuration in Alertmanager's format into force. On error the
// one before stays.
func (r *Router) Apply(text string) error { return r.ApplyWith(text, nil) }

// ApplyWith is Apply with templates that are in no file, read after those that are.
func (r *Router) ApplyWith(text string, templates []string) (err error) {
	defer func() {
		r.applied.Set(map[bool]float64{true: 1, false: 0}[err == nil])
	}()
	conf, err := load(text)
	if err != nil {
		return err
	}
	tmpl, err := template.FromGlobs(conf.Templates)
	if err != nil {
		return fmt.Errorf("read notification templates: %w", err)
	}
	for i, t := range templates {
		if err := tmpl.Parse(strings.NewReader(t)); err != nil {
			return fmt.Errorf("read notification template %d: %w", i+1, err)
		}
	}
	tmpl.ExternalURL = r.cfg.ExternalURL
	receivers := map[string][]notify.Integration{}
	for _, rc := range conf.Receivers {
		if receivers[rc.Name], err = r.build(conf, rc, tmpl); err != nil {
			return err
		}
	}
	intervals := map[string][]timeinterval.TimeInterval{}
	for _, t := range conf.MuteTimeIntervals {
		intervals[t.Name] = t.TimeIntervals
	}
	for _, t := range conf.TimeIntervals {
		intervals[t.Name] = t.TimeIntervals
	}
	written := asWritten(text, conf.String())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text, r.written = text, written
	r.textFile.touch(nil)
	r.stop()
	rec := eventrecorder.NopRecorder()
	r.inhibitor = inhibit.NewInhibitor(r.alerts, conf.InhibitRules, r.log, rec)
	stages := r.pipeline.New(receivers, func() time.Duration { return 0 }, r.inhibitor, r.silencer, timeinterval.NewIntervener(intervals), r.groups, r.sent, nil)
	inhibitor := r.inhibitor
	r.api.Update(conf, func(ctx context.Context, labels model.LabelSet) {
		inhibitor.Mutes(ctx, labels)
		r.silencer.Mutes(ctx, labels)
	})
	r.dispatcher = dispatch.NewDispatcher(r.alerts, dispatch.NewRoute(conf.Route, nil), stages, r.groups,
		func(d time.Duration) time.Duration { return max(d, notify.MinTimeout) }, 30*time.Second, nil, r.log, rec, r.metrics, tmpl)
	go r.inhibitor.Run() // ended by stop
	r.inhibitor.WaitForLoading()
	go r.dispatcher.Run(time.Now()) // ended by stop
	r.dispatcher.WaitForLoading()
	return nil
}

// Restore puts the configuration of the process before into force, so that
// alerts find their receivers before the cluster's API answers; Default where
// there is none that can be used.
func (r *Router) Restore() error {
	text, err := os.ReadFile(r.file("config"))
	if err == nil {
		err = r.Apply(r.runnable(string(text)))
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("configuration of before cannot be used", "err", err)
	}
	return r.Apply(Default)
}

func (r *Router) snapshotText(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, r.Text())
	return int64(n), err
}

// stop ends what Apply started; the caller holds mu.
func (r *Router) stop() {
	if r.dispatcher != nil {
		r.dispatcher.Stop()
	}
	if r.inhibitor != nil {
		r.inhibitor.Stop()
	}
}

// Alert is one state of one alert.
type Alert struct {
	Labels, Annotations map[string]string
	Starts, Ends        time.Time // Ends in the future: it is still firing
	Guessed             bool      // nobody said when it ends: Ends holds until it is told again
	Source              string    // URL of the expression
}

// Receive takes new states of alerts; an alert with the same labels is the same
// alert.
func (r *Router) Receive(ctx context.Context, alerts ...Alert) error {
	now := time.Now()
	in := make([]*alert.Alert, len(alerts))
	for i, a := range alerts {
		labels, notes := labelSet(a.Labels), model.LabelSet{}
		for k, v := range a.Annotations {
			notes[model.LabelName(k)] = model.LabelValue(v)
		}
		in[i] = &alert.Alert{UpdatedAt: now, Timeout: a.Guessed, Alert: model.Alert{Labels: labels, Annotations: notes, StartsAt: a.Starts, EndsAt: a.Ends, GeneratorURL: a.Source}}
	}
	if err := r.alerts.Put(ctx, in...); err != nil {
		return fmt.Errorf("receive alerts: %w", err)
	}
	return nil
}

// Handler serves Alertmanager's API v2 below prefix + "/api/v2".
func (r *Router) Handler(prefix string) http.Handler {
	return r.honest(r.durable(r.api.Register(amroute.New(), prefix)))
}

// Run keeps silences and notification log on disk until ctx ends, then stops
// dispatching.
func (r *Router) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	files, last := context.WithCancel(context.WithoutCancel(ctx))
	defer last()
	wg.Go(func() { r.sentFile.run(files, r.log) })
	wg.Go(func() { r.silenceFile.run(files, r.log) })
	wg.Go(func() { r.activeFile.run(files, r.log) })
	wg.Go(func() { r.textFile.run(files, r.log) })
	<-ctx.Done()
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	last() // after the last notification
	wg.Wait()
	r.alerts.Close()
	return nil
}
