package promapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
)

// Reads says whether a request, without the prefix of the API, may take much memory
// because it reads series. The door gives turns to these.
func Reads(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/api/v1/query") || selects(r.URL.Path)
}

// bounded is the engine as requests over HTTP use it: a result is written as a whole,
// at about ten times its own bytes, when the engine's turn is over. So it may have
// fewer points than a query may look at.
type bounded struct {
	*promql.Engine
	points int
}

func (b bounded) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, at time.Time) (promql.Query, error) {
	query, err := b.Engine.NewInstantQuery(ctx, q, opts, qs, at)
	return boundedQuery{query, b.points}, err
}

func (b bounded) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, step time.Duration) (promql.Query, error) {
	query, err := b.Engine.NewRangeQuery(ctx, q, opts, qs, start, end, step)
	return boundedQuery{query, b.points}, err
}

type boundedQuery struct {
	promql.Query
	points int
}

func (q boundedQuery) Exec(ctx context.Context) *promql.Result {
	res := q.Query.Exec(ctx)
	if res.Err != nil {
		return res
	}
	if n := pointsOf(res.Value); n > q.points {
		return &promql.Result{Err: fmt.Errorf("the answer has %d points; %d are allowed: ask for a longer step, a shorter time or fewer series", n, q.points), Warnings: res.Warnings}
	}
	return res
}

// pointsOf counts a histogram as one for each of its buckets.
func pointsOf(v any) (n int) {
	of := func(h *histogram.FloatHistogram) int {
		if h == nil {
			return 0
		}
		return 4 + len(h.PositiveBuckets) + len(h.NegativeBuckets) + len(h.CustomValues)
	}
	switch v := v.(type) {
	case promql.Vector:
		for i := range v {
			n += 1 + of(v[i].H)
		}
	case promql.Matrix:
		for i := range v {
			n += 1 + len(v[i].Floats)
			for k := range v[i].Histograms {
				n += of(v[i].Histograms[k].H)
			}
		}
	}
	return n
}

// lists gives requests that list series, and remote reads, what queries have: a turn
// and an end. What is listed is cut as the parameter limit does it, with its warning.
func (a *API) lists(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !selects(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), a.cfg.Timeout)
		defer cancel()
		turn, err := a.turns.Insert(ctx, "")
		if err != nil {
			answerError(w, http.StatusServiceUnavailable, "unavailable", "no turn: "+err.Error())
			return
		}
		defer a.turns.Delete(turn)
		if r.URL.Path != "/api/v1/read" {
			if n, err := strconv.Atoi(r.FormValue("limit")); err == nil && n > a.cfg.Listed || err == nil && n == 0 || errors.Is(err, strconv.ErrRange) || r.FormValue("limit") == "" {
				r.Form.Set("limit", strconv.Itoa(a.cfg.Listed))
			}
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
