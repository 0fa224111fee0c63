package promapi

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/proto"
)

// anyNames is text whose names may be of any characters.
const anyNames expfmt.Format = "text/plain; version=1.0.0; charset=utf-8"

// federate writes the newest sample of every series that one of match[]
// selects, as Prometheus' text or protobuf with times. Native histograms are in
// protobuf only, but those of buckets that their maker chose are classic ones in
// text too. Names that old readers do not know are
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
		if len(lines) >= a.cfg.Points {
			http.Error(w, fmt.Sprintf("more than %d series: narrow match[]", a.cfg.Points), http.StatusUnprocessableEntity)
			return
		}
		if f, ok := newest(merged.At()); ok {
			lines = append(lines, f)
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
	format := expfmt.NegotiateAccept(r.Header, expfmt.FmtText, anyNames, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText), expfmt.NewFormat(expfmt.TypeProtoCompact))
	w.Header().Set("Content-Type", string(format))
	for _, text := range warnings {
		w.Header().Add("Warning", "199 perch "+strconv.Quote(text))
	}
	out := bufio.NewWriter(w)
	encode := func(f *dto.MetricFamily) error { // the library's encoder does not know anyNames
		_, err := expfmt.MetricFamilyToText(out, model.EscapeMetricFamily(f, format.ToEscapingScheme()))
		return err
	}
	if strings.HasPrefix(string(format), expfmt.ProtoType) {
		encode = expfmt.NewEncoder(out, format).Encode
	} else {
		lines = slices.DeleteFunc(lines, func(f federated) bool { return f.h != nil && !f.h.UsesCustomBuckets() }) // text has no words for them
		for _, text := range warnings {
			fmt.Fprintf(out, "# %s\n", strings.ReplaceAll(text, "\n", " "))
		}
	}
	for _, f := range grouped(lines) {
		if encode(f) != nil {
			return // the client is gone
		}
	}
	_ = out.Flush() // as above
}

// federated is the newest sample of a series; h is nil for a number.
type federated struct {
	labels labels.Labels
	t      int64 // ms
	v      float64
	h      *histogram.FloatHistogram
}

func (f federated) kind() dto.MetricType {
	switch {
	case f.h == nil:
		return dto.MetricType_UNTYPED
	case f.h.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	}
	return dto.MetricType_HISTOGRAM
}

// grouped is samples in families, by name and kind. A name that has several kinds is there
// several times, which Prometheus reads.
func grouped(list []federated) (out []*dto.MetricFamily) {
	slices.SortStableFunc(list, func(a, b federated) int {
		return cmp.Or(strings.Compare(a.labels.Get(model.MetricNameLabel), b.labels.Get(model.MetricNameLabel)), cmp.Compare(a.kind(), b.kind()))
	})
	for i, f := range list {
		name := f.labels.Get(model.MetricNameLabel)
		if name == "" {
			continue
		}
		if len(out) == 0 || out[len(out)-1].GetName() != name || list[i-1].kind() != f.kind() {
			out = append(out, &dto.MetricFamily{Name: proto.String(name), Type: f.kind().Enum()})
		}
		last := out[len(out)-1]
		last.Metric = append(last.Metric, f.metric())
	}
	return out
}

func (f federated) metric() *dto.Metric {
	m := &dto.Metric{TimestampMs: proto.Int64(f.t)}
	instance := false
	f.labels.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			instance = instance || l.Name == model.InstanceLabel
			m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(l.Name), Value: proto.String(l.Value)})
		}
	})
	if !instance { // an empty one keeps the scraper from adding its own
		m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(model.InstanceLabel), Value: proto.String("")})
	}
	if f.h == nil {
		m.Untyped = &dto.Untyped{Value: proto.Float64(f.v)}
	} else {
		m.Histogram = buckets(f.h)
	}
	return m
}

// buckets is a histogram as protobuf has it; one of buckets that its maker chose
// becomes a classic one.
func buckets(h *histogram.FloatHistogram) *dto.Histogram {
	out := &dto.Histogram{SampleCountFloat: proto.Float64(h.Count), SampleSum: proto.Float64(h.Sum)}
	if !h.UsesCustomBuckets() {
		out.Schema, out.ZeroThreshold, out.ZeroCountFloat = proto.Int32(h.Schema), proto.Float64(h.ZeroThreshold), proto.Float64(h.ZeroCount)
		out.PositiveSpan, out.PositiveCount = spans(h.PositiveSpans), h.PositiveBuckets
		out.NegativeSpan, out.NegativeCount = spans(h.NegativeSpans), h.NegativeBuckets
		return out
	}
	counts := make([]float64, len(h.CustomValues)+1) // the last is of what is above all bounds
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); int(b.Index) < len(counts) {
			counts[b.Index] = b.Count
		}
	}
	sum := 0.0
	for i, bound := range h.CustomValues {
		sum += counts[i]
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: proto.Float64(bound), CumulativeCountFloat: proto.Float64(sum)})
	}
	return out
}

func spans(in []histogram.Span) (out []*dto.BucketSpan) {
	for _, s := range in {
		out = append(out, &dto.BucketSpan{Offset: proto.Int32(s.Offset), Length: proto.Uint32(s.Length)})
	}
	return out
}

// newest is the last sample of a series, if it is not a stale marker.
func newest(s storage.Series) (f federated, ok bool) {
	f.labels = s.Labels()
	it := s.Iterator(nil)
	for {
		switch it.Next() {
		case chunkenc.ValFloat:
			f.t, f.v = it.At()
			f.h, ok = nil, true
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
			f.t, f.h = it.AtFloatHistogram(nil)
			ok = true
		case chunkenc.ValNone:
			return f, ok && it.Err() == nil && !(f.h == nil && value.IsStaleNaN(f.v) || f.h != nil && value.IsStaleNaN(f.h.Sum))
		}
	}
}
