package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"perch/metrics/store"
)

// Sample, Histogram, Exemplar and Batch are the store's; see there.
type (
	Sample    = store.Sample
	Histogram = store.Histogram
	Exemplar  = store.Exemplar
	Batch     = store.Batch
)

// A batch is, after decompression:
//
//	"PMS1" · session 16 bytes · sequence uvarint
//	new series: count, then each: label count, name and value strings
//	base time varint (ms)
//	samples: count, then each: number difference varint, time difference varint, value
//	only of "PMS2": what follows samples in extras.go
//	crc32c of all before, 4 bytes
//
// A batch of samples alone has the form PMS1, which receivers of all versions
// read, anything else PMS2. A receiver tells in the header formHeader of each
// answer which one it reads at most; one without the header reads PMS1.
//
// Series are numbered 1, 2, … in the order they are described in a session.
// A value is a uvarint: 0 = as before, 1 = 8 raw bytes follow, else
// zigzag(difference)+2 of whole numbers. Before means the last value of the
// series in this session. A series whose last value was a stale marker is not
// named again.
const (
	magic      = "PMS1"
	magic2     = "PMS2"
	formHeader = "Perch-Stream"
)

// Limits of the decoder. A Client leaves out series that have too many labels or too
// long ones; it stays far below the others.
const (
	maxSamples    = 1 << 20
	maxNewSeries  = 1 << 18
	maxLabels     = 128
	maxText       = 16 << 10
	maxSeries     = 1 << 21 // in one session
	maxWhole      = 1 << 53
	sessionLength = 16
)

var (
	errMalformed = errors.New("malformed batch")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// session is what both sides know of each other's past.
type session struct {
	id   [sessionLength]byte
	seq  uint64          // of the last batch both have
	last []float64       // per number-1: last value
	sum  uint32          // of that batch, receiver only
	sets []labels.Labels // per number-1, receiver only; empty when it ended

	scratch []int32 // per number-1: 1 + place among the changes of this batch
}

// staged is the change a batch makes to a session once it is acknowledged.
type staged struct {
	seq    uint64
	sum    uint32
	sets   []labels.Labels
	values []staging
}

type staging struct {
	number uint64
	v      float64
}

// commit forgets the labels of series that ended: should one go on, its sender
// describes it anew.
func (s *session) commit(st *staged) {
	s.seq, s.sum = st.seq, st.sum
	s.sets = append(s.sets, st.sets...)
	for _, x := range st.values {
		for uint64(len(s.last)) < x.number {
			s.last = append(s.last, 0)
		}
		s.last[x.number-1] = x.v
		if value.IsStaleNaN(x.v) && x.number <= uint64(len(s.sets)) {
			s.sets[x.number-1] = labels.EmptyLabels()
		}
	}
}

// differ encodes v against before.
func differ(b []byte, before, v float64) []byte {
	if math.Float64bits(before) == math.Float64bits(v) {
		return append(b, 0)
	}
	if whole(before) && whole(v) {
		d := int64(v) - int64(before)
		return binary.AppendUvarint(b, zigzag(d)+2)
	}
	b = append(b, 1)
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

func whole(v float64) bool {
	return v == math.Trunc(v) && v < maxWhole && v > -maxWhole && (v != 0 || !math.Signbit(v))
}

func zigzag(d int64) uint64   { return uint64(d<<1) ^ uint64(d>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// encode writes a batch. numbers gives the series number of each sample, histogram
// and exemplar; those above known are new and described in order of their numbers
// by fresh.
func encode(b []byte, s *session, seq uint64, fresh []labels.Labels, batch Batch, numbers []uint64, st *staged) []byte {
	b = append(b, formOf(batch)...)
	b = append(b, s.id[:]...)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(len(fresh)))
	for _, l := range fresh {
		b = appendLabels(b, l)
	}
	samples := batch.Samples
	base := baseOf(batch)
	b = binary.AppendVarint(b, base)
	b = binary.AppendUvarint(b, uint64(len(samples)))
	view := viewOf(s, len(samples))
	var number uint64
	t := base
	for i := range samples {
		b = binary.AppendVarint(b, int64(numbers[i]-number))
		number = numbers[i]
		b = binary.AppendVarint(b, samples[i].T-t)
		t = samples[i].T
		b = differ(b, view.get(number), samples[i].V)
		view.set(number, samples[i].V)
	}
	if formOf(batch) == magic2 {
		b = appendExtras(b, base, batch, numbers[len(samples):], view)
	}
	st.seq, st.values = seq, view.done()
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// formOf is the oldest form that can hold a batch.
func formOf(b Batch) string {
	if len(b.Histograms)+len(b.Exemplars) > 0 {
		return magic2
	}
	return magic
}

// baseOf is the time from which others are told.
func baseOf(b Batch) int64 {
	switch {
	case len(b.Samples) > 0:
		return b.Samples[0].T
	case len(b.Histograms) > 0:
		return b.Histograms[0].T
	case len(b.Exemplars) > 0:
		return b.Exemplars[0].T
	}
	return 0
}

func appendLabels(b []byte, l labels.Labels) []byte {
	b = binary.AppendUvarint(b, uint64(l.Len()))
	l.Range(func(x labels.Label) {
		b = appendText(b, x.Name)
		b = appendText(b, x.Value)
	})
	return b
}

// legible answers whether a receiver takes these labels.
func legible(l labels.Labels) bool {
	if l.ByteSize() <= 3*maxLabels { // a label takes 3 bytes at least
		return true
	}
	yes := l.Len() <= maxLabels
	l.Range(func(x labels.Label) { yes = yes && len(x.Name) <= maxText && len(x.Value) <= maxText })
	return yes
}

func appendText(b []byte, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// view is a session's values with the changes of one batch on top.
type view struct {
	s       *session
	changed []staging
}

func viewOf(s *session, samples int) *view {
	return &view{s: s, changed: make([]staging, 0, samples)}
}

// done cleans the scratch of the session for the next batch.
func (v *view) done() []staging {
	for _, c := range v.changed {
		v.s.scratch[c.number-1] = 0
	}
	return v.changed
}

func (v *view) get(number uint64) float64 {
	if number-1 < uint64(len(v.s.scratch)) {
		if i := v.s.scratch[number-1]; i > 0 {
			return v.changed[i-1].v
		}
	}
	if number-1 < uint64(len(v.s.last)) {
		return v.s.last[number-1]
	}
	return 0
}

func (v *view) set(number uint64, x float64) {
	for uint64(len(v.s.scratch)) < number {
		v.s.scratch = append(v.s.scratch, 0)
	}
	if i := v.s.scratch[number-1]; i > 0 {
		v.changed[i-1].v = x
		return
	}
	v.changed = append(v.changed, staging{number, x})
	v.s.scratch[number-1] = int32(len(v.changed))
}

// header is the part of a batch that finds its session.
type header struct {
	id  [sessionLength]byte
	seq uint64
	sum uint32
	two bool // the form is PMS2
}

// reader reads a batch; the first error sticks.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errMalformed, what)
	}
	r.b = nil
}

func (r *reader) uvarint(what string, most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.fail(what)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint(what string) int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(what)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(what string, n int) []byte {
	if len(r.b) < n {
		r.fail(what)
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) text(what string) string {
	return string(r.bytes(what, int(r.uvarint(what, maxText))))
}

// open checks the frame and reads the header.
func open(b []byte) (header, *reader, error) {
	var h header
	if len(b) < len(magic)+sessionLength+1+4 || string(b[:len(magic)]) != magic && string(b[:len(magic)]) != magic2 {
		return h, nil, fmt.Errorf("%w: no %s or %s at the start", errMalformed, magic, magic2)
	}
	h.two = string(b[:len(magic)]) == magic2
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return h, nil, fmt.Errorf("%w: checksum", errMalformed)
	}
	h.sum = sum
	r := &reader{b: body[len(magic):]}
	copy(h.id[:], r.bytes("session", sessionLength))
	h.seq = r.uvarint("sequence", math.MaxUint64)
	return h, r, r.err
}

// decode reads what follows the header. decorate may change the labels of a new
// series.
func (r *reader) decode(s *session, h header, decorate func(*labels.Builder)) (batch Batch, _ *staged, _ error) {
	st := &staged{seq: h.seq, sum: h.sum}
	r.describe(s, st, decorate)
	base := r.varint("base time")
	n := r.count("samples", maxSamples, 3)
	batch.Samples = make([]Sample, 0, n)
	v := viewOf(s, n)
	defer v.done()
	var number uint64
	t := base
	for range n {
		number += uint64(r.varint("series"))
		set := r.set(s, st, number)
		t += r.varint("time")
		x := r.value(v, number)
		if r.err != nil {
			return Batch{}, nil, r.err
		}
		v.set(number, x)
		batch.Samples = append(batch.Samples, Sample{ID: number, Labels: set, T: t, V: x})
	}
	if h.two {
		r.extras(s, st, base, &batch, v)
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after the end")
	}
	st.values = v.changed
	return batch, st, r.err
}

// describe reads the new series.
func (r *reader) describe(s *session, st *staged, decorate func(*labels.Builder)) {
	fresh := int(r.uvarint("count of series", maxNewSeries))
	if len(s.sets)+fresh > maxSeries {
		r.fail("too many series in one session")
	}
	build := labels.NewBuilder(labels.EmptyLabels())
	for range fresh {
		r.labels(build)
		if r.err != nil {
			return
		}
		if decorate != nil {
			decorate(build)
		}
		st.sets = append(st.sets, build.Labels())
	}
}

func (r *reader) labels(build *labels.Builder) {
	build.Reset(labels.EmptyLabels())
	for range r.uvarint("count of labels", maxLabels) {
		name, text := r.text("label name"), r.text("label value")
		if r.err != nil {
			return
		}
		build.Set(name, text)
	}
}

// count reads how many follow, each of which takes some bytes at least.
func (r *reader) count(what string, most uint64, least int) int {
	n := int(r.uvarint("count of "+what, most))
	if n > len(r.b)/least {
		r.fail("count of " + what)
		return 0
	}
	return n
}

// set finds the labels of a series that was described.
func (r *reader) set(s *session, st *staged, number uint64) labels.Labels {
	switch {
	case r.err != nil:
	case number == 0 || number > uint64(len(s.sets)+len(st.sets)):
		r.fail("series that was not described")
	case number <= uint64(len(s.sets)):
		return s.sets[number-1]
	default:
		return st.sets[number-1-uint64(len(s.sets))]
	}
	return labels.EmptyLabels()
}

func (r *reader) value(v *view, number uint64) float64 {
	switch tag := r.uvarint("value", math.MaxUint64); tag {
	case 0:
		return v.get(number)
	case 1:
		if raw := r.bytes("value", 8); raw != nil {
			return math.Float64frombits(binary.LittleEndian.Uint64(raw))
		}
		return 0
	default:
		before := v.get(number)
		if !whole(before) {
			r.fail("difference to a value that is not whole")
			return 0
		}
		return float64(int64(before) + unzigzag(tag-2))
	}
}
