package promapi

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"google.golang.org/protobuf/encoding/protowire"
)

// Prometheus' handlers of remote write 1 and of OTLP look at some things before the
// appender is asked, and give the whole request up for one of them. They are taken out
// of the request before, counted and told as what the store refuses.

// maxAhead is how far ahead of the clock the handlers take a sample.
const maxAhead = 10 * time.Minute

// The reasons, in metrics and answers.
const (
	tooNew           = "too_new"
	invalidHistogram = "invalid_histogram"
	invalidName      = "invalid_name"
)

// refuse counts one number and keeps it for the answer.
func (i intake) refuse(t *taking, reason, what string) {
	i.refused.WithLabelValues(t.door, reason).Inc()
	t.refuse(reason, what)
}

// takeApart takes them out of a request of remote write 1, which is left as it is when
// there are none. What cannot be read stays in it: the handler tells of it.
func (i intake) takeApart(t *taking, raw []byte, now time.Time) (rest []byte, some bool) {
	const seriesField, samples, histograms = 1, 2, 4
	latest := now.Add(maxAhead).UnixMilli()
	wrong := func(n protowire.Number, text []byte) (reason, why string) {
		switch n {
		case samples:
			return ahead(text, 2, latest)
		case histograms:
			if reason, why = ahead(text, 15, latest); reason == "" {
				reason, why = coarse(text)
			}
		}
		return reason, why
	}
	each(raw, func(n protowire.Number, _, series []byte) {
		if n == seriesField && !some {
			each(series, func(n protowire.Number, _, text []byte) {
				reason, _ := wrong(n, text)
				some = some || reason != ""
			})
		}
	})
	if !some {
		return raw, false
	}
	each(raw, func(n protowire.Number, whole, series []byte) {
		if n != seriesField {
			rest = append(rest, whole...)
			return
		}
		kept, name := make([]byte, 0, len(series)), ""
		each(series, func(n protowire.Number, whole, text []byte) {
			reason, why := wrong(n, text)
			if reason == "" {
				kept = append(kept, whole...)
				return
			}
			if name == "" {
				name = nameOf(series)
			}
			i.refuse(t, reason, name+why)
		})
		rest = protowire.AppendBytes(protowire.AppendTag(rest, seriesField, protowire.BytesType), kept)
	})
	return rest, true
}

// nameOf is a series of remote write 1 as people read it.
func nameOf(series []byte) string {
	var s prompb.TimeSeries
	if s.Unmarshal(series) != nil {
		return "a series"
	}
	out := "{"
	for n, l := range s.Labels {
		if n > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%s=%q", l.Name, l.Value)
	}
	return out + "}"
}

// ahead answers whether the time in a field is later than the latest.
func ahead(text []byte, field protowire.Number, latest int64) (reason, why string) {
	var at int64
	each(text, func(n protowire.Number, whole, _ []byte) {
		if n == field {
			at = number(whole)
		}
	})
	if at <= latest {
		return "", ""
	}
	return tooNew, " at " + time.UnixMilli(at).UTC().Format(time.RFC3339) + ": further ahead of the server's clock than " + maxAhead.String()
}

// coarse answers whether a histogram of a resolution that is made coarser first cannot
// be.
func coarse(text []byte) (reason, why string) {
	const schemaField = 4
	var schema int64
	each(text, func(n protowire.Number, whole, _ []byte) {
		if n == schemaField {
			schema = protowire.DecodeZigZag(uint64(number(whole)))
		}
	})
	if schema <= int64(histogram.ExponentialSchemaMax) || !histogram.IsExponentialSchemaReserved(int32(schema)) {
		return "", ""
	}
	var h prompb.Histogram
	if h.Unmarshal(text) != nil {
		return "", ""
	}
	var err error
	if h.IsFloatHistogram() {
		err = h.ToFloatHistogram().ReduceResolution(histogram.ExponentialSchemaMax)
	} else {
		err = h.ToIntHistogram().ReduceResolution(histogram.ExponentialSchemaMax)
	}
	if err == nil {
		return "", ""
	}
	return invalidHistogram, ": " + err.Error()
}

// number is that of a field with its tag; 0 when it has none.
func number(whole []byte) int64 {
	_, kind, n := protowire.ConsumeTag(whole)
	if n < 0 || kind != protowire.VarintType {
		return 0
	}
	v, _ := protowire.ConsumeVarint(whole[n:]) // each has looked
	return int64(v)
}

// dataPoint is what all data points of OTLP have.
type dataPoint interface {
	Timestamp() pcommon.Timestamp
	Attributes() pcommon.Map
}

// nameless answers whether nothing of a name stays in a series: letters, digits and
// what else, if any, is kept of ASCII.
func nameless(name, also string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(also, c)
	})
}

func namelessKey(key string, _ pcommon.Value) bool { return nameless(key, "") }

// takeApartOTLP takes them out of md, and says how many numbers. Attributes without a
// name are left out where they are a resource's or a scope's; a number with one is
// refused, since without it it may be another's.
func (i intake) takeApartOTLP(t *taking, md pmetric.Metrics, now time.Time) (n int) {
	latest := now.Add(maxAhead).UnixMilli()
	for _, resource := range md.ResourceMetrics().All() {
		resource.Resource().Attributes().RemoveIf(namelessKey)
		for _, scope := range resource.ScopeMetrics().All() {
			scope.Scope().Attributes().RemoveIf(namelessKey)
			for _, m := range scope.Metrics().All() {
				wrong := func(p dataPoint) bool {
					for key, v := range p.Attributes().All() {
						if namelessKey(key, v) {
							i.refuse(t, invalidName, fmt.Sprintf("%s: an attribute is named %q, of which nothing can be a label's name", m.Name(), key))
							n++
							return true
						}
					}
					at := int64(p.Timestamp()) / int64(time.Millisecond) // as the handler's own
					switch e, exponential := p.(pmetric.ExponentialHistogramDataPoint); {
					case at > latest:
						i.refuse(t, tooNew, fmt.Sprintf("%s at %s: further ahead of the server's clock than %s", m.Name(), time.UnixMilli(at).UTC().Format(time.RFC3339), maxAhead))
					case nameless(m.Name(), ":"):
						i.refuse(t, invalidName, fmt.Sprintf("a metric is named %q, of which nothing can be a series' name", m.Name()))
					case exponential && e.Scale() < histogram.ExponentialSchemaMin:
						i.refuse(t, invalidHistogram, fmt.Sprintf("%s: its scale is %d, the least is %d", m.Name(), e.Scale(), histogram.ExponentialSchemaMin))
					default:
						return false
					}
					n++
					return true
				}
				switch m.Type() {
				case pmetric.MetricTypeGauge:
					m.Gauge().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return wrong(p) })
				case pmetric.MetricTypeSum:
					m.Sum().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return wrong(p) })
				case pmetric.MetricTypeSummary:
					m.Summary().DataPoints().RemoveIf(func(p pmetric.SummaryDataPoint) bool { return wrong(p) })
				case pmetric.MetricTypeHistogram:
					m.Histogram().DataPoints().RemoveIf(func(p pmetric.HistogramDataPoint) bool { return wrong(p) })
				case pmetric.MetricTypeExponentialHistogram:
					m.ExponentialHistogram().DataPoints().RemoveIf(func(p pmetric.ExponentialHistogramDataPoint) bool { return wrong(p) })
				}
			}
		}
	}
	return n
}
