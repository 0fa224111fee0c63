package route

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/silence/silencepb"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// Only is what of a configuration an alert with these labels needs: routes as
// they are, the receivers that they lead it to, and the global settings of those.
// Other receivers keep nothing but their names: what is needed elsewhere carries no
// more secrets than it must. It names no files: what they say is in their places, and
// the templates stand beside it, for ApplyWith. Empty: they lead to nobody.
func Only(text string, labels map[string]string) (only string, templates []string, err error) {
	conf, err := load(text)
	if err != nil {
		return "", nil, err
	}
	leads := map[string]bool{}
	for _, r := range dispatch.NewRoute(conf.Route, nil).Match(labelSet(labels)) {
		leads[r.RouteOpts.Receiver] = true
	}
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		return "", nil, fmt.Errorf("read Alertmanager configuration: %w", err)
	}
	kinds := map[string]bool{"http": true, "resolve": true}
	somebody := false
	receivers, _ := tree["receivers"].([]any)
	for i, x := range receivers {
		r, _ := x.(map[string]any)
		if name, _ := r["name"].(string); !leads[name] {
			receivers[i] = map[string]any{"name": r["name"]}
			continue
		}
		for key := range r {
			kinds[strings.TrimSuffix(key, "_configs")] = true
			somebody = somebody || key != "name"
		}
	}
	if !somebody {
		return "", nil, nil
	}
	kinds["smtp"] = kinds["email"]
	if global, ok := tree["global"].(map[string]any); ok {
		for key := range global {
			if kind, _, _ := strings.Cut(key, "_"); !kinds[kind] {
				delete(global, key)
			}
		}
	}
	delete(tree, "templates")
	for _, part := range []string{"global", "receivers"} {
		if err := inline(tree[part]); err != nil {
			return "", nil, err
		}
	}
	out, err := yaml.Marshal(tree)
	if err != nil {
		return "", nil, fmt.Errorf("write Alertmanager configuration: %w", err)
	}
	if err := Check(string(out)); err != nil {
		return "", nil, err
	}
	if templates, err = templatesOf(conf.Templates); err != nil {
		return "", nil, err
	}
	return string(out), templates, nil
}

// Text is the configuration in force, with its secrets.
func (r *Router) Text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text
}

// SilencedUntil is when the last silence ends that holds an alert with these
// labels back now; zero: none does.
func (r *Router) SilencedUntil(ctx context.Context, labels map[string]string) (time.Time, error) {
	found, _, err := r.silences.Query(ctx, silence.QState(silence.SilenceStateActive), silence.QMatches(labelSet(labels)))
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for silences: %w", err)
	}
	return lastEnd(found), nil
}

func lastEnd(all []*silencepb.Silence) (last time.Time) {
	for _, s := range all {
		if end := s.EndsAt.AsTime(); end.After(last) {
			last = end
		}
	}
	return last
}

func labelSet(labels map[string]string) model.LabelSet {
	out := model.LabelSet{}
	for k, v := range labels {
		if v != "" {
			out[model.LabelName(k)] = model.LabelValue(v)
		}
	}
	return out
}
