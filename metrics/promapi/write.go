package promapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"

	"perch/metrics/family"
)

// The doors by which samples are written, in metrics.
const (
	doorWrite = "write"
	doorOTLP  = "otlp"
)

// writes looks after requests that write samples: into which namespace they go,
// which families they bring, and what is told of samples that the store refuses.
//
//	remote write 1: 400 that names the first and counts all by reason; senders do
//	  not send such a request again. The rest of it is stored.
//	remote write 2: as its own handler tells it; series with exemplars alone, which
//	  that refuses, are stored here
//	OTLP: 200 with a partial success; so are metrics that cannot be kept at all
func (a *API) writes(book *family.Book, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &taking{into: AccessOf(r.Context()).Into}
		switch {
		case r.Method != http.MethodPost:
			next.ServeHTTP(w, r)
			return
		case r.URL.Path == "/api/v1/write":
			t.door, t.skip = doorWrite, !strings.Contains(r.Header.Get("Content-Type"), "io.prometheus.write.v2.Request")
		case r.URL.Path == "/api/v1/otlp/v1/metrics":
			t.door, t.skip = doorOTLP, true
		default:
			next.ServeHTTP(w, r)
			return
		}
		defer t.told(book)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		ctx := context.WithValue(r.Context(), takingKey{}, t)
		if t.door == doorOTLP {
			a.otlp(w, r.WithContext(ctx), body, t, next)
			return
		}
		raw := unpacked(body)
		if writeRequest().left(raw, maxDecoded) < 0 {
			http.Error(w, errHeavy.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		var apart []traced
		if t.skip {
			t.messages(raw)
			if rest, some := a.in.takeApart(t, raw, time.Now()); some {
				r.Body = io.NopCloser(bytes.NewReader(snappy.Encode(nil, rest)))
			}
		} else if raw, apart = takeTraced(raw); len(apart) > 0 {
			r.Body = io.NopCloser(bytes.NewReader(snappy.Encode(nil, raw)))
		}
		rec := &answer{header: w.Header(), code: http.StatusOK}
		next.ServeHTTP(rec, r.WithContext(ctx))
		if len(apart) > 0 { // behind the samples of their series
			n, err := a.in.keepTraced(ctx, apart)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			addWritten(rec.header, n)
		}
		if _, why := t.lost(); why != "" && rec.code/100 == 2 {
			http.Error(w, why, http.StatusBadRequest)
			return
		}
		rec.send(w)
	})
}

// unpacked is a body of remote write; nothing when it is malformed or larger than the
// library's handler takes, which tells of both.
func unpacked(body []byte) []byte {
	if n, err := snappy.DecodedLen(body); err != nil || n > maxBatch {
		return nil
	}
	b, err := snappy.Decode(nil, body)
	if err != nil {
		return nil
	}
	return b
}

// messages learns what remote write 1 tells of families, beside the series. The
// handler, which does not look at it, tells of what is malformed.
func (t *taking) messages(b []byte) {
	const metadataField = 3
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		if number != metadataField || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return
			}
			b = b[n:]
			continue
		}
		one, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return
		}
		b = b[n:]
		var m prompb.MetricMetadata
		if m.Unmarshal(one) != nil {
			return
		}
		t.tell(family.Source{Namespace: t.into}, family.Family{Name: m.MetricFamilyName, Type: model.MetricType(strings.ToLower(m.Type.String())), Help: m.Help, Unit: m.Unit})
	}
}

// otlp takes out what cannot be kept, and says so.
func (a *API) otlp(w http.ResponseWriter, r *http.Request, body []byte, t *taking, next http.Handler) {
	kind := r.Header.Get("Content-Type")
	req, err := remote.DecodeOTLPWriteRequest(r)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil { // the handler tells it in its words
		next.ServeHTTP(w, r)
		return
	}
	apart := a.in.takeApartOTLP(t, req.Metrics(), time.Now())
	left := leaveOut(req.Metrics())
	if apart > 0 || left.points > 0 || left.empty > 0 {
		whole, err := req.MarshalProto()
		if err != nil {
			http.Error(w, "write metrics: "+err.Error(), http.StatusInternalServerError)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(whole))
		r.Header.Set("Content-Type", "application/x-protobuf")
	}
	rec := &answer{header: w.Header(), code: http.StatusOK}
	next.ServeHTTP(rec, r)
	lost, why := t.lost()
	if rec.code/100 != 2 || lost+left.points == 0 {
		rec.send(w)
		return
	}
	answer := pmetricotlp.NewExportResponse()
	answer.PartialSuccess().SetRejectedDataPoints(int64(lost + left.points))
	answer.PartialSuccess().SetErrorMessage(strings.Join(append(left.why(), nonEmpty(why)...), "; "))
	w.Header().Set("Content-Type", kind)
	var out []byte
	if kind == "application/json" {
		out, err = answer.MarshalJSON()
	} else {
		out, err = answer.MarshalProto()
	}
	if err != nil {
		http.Error(w, "write answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(out) // the client is gone otherwise
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// leftOut is what was taken out of an OTLP request.
type leftOut struct {
	points int // of metrics whose numbers are differences, or of no temporality
	empty  int // metrics without a number: Prometheus' translation gives the whole request up for one
	names  []string
	more   int // metrics that are not named
}

// namedAtMost metrics an answer names.
const namedAtMost = 20

func (l *leftOut) why() []string {
	if l.points == 0 {
		return nil
	}
	text := strings.Join(l.names, ", ")
	if l.more > 0 {
		text += fmt.Sprintf(" and %d others", l.more)
	}
	return []string{fmt.Sprintf("%d data points were not stored, because these metrics do not have cumulative temporality: %s; set it in the exporter (OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative) or convert in a collector (deltatocumulative)", l.points, text)}
}

// leaveOut takes metrics out of md that cannot be kept: what a number of delta
// temporality adds to is known only to who has seen all of them, which a process that
// restarts has not.
func leaveOut(md pmetric.Metrics) (out leftOut) {
	for _, resource := range md.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			scope.Metrics().RemoveIf(func(m pmetric.Metric) bool {
				cumulative, n := shapeOf(m)
				switch {
				case n == 0:
					out.empty++
					return true
				case cumulative:
					return false
				}
				out.points += n
				if len(out.names) < namedAtMost {
					out.names = append(out.names, m.Name())
				} else {
					out.more++
				}
				return true
			})
		}
	}
	return out
}

// shapeOf answers whether a metric can be kept, and how many numbers it has.
func shapeOf(m pmetric.Metric) (cumulative bool, points int) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return true, m.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return true, m.Summary().DataPoints().Len()
	case pmetric.MetricTypeSum:
		return m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityCumulative, m.Sum().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return m.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityCumulative, m.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().AggregationTemporality() == pmetric.AggregationTemporalityCumulative, m.ExponentialHistogram().DataPoints().Len()
	}
	return true, 0
}
