package rule

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

//go:embed content/*.yaml
var content embed.FS

// lookAgain is how often the rules directory is read: a changed file is in
// force this much later at most.
const lookAgain = 2 * time.Second

// resendDelay is how often a firing alert is told again, so that its receiver
// knows it still fires (Prometheus' --rules.alert.resend-delay).
const resendDelay = time.Minute

// Config of the rules.
type Config struct {
	Interval    time.Duration // between evaluations where a group says nothing
	Dir         string        // *.yml and *.yaml files, watched; empty: none
	ExternalURL *url.URL      // of the page, for links in alerts
}

// Alert is what a rule says about one set of labels.
type Alert struct {
	Labels, Annotations map[string]string
	Starts              time.Time
	Ends                time.Time // in the future while it fires
	Source              string    // URL that shows the expression
}

// Data is the metric store as rules use it.
type Data struct {
	Query     rules.QueryFunc // its error may be ErrPartial
	Queryable storage.Queryable
	Append    storage.Appendable
	Refresh   func(context.Context) error // stores the state of objects as it is now

	// Within is a context in which Query sees only the series of a namespace, or
	// everything when that is empty.
	Within func(ctx context.Context, namespace string) context.Context
}

// Rules keeps the sources loaded and evaluated.
type Rules struct {
	cfg     Config
	objects func() []Source // PrometheusRule objects as they are now
	log     *slog.Logger
	broken  prometheus.Gauge
	held    prometheus.Counter
	manager *rules.Manager
	loader  *loader
	parser  parser.Parser
	refresh func(context.Context) error
	within  func(context.Context, string) context.Context
	stored  storage.Queryable
	prompt  *prompt
	notify  rules.NotifyFunc
	gone    map[uint64]gone // by the hash of their labels; of Run

	mu       sync.Mutex // guards what follows
	problems []Problem
	homes    map[string]string // namespace of sources that do not see everything
	states   map[ruleKey]*ruleState
}

// loader is what the manager reads; it is replaced as a whole before each
// update, which happens in Run only.
type loader struct{ loaded }

// New prepares the rules; nothing is evaluated before Run. send takes alerts
// that fire or have just resolved, and must not block for long: it holds up the
// evaluation of its group.
func New(cfg Config, data Data, objects func() []Source, send func(context.Context, ...Alert) error, log *slog.Logger, reg prometheus.Registerer) *Rules {
	r := &Rules{cfg: cfg, objects: objects, log: log, loader: &loader{}, refresh: data.Refresh, within: data.Within, stored: data.Queryable, prompt: newPrompt(reg),
		parser: parser.NewParser(parser.Options{}), states: map[ruleKey]*ruleState{}, gone: map[uint64]gone{},
		broken: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_rule_problems", Help: "Rules, or whole sources of rules, that are not in force because they cannot be read."})}
	r.held = prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_rule_held_alerts_total", Help: "Times that an alert went on to fire because the answer that lacked it was partial."})
	reg.MustRegister(r.broken, r.held)
	r.loader.parser = r.parser
	r.notify = func(ctx context.Context, expr string, alerts ...*rules.Alert) {
		if err := send(ctx, r.told(expr, alerts)...); err != nil {
			log.Warn("alerts were not taken", "count", len(alerts), "err", err)
		}
	}
	r.manager = rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation,
		ExternalURL:          cfg.ExternalURL,
		QueryFunc:            r.whole(data.Query),
		Queryable:            data.Queryable,
		Appendable:           data.Append,
		Context:              context.Background(),
		Logger:               log,
		Registerer:           reg,
		OutageTolerance:      outage,
		ForGracePeriod:       cfg.Interval,
		ResendDelay:          resendDelay,
		GroupLoader:          r.loader,
		Parser:               r.parser,
		RestoreNewRuleGroups: true,
		NotifyFunc:           r.notify,
	})
	return r
}

func (r *Rules) told(expr string, alerts []*rules.Alert) []Alert {
	out := make([]Alert, len(alerts))
	for i, a := range alerts {
		at := url.Values{"expr": {expr}, "from": {a.FiredAt.Add(-15 * time.Minute).UTC().Format(time.RFC3339)}, "to": {a.FiredAt.Add(10 * time.Minute).UTC().Format(time.RFC3339)}}
		out[i] = Alert{Labels: a.Labels.Map(), Annotations: a.Annotations.Map(), Starts: a.FiredAt, Ends: a.ValidUntil,
			Source: r.cfg.ExternalURL.JoinPath("metrics").String() + "?" + at.Encode()}
		if !a.ResolvedAt.IsZero() {
			out[i].Ends = a.ResolvedAt
		}
	}
	return out
}

// Manager gives the groups as Prometheus' HTTP API shows them.
func (r *Rules) Manager() *rules.Manager { return r.manager }

// Problems lists the sources that are not in force and why.
func (r *Rules) Problems() []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.problems)
}

// Run evaluates until ctx ends: at every tick, and groups that read the state
// of objects soon after Changed. Changes of files and objects are in force
// within lookAgain.
func (r *Rules) Run(ctx context.Context) error {
	started := make(chan struct{})
	go func() { // ended by Stop below
		close(started)
		r.manager.Run()
	}()
	<-started
	defer r.manager.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var last []Source
	changed, rest := r.prompt.changed, time.NewTimer(0)
	defer rest.Stop()
	for look := true; ; {
		if look {
			now, err := r.sources()
			if err != nil {
				r.log.Warn("rules directory was not read", "err", err)
			} else if !slices.Equal(now, last) {
				if err := r.use(now); err != nil {
					return err
				}
				last = now
			}
			r.endGone(ctx, time.Now())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			look = true
		case <-changed: // here, so that no group is replaced meanwhile
			look, changed = false, nil
			rest.Reset(r.now(ctx))
		case <-rest.C:
			look, changed = false, r.prompt.changed
		}
	}
}

func (r *Rules) use(sources []Source) error {
	groups, problems := parse(sources, r.parser)
	for _, p := range problems {
		r.log.Warn("rule left out", "problem", p.String())
	}
	r.broken.Set(float64(len(problems)))
	homes := map[string]string{}
	for _, s := range sources {
		homes[s.Name] = s.Namespace
	}
	r.mu.Lock()
	r.problems, r.homes = problems, homes
	r.mu.Unlock()
	fired := r.firing()
	r.loader.groups = groups
	if err := r.manager.Update(r.cfg.Interval, slices.Sorted(maps.Keys(groups)), labels.EmptyLabels(), r.cfg.ExternalURL.String(), r.evaluate); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	r.prompt.state = stateReaders(groups, r.parser)
	r.prompt.keep(r.manager.RuleGroups())
	r.forget(r.manager.RuleGroups())
	r.left(fired, time.Now())
	r.log.Info("rules loaded", "count", len(groups))
	return nil
}

// Shipped lists the rules of this binary.
func Shipped() ([]Source, error) {
	names, err := fs.Glob(content, "content/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list shipped rules: %w", err)
	}
	var out []Source
	for _, name := range names {
		text, err := content.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read shipped rules: %w", err)
		}
		out = append(out, Source{Name: "perch/" + filepath.Base(name), Text: string(text)})
	}
	return out, nil
}

// replaces answers whether an object stands for a shipped source: the object
// kube-system/perch-pods is used instead of perch/pods.yaml.
func replaces(object, shipped string) bool {
	stem := strings.TrimSuffix(strings.TrimPrefix(shipped, "perch/"), ".yaml")
	return object == "PrometheusRule/kube-system/perch-"+stem
}

// FromDir are the rule files of a directory, *.yml and *.yaml, sorted by name;
// none of no directory. A file that cannot be read is one that says so, and the
// others are in force.
func FromDir(dir string) ([]Source, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read rules directory: %w", err)
	}
	var out []Source
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".yml" && ext != ".yaml" {
			continue
		}
		name := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(name)
		source := Source{Name: name, Text: string(text)}
		if err != nil {
			source.Unread = err.Error()
		}
		out = append(out, source)
	}
	return out, nil
}

// sources are the shipped rules, the directory's files and the objects, sorted
// by name.
func (r *Rules) sources() ([]Source, error) {
	out, err := Shipped()
	if err != nil {
		return nil, err
	}
	objects := r.objects()
	out = slices.DeleteFunc(out, func(s Source) bool {
		return slices.ContainsFunc(objects, func(o Source) bool { return replaces(o.Name, s.Name) })
	})
	files, err := FromDir(r.cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out = append(out, files...)
	out = append(out, objects...)
	slices.SortFunc(out, func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}
