package route

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/alertmanager/config/receiver"
	"github.com/prometheus/alertmanager/template"
	"go.yaml.in/yaml/v3"

	"perch/alerts/wording"
)

// Own is what a namespace says about its alerts, in Alertmanager's format:
// route, receivers, inhibit_rules, time_intervals.
type Own struct {
	Namespace, Name string
	Text            string
}

// Merge puts the configurations of namespaces into that of the cluster. A
// route of a namespace sees only alerts with that namespace, stands before the
// cluster's routes and lets alerts go on to them; as everywhere in Alertmanager,
// the receiver of the top gets only what no route took. Names of receivers and
// time intervals become namespace/name/their-name. Which are left out, and why,
// is told by namespace/name. Without any the text stays as it is, byte by byte.
func Merge(base string, all []Own) (string, map[string]error) {
	problems := map[string]error{}
	var good []Own
	for _, o := range all {
		text, err := merge(base, []Own{o})
		if err == nil {
			err = usable(text, o.Namespace+"/"+o.Name+"/")
		}
		if err != nil {
			problems[o.Namespace+"/"+o.Name] = err
			continue
		}
		good = append(good, o)
	}
	if len(good) == 0 {
		return base, problems
	}
	text, err := merge(base, good)
	if err == nil {
		_, err = load(text)
	}
	if err != nil { // two of one name, which objects cannot have
		for _, o := range good {
			problems[o.Namespace+"/"+o.Name] = err
		}
		return base, problems
	}
	return text, problems
}

// usable builds the receivers whose names begin so, and forgets them: a
// certificate that is none shows only then, and one namespace's must not keep
// the configuration of all from being applied.
func usable(text, mine string) error {
	conf, err := load(text)
	if err != nil {
		return err
	}
	tmpl, err := template.FromGlobs(nil)
	if err != nil {
		return fmt.Errorf("read notification templates: %w", err)
	}
	for _, rc := range conf.Receivers {
		if strings.HasPrefix(rc.Name, mine) {
			if err := own(rc); err != nil {
				return fmt.Errorf("receiver %s: %w", strings.TrimPrefix(rc.Name, mine), err)
			}
			if _, err := receiver.BuildReceiverIntegrations(rc, tmpl, slog.New(slog.DiscardHandler)); err != nil {
				return fmt.Errorf("build receiver %s: %w", strings.TrimPrefix(rc.Name, mine), err)
			}
		}
	}
	return nil
}

func merge(base string, all []Own) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(base), &doc); err != nil {
		return "", fmt.Errorf("read the cluster's Alertmanager configuration: %w", err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return "", errors.New("the cluster's Alertmanager configuration is empty")
	}
	top := doc.Content[0]
	route := under(top, "route", yaml.MappingNode)
	routes := under(route, "routes", yaml.SequenceNode)
	var first []*yaml.Node
	global, err := globalOf(base)
	if err != nil {
		return "", err
	}
	for _, o := range all {
		own, err := read(o, global)
		if err != nil {
			return "", err
		}
		if r := own["route"]; r != nil {
			first = append(first, r)
		}
		for _, part := range []string{"receivers", "inhibit_rules", "time_intervals"} {
			if list := own[part]; list != nil {
				to := under(top, part, yaml.SequenceNode)
				to.Content = append(to.Content, list.Content...)
			}
		}
	}
	routes.Content = append(first, routes.Content...)
	out, err := yaml.Marshal(&doc)
	if err != nil {
		return "", fmt.Errorf("write merged Alertmanager configuration: %w", err)
	}
	return string(out), nil
}

// under is a value of a mapping, which gets an empty one where it has none.
func under(m *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value != key {
			continue
		}
		v := m.Content[i+1]
		if v.Kind == yaml.AliasNode { // another place shows the same: it stays
			v = &yaml.Node{Kind: v.Alias.Kind, Tag: v.Alias.Tag, Content: slices.Clone(v.Alias.Content)}
		} else if v.Kind != kind { // null; what is neither, load refuses
			v = &yaml.Node{Kind: kind}
		}
		m.Content[i+1] = v
		return v
	}
	v := &yaml.Node{Kind: kind}
	m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, v)
	return v
}

// read takes a namespace's configuration apart and keeps it inside its
// namespace. Settings that name files of the server are refused: whoever may
// write them may not read those. So are integrations that would have the cluster's
// credentials sent to a server of the namespace's choice.
func read(o Own, global map[string]any) (map[string]*yaml.Node, error) {
	var conf struct {
		Route        map[string]any   `yaml:"route"`
		Receivers    []map[string]any `yaml:"receivers"`
		InhibitRules []map[string]any `yaml:"inhibit_rules"`
		Intervals    []map[string]any `yaml:"time_intervals"`
	}
	dec := yaml.NewDecoder(strings.NewReader(o.Text))
	dec.KnownFields(true)
	if err := dec.Decode(&conf); err != nil {
		return nil, fmt.Errorf("read route, receivers, inhibit_rules and time_intervals: %w", err)
	}
	mine, only := o.Namespace+"/"+o.Name+"/", "namespace="+strconv.Quote(o.Namespace)
	name := func(v any) any {
		if s, ok := v.(string); ok && s != "" {
			return mine + s
		}
		return v
	}
	var rename func(r map[string]any, depth int) error
	rename = func(r map[string]any, depth int) error {
		if depth > maxDepth {
			return fmt.Errorf("routes are nested more than %d deep", maxDepth)
		}
		if v, ok := r["receiver"]; ok {
			r["receiver"] = name(v)
		}
		for _, key := range []string{"mute_time_intervals", "active_time_intervals"} {
			list, _ := r[key].([]any)
			for i := range list {
				list[i] = name(list[i])
			}
		}
		below, _ := r["routes"].([]any)
		for _, b := range below {
			if b, ok := b.(map[string]any); ok {
				if err := rename(b, depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if conf.Route != nil {
		if err := rename(conf.Route, 1); err != nil {
			return nil, err
		}
		limit(conf.Route, "matchers", only)
		conf.Route["continue"] = true
		if r, _ := conf.Route["receiver"].(string); r == "" {
			return nil, errors.New("its route has no receiver")
		}
	}
	if err := owed(conf.Receivers, global); err != nil {
		return nil, err
	}
	for _, list := range [][]map[string]any{conf.Receivers, conf.Intervals} {
		for _, x := range list {
			x["name"] = name(x["name"])
		}
	}
	for _, x := range conf.InhibitRules {
		limit(x, "source_matchers", only)
		limit(x, "target_matchers", only)
	}
	out := map[string]*yaml.Node{}
	for part, v := range map[string]any{"route": conf.Route, "receivers": conf.Receivers, "inhibit_rules": conf.InhibitRules, "time_intervals": conf.Intervals} {
		n := &yaml.Node{}
		if err := n.Encode(v); err != nil {
			return nil, fmt.Errorf("read %s: %w", part, err)
		}
		if key := serverSetting(n); key != "" {
			return nil, fmt.Errorf("%s: a namespace's configuration names no files of the server: %s", part, key)
		}
		if len(n.Content) > 0 {
			out[part] = n
		}
	}
	for _, part := range []string{"route", "receivers"} {
		if err := mayRun(part, out[part]); err != nil {
			return nil, err
		}
	}
	if n := out["receivers"]; n != nil { // after the look for files: the cluster's own may stand there
		if err := unshown(n, global); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// mayRun tells which text below path is not run: they are made in the process of all.
// Keys are run too, those of a webhook's payload.
func mayRun(path string, n *yaml.Node) error {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		if err := wording.Notification(n.Value); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for i, c := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if n.Kind == yaml.MappingNode {
			at = path + "." + n.Content[i-i%2].Value
		}
		if err := mayRun(at, c); err != nil {
			return err
		}
	}
	return nil
}

// runnable is a merged configuration of before in which receivers of namespaces whose
// texts are not run keep nothing but their names, until Merge has said so.
func (r *Router) runnable(text string) string {
	var doc yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return text // load says what it is
	}
	changed := false
	for _, n := range under(doc.Content[0], "receivers", yaml.SequenceNode).Content {
		var of struct {
			Name string `yaml:"name"`
		}
		if n.Kind != yaml.MappingNode || n.Decode(&of) != nil || strings.Count(of.Name, "/") < 2 {
			continue
		}
		if err := mayRun(of.Name, n); err != nil {
			r.log.Warn("receiver of before gets nothing", "receiver", of.Name, "err", err)
			*n, changed = yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "name"}, {Kind: yaml.ScalarNode, Value: of.Name}}}, true
		}
	}
	if !changed {
		return text
	}
	out, err := yaml.Marshal(&doc)
	if err != nil {
		return Default
	}
	return string(out)
}

// maxDepth of routes of a namespace.
const maxDepth = 20

// limit puts a matcher before those that are there.
func limit(m map[string]any, key, matcher string) {
	have, _ := m[key].([]any)
	m[key] = append([]any{matcher}, have...)
}
