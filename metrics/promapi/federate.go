package promapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// anyNames is text whose names may be of any characters.
const anyNames expfmt.Format = "text/plain; version=1.0.0; charset=utf-8"

// federate writes the newest sample of every series that one of match[]
// selects, as Prometheus text with times. Names that old readers do not know are
// written as the reader says that it takes them, else with underscores. It waits for
// its turn and has the time of a query. That the answer is partial says a comment at
// its beginning, and the header Warning.
func (a *API) federate(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "parse form: "+err.Error(), http.StatusBadRequest)
		return
	}
	sets, err := a.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.cfg.Timeout)
	defer cancel()
	turn, err := a.turns.Insert(ctx, "")
	if err != nil {
		http.Error(w, "no turn: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer a.turns.Delete(turn)
	now := time.Now()
	mint, maxt := now.Add(-a.cfg.Lookback).UnixMilli(), now.UnixMilli()
	q, err := a.guard.Querier(mint, maxt)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer q.Close()

	var found []storage.SeriesSet
	for _, ms := range sets {
		found = append(found, q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt}, ms...))
	}
	merged := storage.NewMergeSeriesSet(found, 0, storage.ChainedSeriesMerge)
	var lines []federated
	for merged.Next() {
		if err := ctx.Err(); err != nil {
			http.Error(w, "not in time: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		if len(lines) >= a.cfg.MaxSamples {
			http.Error(w, fmt.Sprintf("more than %d series: narrow match[]", a.cfg.MaxSamples), http.StatusUnprocessableEntity)
			return
		}
		s := merged.At()
		if t, v, ok := newest(s); ok {
			lines = append(lines, federated{s.Labels(), t, v})
		}
	}
	if err := errors.Join(merged.Err(), ctx.Err()); err != nil {
		code := http.StatusInternalServerError
		if ctx.Err() != nil {
			code = http.StatusServiceUnavailable
		}
		http.Error(w, err.Error(), code)
		return
	}
	warnings, _ := merged.Warnings().AsStrings("", 0, 0)
	slices.SortStableFunc(lines, func(a, b federated) int {
		return strings.Compare(a.labels.Get(labels.MetricName), b.labels.Get(labels.MetricName))
	})
	format := expfmt.NegotiateAccept(r.Header, expfmt.FmtText, anyNames)
	w.Header().Set("Content-Type", string(format))
	escaping := format.ToEscapingScheme()
	for _, text := range warnings {
		w.Header().Add("Warning", "199 perch "+strconv.Quote(text))
	}
	out := bufio.NewWriter(w)
	for _, text := range warnings {
		fmt.Fprintf(out, "# %s\n", strings.ReplaceAll(text, "\n", " "))
	}
	last := ""
	for _, l := range lines {
		if name := l.labels.Get(labels.MetricName); name != last {
			fmt.Fprintf(out, "# TYPE %s untyped\n", quoted(model.EscapeName(name, escaping), model.LegacyValidation.IsValidMetricName))
			last = name
		}
		out.WriteString(l.text(escaping))
	}
	_ = out.Flush() // the client is gone otherwise
}

type federated struct {
	labels labels.Labels
	t      int64
	v      float64
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// quoted is a name as text has it; plain tells which need no quotes.
func quoted(name string, plain func(string) bool) string {
	if plain(name) {
		return name
	}
	return `"` + escape.Replace(name) + `"`
}

func (f federated) text(escaping model.EscapingScheme) string {
	var b strings.Builder
	name := quoted(model.EscapeName(f.labels.Get(labels.MetricName), escaping), model.LegacyValidation.IsValidMetricName)
	sep := name + "{"
	if strings.HasPrefix(name, `"`) {
		sep = "{" + name + ","
	}
	instance := false
	f.labels.Range(func(l labels.Label) {
		if l.Name == labels.MetricName {
			return
		}
		instance = instance || l.Name == "instance"
		b.WriteString(sep + quoted(model.EscapeName(l.Name, escaping), model.LegacyValidation.IsValidLabelName) + `="` + escape.Replace(l.Value) + `"`)
		sep = ","
	})
	if !instance { // an empty one keeps the scraper from adding its own
		b.WriteString(sep + `instance=""`)
	}
	fmt.Fprintf(&b, "} %s %d\n", number(f.v), f.t)
	return b.String()
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// newest is the last float of a series, if it is not a stale marker.
func newest(s storage.Series) (t int64, v float64, ok bool) {
	for it := s.Iterator(nil); ; {
		switch it.Next() {
		case chunkenc.ValFloat:
			t, v = it.At()
			ok = true
		case chunkenc.ValNone:
			return t, v, ok && !value.IsStaleNaN(v)
		}
	}
}
