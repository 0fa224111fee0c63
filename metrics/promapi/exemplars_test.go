package promapi

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"perch/metrics/store"
)

// lacking is a store with one exemplar that another store's are missing beside.
type lacking struct{ *store.Store }

func (l lacking) ExemplarQuerier(context.Context) (storage.ExemplarQuerier, error) { return l, nil }
func (lacking) Warnings() annotations.Annotations {
	return annotations.New().Add(errors.New(partial + "b does not answer"))
}
func (lacking) Select(_, _ int64, _ ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	return []exemplar.QueryResult{{SeriesLabels: labels.FromStrings("__name__", "traced"), Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "t1"), Value: 1, Ts: 1000}}}}, nil
}

func TestAnswersWithExemplarsTellWhatTheyMayLack(t *testing.T) {
	_, s := newAPI(t, Parts{})
	away := []string{}
	api, err := New(Default(), Parts{Store: lacking{s}, Missing: func(context.Context) []string { return away }}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(query string, packed bool) (code int, kind string, body struct {
		Status string
		Data   []struct {
			Exemplars []struct{ Labels map[string]string }
		}
		Warnings []string
	}) {
		t.Helper()
		r := httptest.NewRequest("GET", "/api/v1/query_exemplars?query="+query, nil)
		if packed {
			r.Header.Set("Accept-Encoding", "gzip")
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), Everything())))
		in := json.NewDecoder(w.Body)
		if packed {
			unpacked, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			in = json.NewDecoder(unpacked)
		}
		if err := in.Decode(&body); err != nil {
			t.Fatal(err)
		}
		return w.Code, w.Header().Get("Content-Type"), body
	}
	for _, c := range []struct {
		away   []string
		packed bool
		want   []string
	}{
		{nil, false, []string{"partial answer: b does not answer"}},
		{nil, true, []string{"partial answer: b does not answer"}},
		{[]string{"n2"}, false, []string{"partial answer: b does not answer", "partial answer: no recent samples from n2"}},
	} {
		away = c.away
		code, kind, body := ask("traced", c.packed)
		slices.Sort(body.Warnings)
		if code != 200 || kind != "application/json" || body.Status != "success" || len(body.Data) != 1 || body.Data[0].Exemplars[0].Labels["trace_id"] != "t1" || !slices.Equal(body.Warnings, c.want) {
			t.Errorf("%v: %d %s %+v", c, code, kind, body)
		}
	}
	if code, _, body := ask("traced(", false); code != 400 || body.Status != "error" {
		t.Errorf("%d %+v", code, body)
	}
}
