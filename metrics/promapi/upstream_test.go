package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"
)

// Prometheus' own test scripts of PromQL, each query asked over HTTP.
func TestPrometheusOwnScriptsPassOverHTTP(t *testing.T) {
	promqltest.RunBuiltinTests(t, newHTTPEngine(t))
}

// switched is the database of the script that runs.
type switched struct {
	Database // what the queries do not use
	storage.Queryable
}

func (s *switched) Querier(mint, maxt int64) (storage.Querier, error) {
	return s.Queryable.Querier(mint, maxt)
}

// httpEngine asks the API over HTTP and compares with the engine's own answer.
// Not for concurrent use.
type httpEngine struct {
	api *API
	db  *switched
	url string
}

func newHTTPEngine(t *testing.T) *httpEngine {
	cfg := Default()
	cfg.MaxSamples, cfg.Timeout, cfg.EvalInterval, cfg.Experimental = promqltest.DefaultMaxSamplesPerQuery, 100*time.Second, time.Minute, true
	e := &httpEngine{db: &switched{}}
	var err error
	if e.api, err = New(cfg, Parts{Store: e.db}, slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.api.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), Everything())))
	}))
	t.Cleanup(srv.Close)
	e.url = srv.URL
	return e
}

func (e *httpEngine) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, at time.Time) (promql.Query, error) {
	direct, err := e.api.engine.NewInstantQuery(ctx, q, opts, expr, at)
	return e.query(q, direct, err, "/api/v1/query", url.Values{"query": {expr}, "time": {stamp(at)}})
}

func (e *httpEngine) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	direct, err := e.api.engine.NewRangeQuery(ctx, q, opts, expr, start, end, step)
	return e.query(q, direct, err, "/api/v1/query_range",
		url.Values{"query": {expr}, "start": {stamp(start)}, "end": {stamp(end)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}})
}

func stamp(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

func (e *httpEngine) query(q storage.Queryable, direct promql.Query, err error, path string, form url.Values) (promql.Query, error) {
	asked := httpQuery{e: e, q: q, direct: direct, path: path, form: form}
	if err != nil {
		if got, askErr := asked.ask(); askErr != nil || got.Status != "error" {
			return nil, fmt.Errorf("over HTTP a query that is refused (%w) gives %+v, %w", err, got, askErr)
		}
		return nil, err
	}
	return asked, nil
}

type httpQuery struct {
	e      *httpEngine
	q      storage.Queryable
	direct promql.Query
	path   string
	form   url.Values
}

func (q httpQuery) Close()                      { q.direct.Close() }
func (q httpQuery) Statement() parser.Statement { return q.direct.Statement() }
func (q httpQuery) Stats() *stats.Statistics    { return q.direct.Stats() }
func (q httpQuery) Cancel()                     { q.direct.Cancel() }
func (q httpQuery) String() string              { return q.direct.String() }

type told struct {
	Status, Error string
	Warnings      []string
	Infos         []string
	Data          struct {
		ResultType string
		Result     json.RawMessage
	}
}

func (q httpQuery) ask() (a told, err error) {
	q.e.db.Queryable = q.q
	resp, err := http.PostForm(q.e.url+q.path, q.form)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&a)
	return a, err
}

// Exec gives the numbers that came over HTTP. JSON writes a histogram's buckets
// without its schema, so histograms are compared with the direct ones and those
// are returned.
func (q httpQuery) Exec(ctx context.Context) *promql.Result {
	direct := q.direct.Exec(ctx)
	got, err := q.ask()
	if err != nil {
		return &promql.Result{Err: err}
	}
	if direct.Err != nil {
		if got.Status != "error" || got.Error != direct.Err.Error() {
			return &promql.Result{Err: fmt.Errorf("over HTTP: %+v, direct: %w", got, direct.Err)}
		}
		return direct
	}
	if got.Status != "success" || got.Data.ResultType != string(direct.Value.Type()) {
		return &promql.Result{Err: fmt.Errorf("over HTTP: %+v, direct: %v", got, direct.Value)}
	}
	warnings, infos := direct.Warnings.AsStrings("", 10, 10) // without the place in the query, which comes over HTTP
	if !sameButForPlace(got.Warnings, warnings) || !sameButForPlace(got.Infos, infos) {
		return &promql.Result{Err: fmt.Errorf("over HTTP warnings %q and infos %q, direct %q and %q", got.Warnings, got.Infos, warnings, infos)}
	}
	value, err := decode(got.Data.Result, direct.Value)
	return &promql.Result{Value: value, Err: err, Warnings: direct.Warnings}
}

func sameButForPlace(got, want []string) bool {
	slices.Sort(got)
	slices.Sort(want)
	return slices.EqualFunc(got, want, strings.HasPrefix)
}

// series is one element of a vector or matrix in JSON.
type series struct {
	Metric     map[string]string
	Value      *point
	Values     []point
	Histogram  *hpoint
	Histograms []hpoint
}

// point is [seconds, "number"].
type point struct {
	t int64
	f float64
	s string
}

func (p *point) UnmarshalJSON(text []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	var seconds float64
	if err := errors.Join(json.Unmarshal(pair[0], &seconds), json.Unmarshal(pair[1], &p.s)); err != nil {
		return err
	}
	p.t = int64(math.Round(seconds * 1000))
	p.f, _ = strconv.ParseFloat(p.s, 64) // a string result is no number
	return nil
}

// hpoint is [seconds, histogram].
type hpoint struct {
	t int64
	h struct {
		Count, Sum string
		Buckets    [][4]any // kind of bounds, lower, upper, count
	}
}

func (p *hpoint) UnmarshalJSON(text []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	var seconds float64
	if err := errors.Join(json.Unmarshal(pair[0], &seconds), json.Unmarshal(pair[1], &p.h)); err != nil {
		return err
	}
	p.t = int64(math.Round(seconds * 1000))
	return nil
}

func (p *hpoint) is(t int64, h *histogram.FloatHistogram) error {
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	same := func(text any, f float64) bool {
		s, _ := text.(string)
		g, err := strconv.ParseFloat(s, 64)
		return err == nil && (g == f || math.IsNaN(g) && math.IsNaN(f))
	}
	if p.t != t || !same(p.h.Count, h.Count) || !same(p.h.Sum, h.Sum) {
		return fmt.Errorf("histogram at %d has count %s and sum %s over HTTP, want %s and %s at %d", p.t, p.h.Count, p.h.Sum, number(h.Count), number(h.Sum), t)
	}
	i := 0
	for it := h.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count == 0 {
			continue
		}
		if i >= len(p.h.Buckets) || !same(p.h.Buckets[i][1], b.Lower) || !same(p.h.Buckets[i][2], b.Upper) || !same(p.h.Buckets[i][3], b.Count) {
			return fmt.Errorf("bucket %d of %v over HTTP, want %v", i, p.h.Buckets, b)
		}
		i++
	}
	if i != len(p.h.Buckets) {
		return fmt.Errorf("%d buckets over HTTP, want %d", len(p.h.Buckets), i)
	}
	return nil
}

// decode reads JSON of the direct value's type.
func decode(text json.RawMessage, direct parser.Value) (parser.Value, error) {
	switch direct.(type) {
	case promql.String:
		var p point
		err := json.Unmarshal(text, &p)
		return promql.String{T: p.t, V: p.s}, err
	case promql.Scalar:
		var p point
		err := json.Unmarshal(text, &p)
		return promql.Scalar{T: p.t, V: p.f}, err
	}
	var list []series
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	switch direct := direct.(type) {
	case promql.Vector:
		if len(list) != len(direct) {
			return nil, fmt.Errorf("%d samples over HTTP, want %d", len(list), len(direct))
		}
		out := make(promql.Vector, len(list))
		for i, s := range list {
			switch {
			case s.Value != nil:
				out[i] = promql.Sample{T: s.Value.t, F: s.Value.f, Metric: labels.FromMap(s.Metric), DropName: direct[i].DropName}
			case s.Histogram != nil && direct[i].H != nil:
				if err := s.Histogram.is(direct[i].T, direct[i].H); err != nil {
					return nil, err
				}
				out[i] = promql.Sample{T: s.Histogram.t, H: direct[i].H, Metric: labels.FromMap(s.Metric), DropName: direct[i].DropName}
			default:
				return nil, fmt.Errorf("sample %d over HTTP has neither a value nor the histogram of %v", i, direct[i])
			}
		}
		return out, nil
	case promql.Matrix:
		if len(list) != len(direct) {
			return nil, fmt.Errorf("%d series over HTTP, want %d", len(list), len(direct))
		}
		out := make(promql.Matrix, len(list))
		for i, s := range list {
			out[i].Metric = labels.FromMap(s.Metric)
			for _, p := range s.Values {
				out[i].Floats = append(out[i].Floats, promql.FPoint{T: p.t, F: p.f})
			}
			if len(s.Histograms) != len(direct[i].Histograms) {
				return nil, fmt.Errorf("%d histograms over HTTP, want %d", len(s.Histograms), len(direct[i].Histograms))
			}
			for k, p := range s.Histograms {
				want := direct[i].Histograms[k]
				if err := p.is(want.T, want.H); err != nil {
					return nil, err
				}
				out[i].Histograms = append(out[i].Histograms, want)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("a result of type %s", direct.Type())
}
