package promapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"perch/metrics/family"
	"perch/metrics/store"
)

// intake is the store as remote write and OTLP fill it. What the store refuses of a
// request is counted, and the rest of it is stored: Prometheus' own handlers give
// the whole request up. Series get the namespace into which the caller may write,
// and the families that come with them go into the book.
type intake struct {
	Database
	refused *prometheus.CounterVec
}

func newIntake(db Database, reg prometheus.Registerer) intake {
	i := intake{db, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "perch_promapi_written_samples_refused_total", Help: "Samples of remote write and OTLP that were not stored while the rest of their request was, by door and reason."}, []string{"door", "reason"})}
	reg.MustRegister(i.refused)
	return i
}

// taking is one request that writes.
type taking struct {
	door string // write or otlp
	into string // the only namespace; empty: any
	skip bool   // what the store refuses is left out; else the handler is told

	mu       sync.Mutex // guards what follows
	refused  map[string]int
	first    string // what was refused first
	families map[family.Source]map[family.Family]bool
}

type takingKey struct{}

// manyFamilies of one request are kept.
const manyFamilies = 20_000

func (t *taking) learn(l labels.Labels, name string, m metadata.Metadata) {
	if m.IsEmpty() {
		return
	}
	t.tell(family.Source{Namespace: l.Get("namespace"), Job: l.Get("job")}, family.Family{Name: name, Type: m.Type, Help: m.Help, Unit: m.Unit})
}

func (t *taking) tell(s family.Source, f family.Family) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.families == nil {
		t.families = map[family.Source]map[family.Family]bool{}
	}
	if t.families[s] == nil {
		t.families[s] = map[family.Family]bool{}
	}
	if len(t.families[s]) < manyFamilies {
		f.Name, f.Help, f.Unit = strings.Clone(f.Name), strings.Clone(f.Help), strings.Clone(f.Unit)
		t.families[s][f] = true
	}
}

// told is what the request said of families.
func (t *taking) told(book *family.Book) {
	if book == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for s, set := range t.families {
		book.Learn(time.Now(), family.Told{Source: s, Families: slices.Collect(maps.Keys(set))})
	}
}

// lost is how many samples were refused, and why, for people.
func (t *taking) lost() (int, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	var why []string
	for _, reason := range slices.Sorted(maps.Keys(t.refused)) {
		n += t.refused[reason]
		why = append(why, fmt.Sprintf("%s %d", reason, t.refused[reason]))
	}
	if n == 0 {
		return 0, ""
	}
	return n, fmt.Sprintf("%d samples were not stored, all others were: %s; the first: %s", n, strings.Join(why, ", "), t.first)
}

func (t *taking) refuse(reason, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused == nil {
		t.refused = map[string]int{}
	}
	t.refused[reason]++
	if t.first == "" {
		t.first = what
	}
}

// ofResource are the attributes of OTLP that say where something ran, as labels,
// and the labels that say so everywhere else.
var ofResource = [][2]string{{"k8s_namespace_name", "namespace"}, {"k8s_pod_name", "pod"}, {"k8s_container_name", "container"}, {"k8s_node_name", "node"}}

// labels are those that a series is stored with.
func (t *taking) labels(l labels.Labels) labels.Labels {
	var b *labels.Builder
	for _, x := range ofResource {
		v := ""
		if t.door == doorOTLP {
			v = l.Get(x[0])
		}
		if v == "" {
			continue
		}
		if b == nil {
			b = labels.NewBuilder(l)
		}
		if b.Del(x[0]); l.Get(x[1]) == "" {
			b.Set(x[1], v)
		}
	}
	if have := l.Get("namespace"); t.into != "" && have != t.into {
		if b == nil {
			b = labels.NewBuilder(l)
		}
		if said := b.Get("namespace"); said != "" && said != t.into {
			b.Set("exported_namespace", said)
		}
		b.Set("namespace", t.into)
	}
	if b == nil {
		return l
	}
	return b.Labels()
}

// errReserved refuses what a namespace says of alerts: it is what they are after a
// restart.
var errReserved = errors.New("only rules write series of this name")

// may answers whether a series may be written.
func (t *taking) may(l labels.Labels) error {
	if name := l.Get(labels.MetricName); t.into != "" && (name == "ALERTS" || name == "ALERTS_FOR_STATE") {
		return errReserved
	}
	return nil
}

// reasonOf says why the store refuses a sample, if only this one; empty: it refuses
// all.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, store.ErrSeriesLimit):
		return "series_limit"
	case errors.Is(err, errReserved):
		return "reserved_name"
	case errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrTooOldSample):
		return "too_old"
	case errors.Is(err, storage.ErrOutOfOrderSample):
		return "out_of_order"
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return "conflict"
	}
	if invalid := (histogram.Error{}); errors.As(err, &invalid) {
		return invalidHistogram
	}
	return ""
}

// result is what a handler is told of an append.
func (i intake) result(t *taking, ref storage.SeriesRef, l labels.Labels, at int64, err error) (storage.SeriesRef, error) {
	if err == nil {
		return ref, nil
	}
	reason := reasonOf(err)
	if reason == "" {
		return ref, err
	}
	if t.skip {
		i.refuse(t, reason, fmt.Sprintf("%s at %s: %s", l, time.UnixMilli(at).UTC().Format(time.RFC3339), err))
		return ref, nil
	}
	i.refused.WithLabelValues(t.door, reason).Inc()
	if reason == "series_limit" || reason == "reserved_name" {
		// Of the next version of remote write, whose handler stores the rest of a
		// request only after errors that it knows.
		return ref, fmt.Errorf("%w: %w", err, storage.ErrOutOfBounds)
	}
	return ref, err
}

// Appender implements storage.Appendable.
func (i intake) Appender(ctx context.Context) storage.Appender {
	app := i.Database.Appender(ctx)
	t, ok := ctx.Value(takingKey{}).(*taking)
	if !ok {
		return app
	}
	return written{app, i, t}
}

// AppenderV2 implements storage.AppendableV2.
func (i intake) AppenderV2(ctx context.Context) storage.AppenderV2 {
	app := i.Database.AppenderV2(ctx)
	t, ok := ctx.Value(takingKey{}).(*taking)
	if !ok {
		return app
	}
	return writtenV2{app, i, t}
}

type written struct {
	storage.Appender
	intake intake
	taking *taking
}

func (w written) Append(ref storage.SeriesRef, l labels.Labels, at int64, v float64) (storage.SeriesRef, error) {
	l = w.taking.labels(l)
	if err := w.taking.may(l); err != nil {
		return w.intake.result(w.taking, 0, l, at, err)
	}
	ref, err := w.Appender.Append(ref, l, at, v)
	return w.intake.result(w.taking, ref, l, at, err)
}

func (w written) AppendHistogram(ref storage.SeriesRef, l labels.Labels, at int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	l = w.taking.labels(l)
	if err := w.taking.may(l); err != nil {
		return w.intake.result(w.taking, 0, l, at, err)
	}
	ref, err := w.Appender.AppendHistogram(ref, l, at, h, fh)
	return w.intake.result(w.taking, ref, l, at, err)
}

func (w written) AppendExemplar(ref storage.SeriesRef, l labels.Labels, e exemplar.Exemplar) (storage.SeriesRef, error) {
	return w.Appender.AppendExemplar(ref, w.taking.labels(l), e)
}

// UpdateMetadata keeps it in the book only: in the store it would be there once for
// each series.
func (w written) UpdateMetadata(ref storage.SeriesRef, l labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	l = w.taking.labels(l)
	w.taking.learn(l, base(l.Get(labels.MetricName), string(m.Type)), m)
	return ref, nil
}

type writtenV2 struct {
	storage.AppenderV2
	intake intake
	taking *taking
}

func (w writtenV2) Append(ref storage.SeriesRef, l labels.Labels, st, at int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	l = w.taking.labels(l)
	if err := w.taking.may(l); err != nil {
		return w.intake.result(w.taking, 0, l, at, err)
	}
	w.taking.learn(l, opts.MetricFamilyName, opts.Metadata)
	ref, err := w.AppenderV2.Append(ref, l, st, at, v, h, fh, opts)
	return w.intake.result(w.taking, ref, l, at, err)
}
