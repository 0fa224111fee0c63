package custom

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	klabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// wide is the namespace whose queries see the series of all namespaces.
const wide = "kube-system"

// perSecond turns a counter's name into that of its rate.
const perSecond = "_per_second"

// rateWindow is short enough to react and holds four samples at the slow rate.
const rateWindow = time.Minute

// Check says what is wrong with the PromQL of a MetricQuery.
func Check(query string) error {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return fmt.Errorf("parse spec.query: %w", err)
	}
	if kind := expr.Type(); kind != parser.ValueTypeVector && kind != parser.ValueTypeScalar {
		return fmt.Errorf("spec.query gives a %s; an instant vector is needed: put for example rate(…) or max_over_time(…) around it", parser.DocumentedType(kind))
	}
	return nil
}

// plain is the expression of a metric without a MetricQuery: the series of its
// name, summed by the label that names the objects.
func plain(want Want) (string, error) {
	if !validName(want.Metric) {
		return "", fmt.Errorf("%q is not the name of a series: write a MetricQuery of this name", want.Metric)
	}
	name, counter := strings.CutSuffix(want.Metric, perSecond)
	if !counter && strings.HasSuffix(name, "_total") {
		return "", fmt.Errorf("%s is a counter: ask for %s%s, or write a MetricQuery of this name", name, strings.TrimSuffix(name, "_total"), perSecond)
	}
	if counter {
		name += "_total"
	}
	ms, err := matchers(want.Selector)
	if err != nil {
		return "", err
	}
	ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name))
	if want.Namespace != "" {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, "namespace", want.Namespace))
	}
	if want.By != "" {
		if !model.LegacyValidation.IsValidLabelName(want.By) {
			return "", fmt.Errorf("%q is no kind of objects that series have a label of: write a MetricQuery of this name", want.By)
		}
		either := ".+"
		if len(want.Objects) > 0 {
			either = oneOf(want.Objects)
		}
		m, err := labels.NewMatcher(labels.MatchRegexp, want.By, either)
		if err != nil {
			return "", fmt.Errorf("select objects: %w", err)
		}
		ms = append(ms, m)
	}
	// From nodes, not from text: a name must not become a part of the expression.
	var expr parser.Expr = &parser.VectorSelector{Name: name, LabelMatchers: ms}
	if counter {
		expr = &parser.Call{Func: parser.Functions["rate"], Args: parser.Expressions{&parser.MatrixSelector{VectorSelector: expr, Range: rateWindow}}}
	}
	if want.By != "" {
		expr = &parser.AggregateExpr{Op: parser.SUM, Grouping: []string{want.By}, Expr: expr}
	}
	return expr.String(), nil
}

var seriesName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

func validName(name string) bool { return seriesName.MatchString(name) }

// oneOf is an expression that matches these texts and no others.
func oneOf(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = regexp.QuoteMeta(t)
	}
	return strings.Join(quoted, "|")
}

// matchers are those of a label selector.
func matchers(selector klabels.Selector) ([]*labels.Matcher, error) {
	if selector == nil {
		return nil, nil
	}
	var out []*labels.Matcher
	all, _ := selector.Requirements()
	for _, r := range all {
		if !model.LegacyValidation.IsValidLabelName(r.Key()) {
			return nil, fmt.Errorf("%q is not the name of a label of a series", r.Key())
		}
		kind, value := labels.MatchRegexp, oneOf(r.ValuesUnsorted())
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
		case selection.NotEquals, selection.NotIn:
			kind = labels.MatchNotRegexp
		case selection.Exists:
			kind, value = labels.MatchNotEqual, ""
		case selection.DoesNotExist:
			kind, value = labels.MatchEqual, ""
		default:
			return nil, fmt.Errorf("selector %q: %s is not supported for series", r.String(), r.Operator())
		}
		m, err := labels.NewMatcher(kind, r.Key(), value)
		if err != nil {
			return nil, fmt.Errorf("selector %q: %w", r.String(), err)
		}
		out = append(out, m)
	}
	return out, nil
}
