package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"
)

// The kinds of Object, all of monitoring.coreos.com.
const (
	ServiceMonitor = "ServiceMonitor"
	PodMonitor     = "PodMonitor"
	Probe          = "Probe"
	ScrapeConfig   = "ScrapeConfig"
)

// Object is one object that asks for scrapes. Exactly one of the specs is set.
type Object struct {
	Kind, Namespace, Name string

	monitor *monitorSpec
	probe   *probeSpec
	config  *configSpec

	broken  error    // the spec has another shape
	unknown []string // fields that are not known
}

// From names the object in listings.
func (o Object) From() string { return strings.ToLower(o.Kind) + "/" + o.Namespace + "/" + o.Name }

// pool is the name of the scrape pool of an endpoint, as prometheus-operator
// calls it.
func (o Object) pool(rest ...int) string {
	name := strings.ToLower(o.Kind[:1]) + o.Kind[1:] + "/" + o.Namespace + "/" + o.Name
	for _, n := range rest {
		name += fmt.Sprintf("/%d", n)
	}
	return name
}

// Read takes an object's spec as JSON. A spec of another shape gives an object
// that is not scraped and says why.
func Read(kind, namespace, name string, spec []byte) Object {
	o := Object{Kind: kind, Namespace: namespace, Name: name}
	var into any
	switch kind {
	case ServiceMonitor, PodMonitor:
		o.monitor = &monitorSpec{}
		into = o.monitor
	case Probe:
		o.probe = &probeSpec{}
		into = o.probe
	case ScrapeConfig:
		o.config = &configSpec{}
		into = o.config
	default:
		o.broken = fmt.Errorf("kind %q is not known", kind)
		return o
	}
	strict, err := kjson.UnmarshalStrict(spec, into)
	if err != nil {
		o.broken = readable(err)
		return o
	}
	for _, e := range strict {
		o.unknown = append(o.unknown, strings.ReplaceAll(e.Error(), `unknown field "`, `unknown field "spec.`))
	}
	slices.Sort(o.unknown)
	return o
}

// readable names the field of a value of the wrong type.
func readable(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("spec.%s is a %s, want %s", wrong.Field, wrong.Value, wrong.Type)
	}
	return fmt.Errorf("spec: %w", err)
}

// Check says what of the object keeps it from being scraped, and what of it does
// nothing; each with the path of the field. It looks at the object alone.
func (o Object) Check() (wrong, idle []string) {
	if o.broken != nil {
		return []string{o.broken.Error()}, nil
	}
	c := &check{}
	switch {
	case o.monitor != nil:
		o.monitor.check(c, o.Kind)
	case o.probe != nil:
		o.probe.check(c)
	case o.config != nil:
		o.config.check(c)
	}
	for _, u := range o.unknown {
		c.idle = append(c.idle, u+" does nothing")
	}
	return c.wrong, c.idle
}

// Refs are the keys of Secrets and ConfigMaps that the object names.
func (o Object) Refs() []Ref {
	var out []Ref
	ask := func(r Ref) (string, error) { out = append(out, r); return "", nil }
	for _, e := range o.settings() {
		_, _ = e.text(func(r Ref) (string, error) { r.Namespace = o.Namespace; return ask(r) }) // of values that are not known
	}
	return out
}

// check collects what is wrong by field.
type check struct{ wrong, idle []string }

func (c *check) bad(path, format string, a ...any) {
	c.wrong = append(c.wrong, path+": "+fmt.Sprintf(format, a...))
}

func (c *check) does(nothing bool, path, why string) {
	if nothing {
		c.idle = append(c.idle, path+" does nothing: "+why)
	}
}
