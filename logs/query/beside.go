package query

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// beside answers Query with the lines around one, of all streams of its container,
// pod, workload or node. Other questions go to the searcher as they are.
type beside struct {
	Searcher
	scope string
}

// Query finds the line of r.Around, then what came before and after it.
func (b beside) Query(ctx context.Context, r Request, emit func(*Line) error) (Summary, error) {
	a := *r.Around
	one := r
	one.Around = &Around{Hash: a.Hash, Number: a.Number}
	var at *Line
	sum, err := b.Searcher.Query(ctx, one, func(l *Line) error { at = l; return nil })
	if err != nil || at == nil {
		return sum, err
	}
	next := func(order Order, n int) (out []*Line, err error) {
		if n == 0 {
			return nil, nil
		}
		q := r
		q.Around, q.Query, q.Text = nil, nil, scopeQuery(b.scope, at)
		q.From, q.To, q.Order, q.Limit, q.Cursor = minTime, maxTime, order, n, &at.Cursor
		part, err := b.Searcher.Query(ctx, q, func(l *Line) error { out = append(out, l); return nil })
		if part.Cursor != "" && len(out) < n {
			part.Partial, part.Reason = true, tooLarge()
		}
		sum.Merge(part)
		return out, err
	}
	before, err := next(NewestFirst, a.Before)
	if err != nil {
		return Summary{}, err
	}
	after, err := next(OldestFirst, a.After)
	if err != nil {
		return Summary{}, err
	}
	slices.Reverse(before)
	for _, l := range slices.Concat(before, []*Line{at}, after) {
		if err := emit(l); err != nil {
			return Summary{}, err
		}
	}
	sum.Cursor = ""
	return sum, nil
}

// scopeQuery finds the lines of the same container, pod, workload or node. Names of pods
// tell their workload, also when it is gone.
func scopeQuery(scope string, l *Line) string {
	s := l.Stream
	in := is("namespace", s.Namespace)
	switch {
	case scope == "node":
		return is("node", s.Node)
	case scope == "container": // both of its outputs, all of its instances
		return in + is("pod", s.Pod) + is("container", s.Container) + is("kind", s.Kind)
	case scope == "pod" || s.Pod == "":
		return in + is("pod", s.Pod)
	}
	return in + "pod:~" + phrase(workloadOf(s.Pod))
}

// is finds the lines whose label has a value, or that have none.
func is(label, value string) string {
	if value == "" {
		return "-" + label + ":* "
	}
	return label + ":" + phrase(value) + " "
}

// phrase quotes a value.
func phrase(v string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(v) + `"`
}

// workloadOf is an expression for the names that the controller of this pod
// gives: name-hash-random, name-random, or name-number.
func workloadOf(pod string) string {
	for _, form := range [...]string{`-[a-z0-9]{6,10}-[a-z0-9]{5}`, `-[a-z0-9]{5}`, `-[0-9]+`} {
		if loc := regexp.MustCompile(form + `$`).FindStringIndex(pod); loc != nil && loc[0] > 0 {
			return fmt.Sprintf("^%s%s$", regexp.QuoteMeta(pod[:loc[0]]), form)
		}
	}
	return "^" + regexp.QuoteMeta(pod) + "$"
}
