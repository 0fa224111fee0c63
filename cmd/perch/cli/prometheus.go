package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// series is one row of a Prometheus answer.
type series struct {
	Labels map[string]string `json:"metric"`
	Value  point             `json:"value"`
	Values []point           `json:"values"`
}

// point is [unix seconds, "value"].
type point struct {
	T time.Time
	V float64
}

func (p *point) UnmarshalJSON(text []byte) error {
	var raw [2]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	var at float64
	var v string
	if err := json.Unmarshal(raw[0], &at); err != nil {
		return err
	}
	if err := json.Unmarshal(raw[1], &v); err != nil {
		return err
	}
	f, err := strconv.ParseFloat(v, 64)
	p.T, p.V = time.UnixMilli(int64(at*1000)), f
	return err
}

type promAnswer struct {
	Warnings []string `json:"warnings"`
	Data     struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

func (w *web) prom(ctx context.Context, path string, q url.Values) (rows []series, warnings []string, _ error) {
	var a promAnswer
	if err := w.json(ctx, path, q, &a); err != nil {
		return nil, nil, err
	}
	if a.Data.Type == "scalar" || a.Data.Type == "string" {
		var p point
		if err := json.Unmarshal(a.Data.Result, &p); err != nil {
			return nil, nil, fmt.Errorf("read answer of query: %w", err)
		}
		return []series{{Value: p}}, a.Warnings, nil
	}
	if err := json.Unmarshal(a.Data.Result, &rows); err != nil {
		return nil, nil, fmt.Errorf("read answer of query: %w", err)
	}
	return rows, a.Warnings, nil
}

func (w *web) instant(ctx context.Context, expr string) ([]series, []string, error) {
	return w.prom(ctx, "/prometheus/api/v1/query", url.Values{"query": {expr}})
}

func (w *web) ranged(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]series, []string, error) {
	unix := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	return w.prom(ctx, "/prometheus/api/v1/query_range", url.Values{"query": {expr}, "start": {unix(from)}, "end": {unix(to)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}})
}

// name writes labels as PromQL does.
func (s series) name() string {
	var b strings.Builder
	b.WriteString(s.Labels["__name__"])
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		if k != "__name__" {
			parts = append(parts, k+"="+strconv.Quote(s.Labels[k]))
		}
	}
	if len(parts) > 0 || b.Len() == 0 {
		b.WriteString("{" + strings.Join(parts, ", ") + "}")
	}
	return b.String()
}
