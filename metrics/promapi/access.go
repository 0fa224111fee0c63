package promapi

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// Access says which series a caller may see.
type Access struct {
	All        bool     // every series and the status pages
	Namespaces []string // series with one of these namespace labels
	Unlabelled bool     // series without a namespace label, and the status pages
	Write      bool     // remote write and OTLP
	Into       string   // what is written gets this namespace; empty: what it says
}

// Everything is the access of perch's own parts and of administrators.
func Everything() Access { return Access{All: true, Write: true} }

type accessKey struct{}

// WithAccess returns a context whose queries see what a allows.
func WithAccess(ctx context.Context, a Access) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// AccessOf is what WithAccess put in, or no access at all.
func AccessOf(ctx context.Context) Access {
	a, _ := ctx.Value(accessKey{}).(Access)
	return a
}

// Status says whether the caller may see pages about the whole store.
func (a Access) Status() bool { return a.All || a.Unlabelled }

// Allows says whether a series or target with this namespace label is visible.
func (a Access) Allows(namespace string) bool {
	if a.All {
		return true
	}
	if namespace == "" {
		return a.Unlabelled
	}
	return slices.Contains(a.Namespaces, namespace)
}

// matcher is the selector part that keeps other namespaces out; nil when all
// is visible.
func (a Access) matcher() *labels.Matcher {
	if a.All {
		return nil
	}
	if len(a.Namespaces) == 1 && !a.Unlabelled {
		return labels.MustNewMatcher(labels.MatchEqual, "namespace", a.Namespaces[0])
	}
	names := make([]string, 0, len(a.Namespaces)+1)
	if a.Unlabelled {
		names = append(names, "") // an absent label matches the empty string
	}
	for _, n := range a.Namespaces {
		if n != "" {
			names = append(names, regexp.QuoteMeta(n))
		}
	}
	return labels.MustNewMatcher(labels.MatchRegexp, "namespace", strings.Join(names, "|"))
}

// nothing says that no series at all can be visible.
func (a Access) nothing() bool {
	return !a.All && !a.Unlabelled && len(a.Namespaces) == 0
}
