package custom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	klabels "k8s.io/apimachinery/pkg/labels"
)

var (
	// ErrNone means that a metric has no value now.
	ErrNone = errors.New("no value")

	// ErrAsked means that no metric can be asked for like this.
	ErrAsked = errors.New("cannot be asked for")
)

// maxValues bounds one answer.
const maxValues = 10_000

// Source is where values come from.
type Source struct {
	// Query evaluates PromQL over the series of a namespace, whatever the expression
	// says, or of all when it is empty; missing says what the answer lacks.
	Query func(ctx context.Context, namespace, expr string, at time.Time) (values []Value, missing []string, err error)
	// Stored is the PromQL of a MetricQuery; false when there is none.
	Stored func(namespace, name string) (query string, found bool, err error)
	// Names lists the MetricQuery objects of a namespace; all when it is empty.
	Names func(namespace string) ([]string, error)
	// Pods lists the names of the pods that match.
	Pods func(namespace string, selector klabels.Selector) ([]string, error)
}

// Value is one series at one time.
type Value struct {
	Labels map[string]string
	At     time.Time
	Value  float64
}

// Want is one metric that is asked for.
type Want struct {
	Namespace string // empty for a metric of objects that have none, such as nodes
	Metric    string
	Selector  klabels.Selector // of series; nil takes all
	By        string           // label that names the objects described; empty for an external metric
	Objects   []string         // their names; empty takes all
}

// Values answers one value for each object that has one, or for an external
// metric each series; none at all is ErrNone. The strings say what is missing.
func (s Source) Values(ctx context.Context, want Want, at time.Time) ([]Value, []string, error) {
	home := cmp.Or(want.Namespace, wide)
	query, stored, err := s.Stored(home, want.Metric)
	if err != nil {
		return nil, nil, fmt.Errorf("read MetricQuery %s/%s: %w", home, want.Metric, err)
	}
	var expr string
	if stored {
		expr, err = query, Check(query)
	} else if expr, err = plain(want); err != nil {
		err = fmt.Errorf("%w: %w", ErrAsked, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("metric %s of %s: %w", want.Metric, home, err)
	}
	sees := home
	if home == wide {
		sees = ""
	}
	got, missing, err := s.Query(ctx, sees, expr, at)
	if err != nil {
		return nil, missing, fmt.Errorf("metric %s of %s: %w", want.Metric, home, err)
	}
	got = slices.DeleteFunc(got, func(v Value) bool { return math.IsNaN(v.Value) })
	if stored {
		got = of(want, got)
	}
	if len(got) == 0 {
		what := "no series answers " + expr
		if stored {
			what = fmt.Sprintf("the query of MetricQuery %s/%s gives nothing", home, want.Metric)
			if want.By != "" {
				what += fmt.Sprintf(" with the label %s of what is asked for", want.By)
			}
		}
		return nil, missing, fmt.Errorf("metric %s of %s: %w: %s", want.Metric, home, ErrNone, what)
	}
	if len(got) > maxValues {
		return nil, missing, fmt.Errorf("metric %s of %s has %d values, %d are allowed: aggregate in the query", want.Metric, home, len(got), maxValues)
	}
	return got, missing, nil
}

// of picks from the answer of a stored query what is asked for. Series of one
// object are added up; one series without the label speaks for one object.
func of(want Want, all []Value) []Value {
	var out []Value
	at := map[string]int{} // object → index in out
	for _, v := range all {
		if want.Selector != nil && !want.Selector.Matches(klabels.Set(v.Labels)) {
			continue
		}
		if want.By == "" {
			out = append(out, v)
			continue
		}
		name, labelled := v.Labels[want.By]
		if !labelled && len(all) == 1 && len(want.Objects) == 1 {
			name = want.Objects[0]
		}
		if name == "" || len(want.Objects) > 0 && !slices.Contains(want.Objects, name) {
			continue
		}
		if i, seen := at[name]; seen {
			out[i].Value += v.Value
			continue
		}
		at[name] = len(out)
		out = append(out, Value{Labels: map[string]string{want.By: name}, At: v.At, Value: v.Value})
	}
	return out
}
