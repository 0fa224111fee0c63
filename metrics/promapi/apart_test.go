package promapi

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// One machine whose clock is ahead loses nothing of twenty others in its request, nor
// does a histogram that cannot be.
func TestWhatIsAheadOrInvalidIsRefusedAlone(t *testing.T) {
	const refused = "perch_promapi_written_samples_refused_total"
	start := func(t *testing.T) (*API, *prometheus.Registry) {
		t.Helper()
		reg := prometheus.NewRegistry()
		_, st := newAPI(t, Parts{})
		api, err := New(Default(), Parts{Store: st}, slog.New(slog.DiscardHandler), reg)
		if err != nil {
			t.Fatal(err)
		}
		return api, reg
	}
	ahead := time.Now().Add(time.Hour)
	want := []string{`{__name__="good"} 1`, `{__name__="mixed"} 2`}
	t.Run("remote write 1", func(t *testing.T) {
		api, reg := start(t)
		invalid := func(schema int32) prompb.Histogram { // more buckets are told than come
			return prompb.Histogram{Count: &prompb.Histogram_CountInt{CountInt: 4}, ZeroCount: &prompb.Histogram_ZeroCountInt{}, Schema: schema, Timestamp: at.UnixMilli(),
				PositiveSpans: []prompb.BucketSpan{{Length: 3}}, PositiveDeltas: []int64{1}}
		}
		late := prompb.FromIntHistogram(ahead.UnixMilli(), &histogram.Histogram{})
		s := func(name string, h ...prompb.Histogram) prompb.TimeSeries {
			x := seriesV1(name, "")
			x.Histograms = h
			return x
		}
		w := writeV1(t, api, Everything(), prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
			seriesV1("jumped", "", prompb.Sample{Value: 7, Timestamp: ahead.UnixMilli()}),
			seriesV1("mixed", "", prompb.Sample{Value: 2, Timestamp: at.UnixMilli()}, prompb.Sample{Value: 7, Timestamp: ahead.UnixMilli()}),
			s("h", invalid(0)), s("fine", invalid(12)), s("later", late), seriesV1("good", "", prompb.Sample{Value: 1, Timestamp: at.UnixMilli()}),
		}})
		for _, say := range []string{"5 samples were not stored, all others were: invalid_histogram 2, too_new 3", `__name__="jumped"`, "ahead of the server's clock"} {
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), say) {
				t.Errorf("%d %s, want %q", w.Code, w.Body, say)
			}
		}
		if got := ask(t, api, `{__name__=~"good|mixed|jumped|h|fine|later"}`, at); !slices.Equal(got, want) {
			t.Errorf("stored %v, want %v", got, want)
		}
		if got := count(t, reg, refused); got != 5 {
			t.Errorf("%g were counted, want 5", got)
		}
	})
	t.Run("OTLP", func(t *testing.T) {
		api, reg := start(t)
		md := pmetric.NewMetrics()
		s := resource(md)
		gauge(s, "jumped", 7).Gauge().DataPoints().At(0).SetTimestamp(pcommon.NewTimestampFromTime(ahead))
		p := gauge(s, "mixed", 2).Gauge().DataPoints().AppendEmpty()
		p.SetTimestamp(pcommon.NewTimestampFromTime(ahead))
		exponential := func(name string, scale int32, n uint64) {
			m := s.Metrics().AppendEmpty()
			m.SetName(name)
			m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			p := m.ExponentialHistogram().DataPoints().AppendEmpty()
			p.SetTimestamp(pcommon.NewTimestampFromTime(at))
			p.SetScale(scale)
			p.SetCount(n)
			p.Positive().BucketCounts().FromRaw([]uint64{1, 1, 1})
		}
		exponential("h", 0, 1) // its buckets have three
		exponential("fine", -8, 3)
		gauge(s, "good", 1)
		w := writeOTLP(t, api, Everything(), md)
		answer := pmetricotlp.NewExportResponse()
		if err := answer.UnmarshalProto(w.Body.Bytes()); err != nil || w.Code != http.StatusOK {
			t.Fatal(w.Code, w.Body, err)
		}
		if p := answer.PartialSuccess(); p.RejectedDataPoints() != 4 || !strings.Contains(p.ErrorMessage(), "invalid_histogram 2, too_new 2") || !strings.Contains(p.ErrorMessage(), "jumped") {
			t.Errorf("%d %s", p.RejectedDataPoints(), p.ErrorMessage())
		}
		if got := ask(t, api, `{__name__=~"good|mixed|jumped|h|fine"}`, at); !slices.Equal(got, want) {
			t.Errorf("stored %v, want %v", got, want)
		}
		if got := count(t, reg, refused); got != 4 {
			t.Errorf("%g were counted, want 4", got)
		}
	})
}

// Names of which nothing stays, as those in other letters, do not lose what comes with them.
func TestOfOTLPWhatHasNoNameIsRefusedAlone(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	md := pmetric.NewMetrics()
	s := resource(md)
	md.ResourceMetrics().At(0).Resource().Attributes().PutStr("", "x")
	s.Scope().Attributes().PutStr("___", "x")
	for _, name := range []string{"", "___", "路径"} {
		gauge(s, name, 7)
	}
	for _, key := range []string{"", "__", "用户"} {
		p := gauge(s, "odd", 7).Gauge().DataPoints().AppendEmpty()
		p.SetTimestamp(pcommon.NewTimestampFromTime(at))
		p.Attributes().PutStr(key, "x")
		p.SetDoubleValue(8)
	}
	gauge(s, "good", 1)
	gauge(s, "größe", 2)
	w := writeOTLP(t, api, Everything(), md)
	answer := pmetricotlp.NewExportResponse()
	if err := answer.UnmarshalProto(w.Body.Bytes()); err != nil || w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body, err)
	}
	if p := answer.PartialSuccess(); p.RejectedDataPoints() != 6 || !strings.Contains(p.ErrorMessage(), "invalid_name 6") {
		t.Errorf("%d %s", p.RejectedDataPoints(), p.ErrorMessage())
	}
	if got := ask(t, api, `{__name__=~"good|odd|gr.*"}`, at); len(got) != 3 || !slices.Contains(got, `{__name__="good"} 1`) {
		t.Errorf("stored %v", got)
	}
}
