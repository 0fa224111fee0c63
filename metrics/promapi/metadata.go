package promapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/util/httputil"

	"perch/metrics/family"
)

// own answers in Prometheus' shape what theirs does not know: /api/v1/metadata and
// /api/v1/targets/metadata, because most families come from other nodes, from what
// perch makes itself and from what is written; /api/v1/status/config, because the
// scrape pools change with objects; /api/v1/query_exemplars with its warnings.
func (a *API) own(parts Parts, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var data any
		var err error
		switch path := r.URL.Path; {
		case path == "/api/v1/status/config":
			data = map[string]string{"yaml": a.yaml(parts.Targets)}
		case path == "/api/v1/metadata" && parts.Families != nil:
			data, err = families(parts.Families, r)
		case path == "/api/v1/targets/metadata" && parts.Families != nil:
			data, err = a.targetFamilies(parts, r)
		case path == "/api/v1/query_exemplars":
			exemplars(w, r, next)
			return
		default:
			next.ServeHTTP(w, r)
			return
		}
		httputil.CompressionHandler{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err != nil {
				answerError(w, http.StatusBadRequest, "bad_data", err.Error())
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data}) // the client is gone otherwise
		})}.ServeHTTP(w, r)
	})
}

// yaml is the configuration with the scrape pools of now; secrets are hidden.
func (a *API) yaml(targets Targets) string {
	c := a.shown()
	if targets != nil {
		names := targets.ScrapePools()
		slices.Sort(names)
		for _, name := range names {
			if pool, err := targets.ScrapePoolConfig(name); err == nil { // gone meanwhile
				c.ScrapeConfigs = append(c.ScrapeConfigs, pool)
			}
		}
	}
	return c.String()
}

// numberOf reads a parameter that may be left out: -1.
func numberOf(r *http.Request, name string) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s must be a number", name)
	}
	return n, nil
}

func families(book *family.Book, r *http.Request) (any, error) {
	limit, err := numberOf(r, "limit")
	if err != nil {
		return nil, err
	}
	each, err := numberOf(r, "limit_per_metric")
	if err != nil {
		return nil, err
	}
	out := map[string][]metadata.Metadata{}
	for _, from := range book.List(time.Now(), r.FormValue("metric"), AccessOf(r.Context()).Allows) {
		for _, f := range from.Families {
			have, known := out[f.Name]
			m := metadata.Metadata{Type: f.Type, Help: f.Help, Unit: f.Unit}
			if !known && limit >= 0 && len(out) >= limit || each > 0 && len(have) >= each || slices.Contains(have, m) {
				continue
			}
			out[f.Name] = append(have, m)
		}
	}
	return out, nil
}

// targetFamily is an entry of targets/metadata.
type targetFamily struct {
	Target map[string]string `json:"target"`
	Metric string            `json:"metric,omitempty"` // when all were asked for
	metadata.Metadata
}

// targetFamilies has for each target the families of its namespace and job, and
// those of jobs without a target: what is made in process and what is written.
func (a *API) targetFamilies(parts Parts, r *http.Request) (any, error) {
	limit, err := numberOf(r, "limit")
	if err != nil {
		return nil, err
	}
	var match []*labels.Matcher
	if text := r.FormValue("match_target"); text != "" {
		if match, err = a.parser.ParseMetricSelector(text); err != nil {
			return nil, fmt.Errorf("invalid parameter %q: %w", "match_target", err)
		}
	}
	access, name := AccessOf(r.Context()), r.FormValue("metric")
	targets := map[family.Source][]labels.Labels{}
	for _, list := range (visibleTargets{parts.Targets, access}).TargetsActive() {
		for _, t := range list {
			l := t.Labels(labels.NewBuilder(labels.EmptyLabels()))
			s := family.Source{Namespace: l.Get("namespace"), Job: l.Get("job")}
			targets[s] = append(targets[s], l)
		}
	}
	out := []targetFamily{}
	for _, from := range parts.Families.List(time.Now(), name, access.Allows) {
		s := from.Source
		if s.Namespace == family.Everyone {
			s.Namespace = ""
		}
		of := targets[s]
		if len(of) == 0 {
			pairs := []string{"job", s.Job}
			if s.Namespace != "" {
				pairs = append(pairs, "namespace", s.Namespace)
			}
			of = []labels.Labels{labels.FromStrings(pairs...)}
		}
		slices.SortFunc(of, labels.Compare)
		for _, l := range of {
			if slices.ContainsFunc(match, func(m *labels.Matcher) bool { return !m.Matches(l.Get(m.Name)) }) {
				continue
			}
			shown := l.Map()
			for _, f := range from.Families {
				if limit >= 0 && len(out) >= limit {
					return out, nil
				}
				one := targetFamily{Target: shown, Metadata: metadata.Metadata{Type: f.Type, Help: f.Help, Unit: f.Unit}}
				if name == "" {
					one.Metric = f.Name
				}
				out = append(out, one)
			}
		}
	}
	return out, nil
}

// base is the family of a series' name: without what histograms, summaries and
// OpenMetrics' counters add.
func base(name string, kind string) string {
	switch kind {
	case "histogram", "gaugehistogram", "summary":
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			if short, ok := strings.CutSuffix(name, end); ok {
				return short
			}
		}
	}
	return name
}
