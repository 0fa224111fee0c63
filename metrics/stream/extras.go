package stream

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// What a batch of the form PMS2 has after its samples; numbers and times as there,
// times beginning at the base time each:
//
//	histograms: count, then each: number difference, time difference, kind 0 of whole
//	  numbers or 1 of fractions, reset hint, schema varint, zero threshold, zero
//	  count, count, sum, positive spans, negative spans, positive buckets, negative
//	  buckets, custom values
//	exemplars: count, then each: number difference, time difference, value, labels
//
// Values, sums and limits are 8 bytes; counts and buckets are varints of whole
// numbers, and 8 bytes of fractions. A histogram whose sum is a stale marker ends
// its series as a sample does.
const (
	maxHistograms = 1 << 17 // in one batch
	maxExemplars  = 1 << 17
	maxParts      = 1 << 22 // spans, buckets and custom values in one batch, 8 bytes each

	leastHistogram = 2 + 3 + 8 + 2 + 8 + 5 // bytes
	leastExemplar  = 2 + 8 + 1
)

const (
	ofWhole     = 0
	ofFractions = 1
)

func appendExtras(b []byte, base int64, batch Batch, numbers []uint64, view *view) []byte {
	b = binary.AppendUvarint(b, uint64(len(batch.Histograms)))
	number, t := uint64(0), base
	place := func(n uint64, at int64) {
		b = binary.AppendVarint(b, int64(n-number))
		b = binary.AppendVarint(b, at-t)
		number, t = n, at
	}
	for i := range batch.Histograms {
		h := &batch.Histograms[i]
		place(numbers[i], h.T)
		if h.H != nil {
			b = appendWhole(b, h.H)
		} else {
			b = appendFractions(b, h.FH)
		}
		if h.Stale() {
			view.set(number, math.Float64frombits(value.StaleNaN))
		}
	}
	numbers = numbers[len(batch.Histograms):]
	b = binary.AppendUvarint(b, uint64(len(batch.Exemplars)))
	number, t = 0, base
	for i := range batch.Exemplars {
		x := &batch.Exemplars[i]
		place(numbers[i], x.T)
		b = appendLabels(appendFloat(b, x.V), x.With)
	}
	return b
}

func appendFloat(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

func appendWhole(b []byte, h *histogram.Histogram) []byte {
	b = appendFloat(binary.AppendVarint(append(b, ofWhole, byte(h.CounterResetHint)), int64(h.Schema)), h.ZeroThreshold)
	b = appendFloat(binary.AppendUvarint(binary.AppendUvarint(b, h.ZeroCount), h.Count), h.Sum)
	b = appendSpans(appendSpans(b, h.PositiveSpans), h.NegativeSpans)
	for _, list := range [][]int64{h.PositiveBuckets, h.NegativeBuckets} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, x := range list {
			b = binary.AppendVarint(b, x)
		}
	}
	return appendFloats(b, h.CustomValues)
}

func appendFractions(b []byte, h *histogram.FloatHistogram) []byte {
	b = appendFloat(binary.AppendVarint(append(b, ofFractions, byte(h.CounterResetHint)), int64(h.Schema)), h.ZeroThreshold)
	b = appendFloat(appendFloat(appendFloat(b, h.ZeroCount), h.Count), h.Sum)
	b = appendSpans(appendSpans(b, h.PositiveSpans), h.NegativeSpans)
	return appendFloats(appendFloats(appendFloats(b, h.PositiveBuckets), h.NegativeBuckets), h.CustomValues)
}

func appendSpans(b []byte, spans []histogram.Span) []byte {
	b = binary.AppendUvarint(b, uint64(len(spans)))
	for _, s := range spans {
		b = binary.AppendUvarint(binary.AppendVarint(b, int64(s.Offset)), uint64(s.Length))
	}
	return b
}

func appendFloats(b []byte, list []float64) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, v := range list {
		b = appendFloat(b, v)
	}
	return b
}

// extras reads what follows the samples.
func (r *reader) extras(s *session, st *staged, base int64, batch *Batch, v *view) {
	n := r.count("histograms", maxHistograms, leastHistogram)
	batch.Histograms = make([]Histogram, 0, n)
	number, t := uint64(0), base
	place := func() labels.Labels {
		number += uint64(r.varint("series"))
		t += r.varint("time")
		return r.set(s, st, number)
	}
	parts := maxParts
	for range n {
		set := place()
		h := Histogram{ID: number, Labels: set, T: t}
		switch r.uvarint("kind of histogram", ofFractions) {
		case ofWhole:
			h.H = r.whole(&parts)
		case ofFractions:
			h.FH = r.fractions(&parts)
		}
		if r.err != nil {
			return
		}
		if h.Stale() {
			v.set(number, math.Float64frombits(value.StaleNaN))
		}
		batch.Histograms = append(batch.Histograms, h)
	}
	n = r.count("exemplars", maxExemplars, leastExemplar)
	batch.Exemplars = make([]Exemplar, 0, n)
	build := labels.NewBuilder(labels.EmptyLabels())
	number, t = 0, base
	for range n {
		set := place()
		x := Exemplar{ID: number, Labels: set, T: t, V: r.float("value")}
		if r.labels(build); r.err != nil {
			return
		}
		x.With = build.Labels()
		batch.Exemplars = append(batch.Exemplars, x)
	}
}

func (r *reader) float(what string) float64 {
	raw := r.bytes(what, 8)
	if raw == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(raw))
}

func (r *reader) hint() histogram.CounterResetHint {
	return histogram.CounterResetHint(r.uvarint("reset hint", uint64(histogram.GaugeType)))
}

func (r *reader) schema() int32 {
	v := r.varint("schema")
	if v < math.MinInt8 || v > math.MaxInt8 {
		r.fail("schema")
	}
	return int32(v)
}

// part counts off what is about to be read of the batch's spans and buckets.
func (r *reader) part(what string, left *int, least int) int {
	n := r.count(what, maxParts, least)
	if *left -= n; *left < 0 {
		r.fail("too many " + what)
		return 0
	}
	return n
}

func (r *reader) whole(left *int) *histogram.Histogram {
	h := &histogram.Histogram{CounterResetHint: r.hint(), Schema: r.schema(), ZeroThreshold: r.float("zero threshold"),
		ZeroCount: r.uvarint("zero count", math.MaxUint64), Count: r.uvarint("count", math.MaxUint64), Sum: r.float("sum"),
		PositiveSpans: r.spans(left), NegativeSpans: r.spans(left)}
	for _, list := range []*[]int64{&h.PositiveBuckets, &h.NegativeBuckets} {
		if n := r.part("buckets", left, 1); n > 0 {
			*list = make([]int64, n)
		}
		for i := range *list {
			(*list)[i] = r.varint("bucket")
		}
	}
	h.CustomValues = r.floats(left)
	return h
}

func (r *reader) fractions(left *int) *histogram.FloatHistogram {
	return &histogram.FloatHistogram{CounterResetHint: r.hint(), Schema: r.schema(), ZeroThreshold: r.float("zero threshold"),
		ZeroCount: r.float("zero count"), Count: r.float("count"), Sum: r.float("sum"),
		PositiveSpans: r.spans(left), NegativeSpans: r.spans(left),
		PositiveBuckets: r.floats(left), NegativeBuckets: r.floats(left), CustomValues: r.floats(left)}
}

func (r *reader) spans(left *int) []histogram.Span {
	n := r.part("spans", left, 2)
	if n == 0 {
		return nil
	}
	out := make([]histogram.Span, n)
	for i := range out {
		at := r.varint("span")
		if at != int64(int32(at)) {
			r.fail("span")
			return nil
		}
		out[i] = histogram.Span{Offset: int32(at), Length: uint32(r.uvarint("span", math.MaxUint32))}
	}
	return out
}

func (r *reader) floats(left *int) []float64 {
	n := r.part("values", left, 8)
	if n == 0 {
		return nil
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = r.float("value")
	}
	return out
}
