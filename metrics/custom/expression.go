package custom

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

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
const rateWindow = "1m"

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

// narrowed is a query that sees nothing but the series of a namespace.
func narrowed(query, namespace string) (string, error) {
	if err := Check(query); err != nil {
		return "", err
	}
	if namespace == wide {
		return query, nil
	}
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return "", fmt.Errorf("parse spec.query: %w", err)
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			v.LabelMatchers = append(v.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, "namespace", namespace))
		}
		return nil
	})
	return expr.String(), nil
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
	if want.Namespace != "" {
		ms = append(ms, "namespace="+strconv.Quote(want.Namespace))
	}
	if want.By != "" {
		quoted := make([]string, len(want.Objects))
		for i, o := range want.Objects {
			quoted[i] = regexp.QuoteMeta(o)
		}
		if len(quoted) == 0 {
			quoted = []string{".+"}
		}
		ms = append(ms, want.By+"=~"+strconv.Quote(strings.Join(quoted, "|")))
	}
	expr := name + "{" + strings.Join(ms, ",") + "}"
	if counter {
		expr = "rate(" + expr + "[" + rateWindow + "])"
	}
	if want.By != "" {
		expr = "sum by (" + want.By + ") (" + expr + ")"
	}
	return expr, nil
}

func validName(name string) bool {
	return regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`).MatchString(name)
}

// matchers writes a label selector as PromQL.
func matchers(selector klabels.Selector) ([]string, error) {
	var out []string
	if selector == nil {
		return nil, nil
	}
	all, _ := selector.Requirements()
	for _, r := range all {
		if !validName(r.Key()) {
			return nil, fmt.Errorf("%q is not the name of a label of a series", r.Key())
		}
		values := r.ValuesUnsorted()
		for i, v := range values {
			values[i] = regexp.QuoteMeta(v)
		}
		either := strconv.Quote(strings.Join(values, "|"))
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			out = append(out, r.Key()+"=~"+either)
		case selection.NotEquals, selection.NotIn:
			out = append(out, r.Key()+"!~"+either)
		case selection.Exists:
			out = append(out, r.Key()+`!=""`)
		case selection.DoesNotExist:
			out = append(out, r.Key()+`=""`)
		default:
			return nil, fmt.Errorf("selector %q: %s is not supported for series", r.String(), r.Operator())
		}
	}
	return out, nil
}
