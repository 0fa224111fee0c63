package recorded

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"

	"perch/logs/query"
	"perch/logs/record"
)

// Rule counts the lines that a query finds.
type Rule struct {
	Namespace string            `json:"namespace"`     // of the object it is written in
	Object    string            `json:"object"`        // the object's name
	All       bool              `json:"all,omitempty"` // counts the lines of all namespaces
	Record    string            `json:"record"`        // name of the series
	Query     string            `json:"query"`
	By        []string          `json:"by,omitempty"`     // labels and fields whose values tell series apart
	Labels    map[string]string `json:"labels,omitempty"` // of all its series
	Limit     int               `json:"limit,omitempty"`  // series; 0: DefaultLimit
}

// Limits of what a rule may say.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	maxBy        = 5
	maxLabels    = 10
	maxValue     = 128 // bytes of a label's value
)

// Others is the value of labels of what is beyond a rule's series.
const Others = query.Others

// ours are labels that a rule cannot set.
var ours = [...]string{"job", "instance", "node", "namespace", "logrule", "__name__", "le", "quantile"}

// Check names all problems of a rule. Those of its query have the position.
func Check(r Rule) error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !model.LegacyValidation.IsValidMetricName(r.Record) || strings.HasPrefix(r.Record, "perch_") {
		bad("record %q: use the name of a series, such as shop_failed_payments_total; perch_ is perch's own", r.Record)
	}
	if r.Record == "ALERTS" || r.Record == "ALERTS_FOR_STATE" {
		bad("record %s: this series says which alerts fire; use another name", r.Record)
	}
	if _, err := query.Parse(r.Query); err != nil {
		bad("query: %w", err)
	}
	if len(r.By) > maxBy {
		bad("by has %d names; %d are allowed", len(r.By), maxBy)
	}
	names := map[string]bool{}
	for _, by := range r.By {
		name := labelName(by)
		switch {
		case by == "":
			bad("by has an empty name")
		case by == "namespace": // every series of a rule that is not for all has it
		case name == "node":
			bad("by %q: every series has it without being told", by)
		case slices.Contains(ours[:], name):
			bad("by %q: the label is not free", by)
		case names[name]:
			bad("by %q: label %s is there twice", by, name)
		}
		names[name] = true
	}
	if len(r.Labels) > maxLabels {
		bad("%d labels; %d are allowed", len(r.Labels), maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		switch {
		case !model.LegacyValidation.IsValidLabelName(k) || strings.HasPrefix(k, "__"):
			bad("label %q: use letters, digits and _", k)
		case slices.Contains(ours[:], k):
			bad("label %q is not free", k)
		case names[k]:
			bad("label %q is in by too", k)
		}
	}
	if r.Limit < 0 || r.Limit > MaxLimit {
		bad("limit %d: use 1 to %d series", r.Limit, MaxLimit)
	}
	return errors.Join(errs...)
}

// CheckObject names all problems of the rules of one object.
func CheckObject(rules []Rule) error {
	var errs []error
	have := map[string]bool{}
	for i, r := range rules {
		err := Check(r)
		if err == nil && have[r.identity()] {
			err = errTwice
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %d %q: %w", i+1, r.Record, err))
		}
		have[r.identity()] = true
	}
	return errors.Join(errs...)
}

var errTwice = errors.New("another rule of the object has the same record and labels")

// labelName is a field's name as a label's.
func labelName(field string) string {
	out := []byte(field)
	for i, c := range out {
		letter := c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			out[i] = '_'
		}
	}
	return string(out)
}

// rule is one in force.
type rule struct {
	Rule
	query *query.Query
	file  string   // begins the names of its positions
	names []string // of labels: By, then those that are the same on all series
	fixed []string // values of the latter

	series   map[string]*series // by the values of By, each ended by a zero byte
	overflow uint64             // lines counted under Others
	slow     uint64             // lines not counted: an expression takes too long on them

	allowance query.Allowance
}

// fileOf names the rule and everything that its counts depend on.
func fileOf(r Rule) string {
	h := xxhash.New()
	for _, s := range slices.Concat([]string{r.Query, fmt.Sprint(r.All)}, r.By) {
		_, _ = h.WriteString(s + "\x00") // a hash never fails
	}
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		_, _ = h.WriteString(k + "\x00" + r.Labels[k] + "\x00") // likewise
	}
	return fmt.Sprintf("%s%s/%s/%s/%016x\x00", File, r.Namespace, r.Object, r.Record, h.Sum64())
}

// identity tells series of different rules apart: two rules with one identity
// would make the same series.
func (r Rule) identity() string {
	out := r.Namespace + "\x00" + r.Object + "\x00" + r.Record
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		out += "\x00" + k + "\x00" + r.Labels[k]
	}
	return out
}

func (r *rule) limit() int {
	if r.Limit > 0 {
		return r.Limit
	}
	return DefaultLimit
}

// mayFind is false if the rule counts no line of a stream.
func (r *rule) mayFind(s *record.Stream) bool {
	return (r.All || s.Namespace == r.Namespace) && r.query.MayFind(s)
}

func newRule(r Rule) (*rule, error) {
	if err := Check(r); err != nil {
		return nil, err
	}
	q, err := query.Parse(r.Query)
	if err != nil {
		return nil, err
	}
	if !r.All {
		r.By = slices.DeleteFunc(slices.Clone(r.By), func(by string) bool { return by == "namespace" })
	}
	out := &rule{Rule: r, query: q, file: fileOf(r), series: map[string]*series{}}
	for _, by := range r.By {
		out.names = append(out.names, labelName(by))
	}
	fix := func(name, value string) {
		out.names, out.fixed = append(out.names, name), append(out.fixed, value)
	}
	if r.All {
		fix("logrule", r.Namespace+"/"+r.Object)
	} else {
		fix("namespace", r.Namespace)
		fix("logrule", r.Object)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		fix(k, r.Labels[k])
	}
	return out, nil
}
