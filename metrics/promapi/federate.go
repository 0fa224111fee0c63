package promapi

import (
	"bufio"
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
// written as the reader says that it takes them, else with underscores.
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
		found = append(found, q.Select(r.Context(), true, &storage.SelectHints{Start: mint, End: maxt}, ms...))
	}
	merged := storage.NewMergeSeriesSet(found, 0, storage.ChainedSeriesMerge)
	var lines []federated
	for merged.Next() && len(lines) < a.cfg.MaxSamples {
		s := merged.At()
		if t, v, ok := newest(s); ok {
			lines = append(lines, federated{s.Labels(), t, v})
		}
	}
	if err := merged.Err(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	slices.SortStableFunc(lines, func(a, b federated) int {
		return strings.Compare(a.labels.Get(labels.MetricName), b.labels.Get(labels.MetricName))
	})
	format := expfmt.NegotiateAccept(r.Header, expfmt.FmtText, anyNames)
	w.Header().Set("Content-Type", string(format))
	escaping := format.ToEscapingScheme()
	out := bufio.NewWriter(w)
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
