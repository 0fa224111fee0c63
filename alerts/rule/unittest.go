package rule

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"go.yaml.in/yaml/v3"
)

// The shape of a unit test file is promtool's.
type testFile struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	GroupEvalOrder     []string       `yaml:"group_eval_order"`
	FuzzyCompare       bool           `yaml:"fuzzy_compare"`
	Tests              []testGroup    `yaml:"tests"`
}

type testGroup struct {
	Name           string            `yaml:"name"`
	Interval       model.Duration    `yaml:"interval"`
	StartTimestamp testStart         `yaml:"start_timestamp"`
	ExternalLabels map[string]string `yaml:"external_labels"`
	ExternalURL    string            `yaml:"external_url"`
	InputSeries    []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	AlertRuleTest []struct {
		EvalTime  model.Duration  `yaml:"eval_time"`
		Alertname string          `yaml:"alertname"`
		ExpAlerts []expectedAlert `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
	PromqlExprTest []struct {
		Expr       string         `yaml:"expr"`
		EvalTime   model.Duration `yaml:"eval_time"`
		ExpSamples []struct {
			Labels    string  `yaml:"labels"`
			Value     float64 `yaml:"value"`
			Histogram string  `yaml:"histogram"`
		} `yaml:"exp_samples"`
	} `yaml:"promql_expr_test"`
}

// testStart is a time in RFC 3339 or in unix seconds.
type testStart struct{ time.Time }

func (t *testStart) UnmarshalYAML(n *yaml.Node) error {
	var seconds float64
	if n.Decode(&seconds) == nil {
		t.Time = time.UnixMilli(int64(seconds * 1000)).UTC()
		return nil
	}
	at, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		return fmt.Errorf("line %d: start_timestamp %q: want RFC 3339 or unix seconds", n.Line, n.Value)
	}
	t.Time = at
	return nil
}

type expectedAlert struct {
	ExpLabels      map[string]string `yaml:"exp_labels"`
	ExpAnnotations map[string]string `yaml:"exp_annotations"`
}

// Result is the outcome of one group of unit tests.
type Result struct {
	File, Name string
	Failures   []string // empty: passed
}

// Test runs a file of unit tests in promtool's format. rule_files are relative
// to it. The error says that the file itself or its rules cannot be used.
func Test(file string) ([]Result, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read unit tests: %w", err)
	}
	return testText(file, text, func(pattern string) ([]Source, error) {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(file), pattern)
		}
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			return nil, errors.Join(fmt.Errorf("rule_files: nothing matches %s", pattern), err)
		}
		var out []Source
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("read rules: %w", err)
			}
			out = append(out, Source{Name: name, Text: string(text)})
		}
		return out, nil
	})
}

func testText(file string, text []byte, load func(pattern string) ([]Source, error)) ([]Result, error) {
	tests := testFile{EvaluationInterval: model.Duration(time.Minute)}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&tests); err != nil {
		return nil, fmt.Errorf("read unit tests %s: %w", file, err)
	}
	var sources []Source
	for _, pattern := range tests.RuleFiles {
		more, err := load(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		sources = append(sources, more...)
	}
	p := parser.NewParser(parser.Options{})
	groups, problems := parse(sources, p)
	if len(problems) > 0 {
		var errs []error
		for _, x := range problems {
			errs = append(errs, fmt.Errorf("%s: %s", x.Source, x.Error))
		}
		return nil, errors.Join(errs...)
	}
	var out []Result
	for i, g := range tests.Tests {
		r := Result{File: file, Name: cmp.Or(g.Name, fmt.Sprintf("test %d", i+1))}
		failures, err := g.run(tests, loaded{groups, p})
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", file, r.Name, err)
		}
		r.Failures = failures
		out = append(out, r)
	}
	return out, nil
}

// pending are the samples of one input series that are not in the store yet.
type pending struct {
	labels labels.Labels
	values []parser.SequenceValue
	next   int
}

// bench is a small store with an engine, for one group of tests.
type bench struct {
	db     *tsdb.DB
	engine *promql.Engine
	series []*pending
	start  time.Time
	step   time.Duration
}

func (g testGroup) run(file testFile, rulesOf loaded) (failures []string, err error) {
	dir, err := os.MkdirTemp("", "perch-rules-")
	if err != nil {
		return nil, fmt.Errorf("make room for samples: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration, opts.MinBlockDuration, opts.MaxBlockDuration, opts.NoLockfile = 0, (24 * 365 * time.Hour).Milliseconds(), (24 * 365 * time.Hour).Milliseconds(), true
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("make room for samples: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	every := time.Duration(file.EvaluationInterval)
	b := &bench{db: db, start: g.StartTimestamp.Time, step: time.Duration(cmp.Or(g.Interval, file.EvaluationInterval)),
		engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, Parser: rulesOf.parser,
			NoStepSubqueryIntervalFn: func(int64) int64 { return every.Milliseconds() }})}
	if g.StartTimestamp.IsZero() {
		b.start = time.Unix(0, 0).UTC()
	}
	for _, s := range g.InputSeries {
		l, v, err := rulesOf.parser.ParseSeriesDesc(s.Series + " " + s.Values)
		if err != nil {
			return nil, fmt.Errorf("input series %s: %w", s.Series, err)
		}
		b.series = append(b.series, &pending{labels: l, values: v})
	}
	groups, err := b.groups(g, file, rulesOf, every)
	if err != nil {
		return nil, err
	}
	for i := range g.AlertRuleTest {
		if g.AlertRuleTest[i].Alertname == "" {
			return nil, fmt.Errorf("alert_rule_test %d has no alertname", i+1)
		}
	}
	return b.play(g, groups, every, file.FuzzyCompare)
}

// groups loads the rules in the order of evaluation.
func (b *bench) groups(g testGroup, file testFile, l loaded, every time.Duration) ([]*rules.Group, error) {
	m := rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation, QueryFunc: rules.EngineQueryFunc(b.engine, b.db), Appendable: b.db, Queryable: b.db,
		Context: context.Background(), Logger: slog.New(slog.DiscardHandler), GroupLoader: l, Parser: l.parser,
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
	})
	byKey, errs := m.LoadGroups(every, labels.FromMap(g.ExternalLabels), g.ExternalURL, nil, false, slices.Sorted(maps.Keys(l.groups))...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	place := func(name string) int {
		if i := slices.Index(file.GroupEvalOrder, name); i >= 0 {
			return i
		}
		return len(file.GroupEvalOrder)
	}
	out := slices.SortedFunc(maps.Values(byKey), func(x, y *rules.Group) int {
		return cmp.Or(cmp.Compare(place(x.Name()), place(y.Name())), cmp.Compare(x.File(), y.File()), cmp.Compare(x.Name(), y.Name()))
	})
	for _, group := range out {
		for _, r := range group.AlertingRules() {
			r.SetRestored(true) // else ALERTS is not written
		}
	}
	return out, nil
}

// play evaluates from the start to the last time that is tested.
func (b *bench) play(g testGroup, groups []*rules.Group, every time.Duration, fuzzy bool) (failures []string, _ error) {
	last := time.Duration(0)
	for _, c := range g.AlertRuleTest {
		last = max(last, time.Duration(c.EvalTime))
	}
	for _, c := range g.PromqlExprTest {
		last = max(last, time.Duration(c.EvalTime))
	}
	for at := time.Duration(0); at <= last; at += every {
		if err := b.fill(at); err != nil {
			return nil, err
		}
		for _, group := range groups {
			group.Eval(context.Background(), b.start.Add(at))
			for _, r := range group.Rules() {
				if err := r.LastError(); err != nil {
					return nil, fmt.Errorf("rule %s at %s: %w", r.Name(), at, err)
				}
			}
		}
		for _, c := range g.AlertRuleTest {
			if t := time.Duration(c.EvalTime); at <= t && t < at+every {
				if say := compareAlerts(c.Alertname, c.ExpAlerts, groups); say != "" {
					failures = append(failures, fmt.Sprintf("%s at %s:\n%s", c.Alertname, t, say))
				}
			}
		}
	}
	if err := b.fill(last); err != nil {
		return nil, err
	}
	for _, c := range g.PromqlExprTest {
		q, err := b.engine.NewInstantQuery(context.Background(), b.db, nil, c.Expr, b.start.Add(time.Duration(c.EvalTime)))
		if err != nil {
			return nil, fmt.Errorf("expr %s: %w", c.Expr, err)
		}
		res := q.Exec(context.Background())
		var have, want []string
		switch v := res.Value.(type) {
		case promql.Vector:
			for _, s := range v {
				have = append(have, s.Metric.String()+" "+valueText(s.F, fuzzy)+histogramText(s))
			}
		case promql.Scalar:
			have = append(have, "{} "+valueText(v.V, fuzzy))
		}
		err = res.Err
		q.Close()
		if err != nil {
			failures = append(failures, fmt.Sprintf("%s at %s: %v", c.Expr, c.EvalTime, err))
			continue
		}
		for _, s := range c.ExpSamples {
			l, err := parser.NewParser(parser.Options{}).ParseMetric(cmp.Or(s.Labels, "{}"))
			if err != nil {
				return nil, fmt.Errorf("exp_samples of %s: labels %q: %w", c.Expr, s.Labels, err)
			}
			text := l.String() + " " + valueText(s.Value, fuzzy)
			if s.Histogram != "" {
				_, h, err := parser.NewParser(parser.Options{}).ParseSeriesDesc("{} " + s.Histogram)
				if err != nil || len(h) != 1 || h[0].Histogram == nil {
					return nil, fmt.Errorf("exp_samples of %s: histogram %q: %w", c.Expr, s.Histogram, err)
				}
				text += h[0].Histogram.String()
			}
			want = append(want, text)
		}
		if say := compareLines(want, have); say != "" {
			failures = append(failures, fmt.Sprintf("%s at %s:\n%s", c.Expr, c.EvalTime, say))
		}
	}
	return failures, nil
}

// fill stores the samples up to a time.
func (b *bench) fill(until time.Duration) error {
	app := b.db.Appender(context.Background())
	for _, s := range b.series {
		for ; s.next < len(s.values) && time.Duration(s.next)*b.step <= until; s.next++ {
			v := s.values[s.next]
			ms := b.start.Add(time.Duration(s.next) * b.step).UnixMilli()
			var err error
			switch {
			case v.Omitted:
			case v.Histogram != nil:
				_, err = app.AppendHistogram(storage.SeriesRef(0), s.labels, ms, nil, v.Histogram)
			default:
				_, err = app.Append(storage.SeriesRef(0), s.labels, ms, v.Value)
			}
			if err != nil {
				return errors.Join(fmt.Errorf("store sample of %s: %w", s.labels, err), app.Rollback())
			}
		}
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("store samples: %w", err)
	}
	return nil
}

func compareAlerts(name string, expected []expectedAlert, groups []*rules.Group) string {
	var have, want []string
	for _, g := range groups {
		for _, r := range g.AlertingRules() {
			if r.Name() != name {
				continue
			}
			for _, a := range r.ActiveAlerts() {
				if a.State == rules.StateFiring {
					have = append(have, a.Labels.String()+" "+a.Annotations.String())
				}
			}
		}
	}
	for _, e := range expected {
		l := maps.Clone(e.ExpLabels)
		if l == nil {
			l = map[string]string{}
		}
		l[labels.AlertName] = name
		want = append(want, labels.FromMap(l).String()+" "+labels.FromMap(e.ExpAnnotations).String())
	}
	return compareLines(want, have)
}

// compareLines is empty when both hold the same in any order.
func compareLines(want, have []string) string {
	slices.Sort(want)
	slices.Sort(have)
	if slices.Equal(want, have) {
		return ""
	}
	list := func(lines []string) string {
		if len(lines) == 0 {
			return "\n      nothing"
		}
		return "\n      " + strings.Join(lines, "\n      ")
	}
	return "    want:" + list(want) + "\n    have:" + list(have)
}

func valueText(v float64, fuzzy bool) string {
	if fuzzy && !math.IsNaN(v) && !math.IsInf(v, 0) {
		return fmt.Sprintf("%.12g", v)
	}
	return fmt.Sprint(v)
}

func histogramText(s promql.Sample) string {
	if s.H == nil {
		return ""
	}
	return s.H.String()
}
