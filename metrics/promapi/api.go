package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/httputil"
	"github.com/prometheus/prometheus/util/notifications"
	webapi "github.com/prometheus/prometheus/web/api/v1"

	"perch/metrics/family"
)

// Config bounds what one query and all queries together may cost.
type Config struct {
	MaxSamples  int           // a query may hold in memory at once, 16 bytes each
	Timeout     time.Duration // of one query
	Concurrency int           // queries that run at once; others wait
	Lookback    time.Duration // how old a sample may be to count as now

	ReadSamples int // each query of a remote read may return, unless it takes chunks
	Points      int // an answer may have
	Listed      int // series, names or values an answer lists; more are cut, with a warning

	// Experimental switches on what Prometheus has behind feature flags:
	// experimental functions and modifiers, late removal of names, start times.
	Experimental bool

	// Kept is how much of samples is kept, shown on the status page.
	Kept           Kept
	ScrapeInterval time.Duration // shown on the status page
	EvalInterval   time.Duration // shown, and the default step of subqueries
	Version        string        // shown on the status page

	// ExternalURL is that of the page: of a target on localhost its host is shown.
	// It has a port.
	ExternalURL *url.URL
}

// Kept is what a store keeps.
type Kept struct {
	Age        time.Duration
	Bytes      int64         // on disk
	Series     int           // in memory
	OutOfOrder time.Duration // how late a sample may come
	Exemplars  int
}

// text is how Prometheus shows it.
func (k Kept) text() string {
	return fmt.Sprintf("%s or %s", model.Duration(k.Age), units.Base2Bytes(k.Bytes))
}

// Default suits a machine of two cores and a process with 800 MiB for everything:
// 5 M samples are 80 MB at the worst, and six queries 480 MB; an answer of 500,000
// points, or of 250,000 samples of a remote read, is some 70 MB until it is written.
func Default() Config {
	return Config{
		MaxSamples: 5_000_000, Timeout: 30 * time.Second, Concurrency: 6, Lookback: 5 * time.Minute, ReadSamples: 250_000,
		Points: 500_000, Listed: 50_000,
		ScrapeInterval: 15 * time.Second, EvalInterval: 5 * time.Second, Version: "dev",
		ExternalURL: &url.URL{Scheme: "http", Host: "localhost:80"},
	}
}

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs error
	if c.MaxSamples < 1 || c.Concurrency < 1 || c.ReadSamples < 1 || c.Points < 1 || c.Listed < 1 {
		errs = errors.Join(errs, errors.New("query limits (samples, concurrency, read samples, points, listed) must be at least 1"))
	}
	if c.Timeout <= 0 || c.Lookback <= 0 || c.EvalInterval <= 0 || c.ScrapeInterval <= 0 {
		errs = errors.Join(errs, errors.New("query durations (timeout, lookback, intervals) must be positive"))
	}
	return errs
}

// Database is what the API needs of the store; *store.Store is one.
type Database interface {
	storage.SampleAndChunkQueryable
	storage.Appendable
	storage.AppendableV2
	storage.ExemplarQueryable
	webapi.TSDBAdminStats
}

// Targets lists scrape targets; metrics/scrape's Loop is one.
type Targets interface {
	webapi.TargetRetriever
	webapi.ScrapePoolsRetriever
}

// Rules lists rule groups; Prometheus' rules.Manager is one.
type Rules interface{ webapi.RulesRetriever }

// Parts are the API's collaborators. Only Store is needed; what is nil answers
// with an empty list.
type Parts struct {
	Store         Database
	Targets       Targets
	Rules         func(context.Context) Rules     // all groups; callers see what their access allows
	Outside       func() []Alert                  // firing alerts that no rule makes, listed with those of rules
	RuleSources   func(file string) RuleSource    // whose the rules of a group's file are
	Alertmanagers func() []*url.URL               // where alerts go
	Missing       func(context.Context) []string  // nodes without recent samples
	Seconds       Seconds                         // for selectors with ring="1s"
	Gatherer      prometheus.Gatherer             // for status/self_metrics
	Families      *family.Book                    // type and help of metrics; nil: those of targets here
	QueryLog      func(context.Context, Finished) // who asked what; called once per HTTP query
}

// API is the engine and its HTTP doors. It is an http.Handler for /api/v1/*
// and /federate.
type API struct {
	cfg    Config
	engine *promql.Engine
	turns  *turns
	guard  guard
	in     intake
	mux    *http.ServeMux
	parser parser.Parser
	can    features.Collector
}

// New builds the engine and the routes.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Store == nil {
		return nil, errors.New("build query API: no store given")
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	lang := parser.NewParser(parser.Options{EnableExperimentalFunctions: cfg.Experimental, ExperimentalDurationExpr: cfg.Experimental,
		EnableExtendedRangeSelectors: cfg.Experimental, EnableBinopFillModifiers: cfg.Experimental})
	turns, can := newTurns(cfg.Concurrency, reg), abilities()
	a := &API{
		cfg:    cfg,
		turns:  turns,
		guard:  guard{parts.Store, parts.Missing, parts.Seconds},
		mux:    http.NewServeMux(),
		parser: lang,
		can:    can,
		engine: promql.NewEngine(promql.EngineOpts{
			Logger: log, Reg: reg, MaxSamples: cfg.MaxSamples, Timeout: cfg.Timeout, LookbackDelta: cfg.Lookback,
			ActiveQueryTracker:       turns,
			NoStepSubqueryIntervalFn: func(int64) int64 { return cfg.EvalInterval.Milliseconds() },
			EnableAtModifier:         true, EnableNegativeOffset: true, Parser: lang, FeatureRegistry: can,
			EnableDelayedNameRemoval: cfg.Experimental, UseStartTimestamps: cfg.Experimental,
		}),
	}
	reg.MustRegister(cfg.buildInfo())
	if parts.Gatherer == nil {
		parts.Gatherer = prometheus.NewRegistry()
	}
	router := route.New().WithPrefix("/api/v1")
	a.in = newIntake(parts.Store, reg)
	a.upstream(parts, a.in, log, reg).Register(router)
	a.mux.Handle("/api/v1/", boundedRead(logged(parts.QueryLog, restrict(sized(a.lists(a.writes(parts.Families, a.own(parts, parts.visibleRules(router)))))))))
	for _, path := range []string{"/-/healthy", "/-/ready"} { // promtool and probes ask
		a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "perch answers.\n") })
	}
	a.mux.Handle("GET /federate", logged(parts.QueryLog, sized(httputil.CompressionHandler{Handler: http.HandlerFunc(a.federate)})))
	return a, nil
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Context().Value(askedKey{}) == nil {
		r = r.WithContext(context.WithValue(r.Context(), askedKey{}, true))
	}
	a.mux.ServeHTTP(w, r)
}

// Instant evaluates expr at a time. A scalar becomes one sample without labels.
// Warnings tell among others that the answer is partial.
func (a *API) Instant(ctx context.Context, expr string, at time.Time) (promql.Vector, []string, error) {
	q, err := a.engine.NewInstantQuery(ctx, a.guard, nil, expr, at)
	if err != nil {
		return nil, nil, fmt.Errorf("parse query %q: %w", expr, err)
	}
	defer q.Close()
	res := q.Exec(ctx)
	warnings, _ := res.Warnings.AsStrings(expr, 0, 0)
	if res.Err != nil {
		return nil, warnings, fmt.Errorf("run query %q: %w", expr, res.Err)
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		return append(promql.Vector(nil), v...), warnings, nil
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V}}, warnings, nil
	}
	return nil, warnings, fmt.Errorf("run query %q: gives %s, want an instant vector", expr, res.Value.Type())
}

// shown is the configuration in Prometheus' words.
func (a *API) shown() config.Config {
	c := config.DefaultConfig
	c.GlobalConfig.ScrapeInterval = model.Duration(a.cfg.ScrapeInterval)
	c.GlobalConfig.EvaluationInterval = model.Duration(a.cfg.EvalInterval)
	c.StorageConfig = config.StorageConfig{ExemplarsConfig: &config.ExemplarsConfig{MaxExemplars: int64(a.cfg.Kept.Exemplars)}, TSDBConfig: &config.TSDBConfig{
		OutOfOrderTimeWindowFlag: model.Duration(a.cfg.Kept.OutOfOrder), Retention: &config.TSDBRetentionConfig{Time: model.Duration(a.cfg.Kept.Age), Size: units.Base2Bytes(a.cfg.Kept.Bytes)}}}
	return c
}

// upstream is Prometheus' own API package over our parts: what Grafana and
// promtool expect, to the letter.
func (a *API) upstream(parts Parts, in intake, log *slog.Logger, reg prometheus.Registerer) *webapi.API {
	started := time.Now()
	shown := a.shown()
	shown.OTLPConfig.PromoteResourceAttributes = []string{"k8s.namespace.name", "k8s.pod.name", "k8s.container.name", "k8s.node.name"} // see ofResource
	targets := func(ctx context.Context) visibleTargets { return visibleTargets{parts.Targets, AccessOf(ctx)} }
	return webapi.NewAPI(
		bounded{a.engine, a.cfg.Points}, a.guard, in, in, a.guard,
		func(ctx context.Context) webapi.ScrapePoolsRetriever { return targets(ctx) },
		func(ctx context.Context) webapi.TargetRetriever { return targets(ctx) },
		func(context.Context) webapi.AlertmanagerRetriever { return receivers{parts.Alertmanagers} },
		func() config.Config { return shown },
		map[string]string{
			"query.lookback-delta":        model.Duration(a.cfg.Lookback).String(),
			"query.max-concurrency":       fmt.Sprint(a.cfg.Concurrency),
			"query.max-samples":           fmt.Sprint(a.cfg.MaxSamples),
			"query.max-points":            fmt.Sprint(a.cfg.Points),
			"query.timeout":               model.Duration(a.cfg.Timeout).String(),
			"storage.tsdb.retention.time": model.Duration(a.cfg.Kept.Age).String(),
			"storage.tsdb.retention.size": units.Base2Bytes(a.cfg.Kept.Bytes).String(),
			"metric-retention":            model.Duration(a.cfg.Kept.Age).String(),
			"metric-bytes":                units.Base2Bytes(a.cfg.Kept.Bytes).String(),
			"metric-series":               fmt.Sprint(a.cfg.Kept.Series),
			"web.enable-admin-api":        "false",
		},
		webapi.GlobalURLOptions{ListenAddress: a.cfg.ExternalURL.Host, Host: a.cfg.ExternalURL.Host, Scheme: a.cfg.ExternalURL.Scheme},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		parts.Store, "", false, false, 0, log,
		func(ctx context.Context) webapi.RulesRetriever {
			if parts.Rules == nil {
				return noRules{}
			}
			return parts.Rules(ctx)
		},
		a.cfg.ReadSamples, a.cfg.Concurrency, 1<<20, false, nil,
		func() (webapi.RuntimeInfo, error) { return a.runtimeInfo(started, parts.Store), nil },
		&webapi.PrometheusVersion{Version: prometheusVersion(), Revision: "perch " + a.cfg.Version, Branch: "perch", GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, func() {}, false },
		parts.Gatherer, reg, nil,
		true, remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType},
		true, false, false, false, a.cfg.Lookback, false, true, nil,
		a.can, webapi.OpenAPIOptions{}, a.parser,
	)
}

func (a *API) runtimeInfo(started time.Time, db Database) webapi.RuntimeInfo {
	host, _ := os.Hostname() // shown only
	dir, _ := os.Getwd()
	damaged := int64(0)
	if s, ok := db.(interface{ Repaired() bool }); ok && s.Repaired() {
		damaged = 1
	}
	return webapi.RuntimeInfo{
		StartTime: started, ServerTime: time.Now(), Hostname: host, ReloadConfigSuccess: true, LastConfigTime: started,
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0), GOMEMLIMIT: debug.SetMemoryLimit(-1),
		GOGC: os.Getenv("GOGC"), GODEBUG: os.Getenv("GODEBUG"), StorageRetention: a.cfg.Kept.text(), CWD: dir, CorruptionCount: damaged,
	}
}

// buildInfo is the series by which dashboards find their Prometheus.
func (c Config) buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "prometheus_build_info", Help: "Which Prometheus this is, and of which build of perch; always 1.", ConstLabels: prometheus.Labels{
		"version": prometheusVersion(), "revision": "perch " + c.Version, "branch": "perch", "goversion": runtime.Version(), "goos": runtime.GOOS, "goarch": runtime.GOARCH, "tags": "unknown",
	}})
	g.Set(1)
	return g
}

// prometheusVersion tells clients which features to expect; Grafana asks.
func prometheusVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/prometheus/prometheus" {
				// Module v0.3xx is release 3.xx.
				var minor, patch int
				if _, err := fmt.Sscanf(strings.TrimPrefix(m.Version, "v0.3"), "%d.%d", &minor, &patch); err == nil {
					return fmt.Sprintf("3.%d.%d", minor, patch)
				}
			}
		}
	}
	return "3.0.0"
}

// restrict refuses what a namespace matcher cannot narrow.
func restrict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, path := AccessOf(r.Context()), r.URL.Path
		switch {
		case strings.HasPrefix(path, "/api/v1/write"), strings.HasPrefix(path, "/api/v1/otlp"):
			if !a.Write {
				refuse(w, "writing samples needs the right to create them")
				return
			}
		case strings.HasPrefix(path, "/api/v1/status/buildinfo"): // Grafana's health check
		case strings.HasPrefix(path, "/api/v1/status/"), strings.HasPrefix(path, "/api/v1/notifications"):
			if !a.Status() {
				refuse(w, "this page shows all namespaces; it needs the non-resource right get /metrics")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, why string) {
	answerError(w, http.StatusForbidden, "forbidden", why)
}

func answerError(w http.ResponseWriter, code int, kind, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": kind, "error": why}) // the client is gone otherwise
}

type noRules struct{}

func (noRules) RuleGroups() []*rules.Group           { return nil }
func (noRules) AlertingRules() []*rules.AlertingRule { return nil }

type receivers struct{ list func() []*url.URL }

func (r receivers) Alertmanagers() []*url.URL {
	if r.list == nil {
		return nil
	}
	return r.list()
}
func (receivers) DroppedAlertmanagers() []*url.URL { return nil }

// visibleTargets shows a caller the targets of its namespaces.
type visibleTargets struct {
	all    Targets
	access Access
}

func (v visibleTargets) filter(all map[string][]*scrape.Target) map[string][]*scrape.Target {
	if v.access.All {
		return all
	}
	out := map[string][]*scrape.Target{}
	for pool, list := range all {
		for _, t := range list {
			if v.access.Allows(t.Labels(labels.NewBuilder(labels.EmptyLabels())).Get("namespace")) {
				out[pool] = append(out[pool], t)
			}
		}
	}
	return out
}

func (v visibleTargets) TargetsActive() map[string][]*scrape.Target {
	if v.all == nil {
		return nil
	}
	return v.filter(v.all.TargetsActive())
}

func (v visibleTargets) TargetsDropped() map[string][]*scrape.Target {
	if v.all == nil || !v.access.Status() {
		return nil // dropped ones have no labels to tell whose they are
	}
	return v.all.TargetsDropped()
}

func (v visibleTargets) TargetsDroppedCounts() map[string]int {
	if v.all == nil || !v.access.Status() {
		return map[string]int{} // null would be another shape
	}
	return v.all.TargetsDroppedCounts()
}

// ScrapePoolConfig is of pools with targets that the caller may see: rules of objects
// tell of others' labels and servers.
func (v visibleTargets) ScrapePoolConfig(name string) (*config.ScrapeConfig, error) {
	if !slices.Contains(v.ScrapePools(), name) {
		return nil, fmt.Errorf("no scrape pool %q", name)
	}
	return v.all.ScrapePoolConfig(name)
}

func (v visibleTargets) ScrapePools() []string {
	if v.all == nil {
		return nil
	}
	if v.access.All {
		return v.all.ScrapePools()
	}
	out := slices.AppendSeq([]string{}, maps.Keys(v.TargetsActive())) // null would be another shape
	slices.Sort(out)
	return out
}
