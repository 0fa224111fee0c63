package promapi

import (
	"bytes"
	"context"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"
)

// around puts b into the field of a message that is in the field before, and so on.
func around(b []byte, way ...protowire.Number) []byte {
	for i := range way {
		b = protowire.AppendBytes(protowire.AppendTag(nil, way[len(way)-1-i], protowire.BytesType), b)
	}
	return b
}

// TestEmptyMessagesDoNotBecomeAGigabyte: two bytes each, which pack well.
func TestEmptyMessagesDoNotBecomeAGigabyte(t *testing.T) {
	api, _ := newAPI(t, Parts{QueryLog: func(context.Context, Finished) {}})
	many := func(n int, field protowire.Number) []byte {
		return bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), nil), n)
	}
	const n = 8 << 20
	const v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	write := []protowire.Number{1}
	for _, tc := range []struct {
		about, path, kind string
		body              []byte
	}{
		{"queries", "/api/v1/read", "", snappy.Encode(nil, many(n, 1))},
		{"queries that do not pack", "/api/v1/read", "", bytes.Repeat([]byte{7}, maxRead+1)},
		{"matchers", "/api/v1/read", "", snappy.Encode(nil, around(many(1<<18, 3), 1))},
		{"series", "/api/v1/write", "", snappy.Encode(nil, many(n, 1))},
		{"series before what is malformed", "/api/v1/write", "", snappy.Encode(nil, append(many(n, 1), 0xff))},
		{"labels", "/api/v1/write", "", snappy.Encode(nil, around(many(n, 1), write...))},
		{"samples", "/api/v1/write", "", snappy.Encode(nil, around(many(n, 2), write...))},
		{"histograms", "/api/v1/write", "", snappy.Encode(nil, around(many(n, 4), write...))},
		{"deltas of a histogram", "/api/v1/write", "", snappy.Encode(nil, around(make([]byte, n), 1, 4, 12))},
		{"metadata", "/api/v1/write", "", snappy.Encode(nil, many(n, 3))},
		{"symbols", "/api/v1/write", v2, snappy.Encode(nil, many(n, 4))},
		{"series of version 2", "/api/v1/write", v2, snappy.Encode(nil, many(n, 5))},
		{"references of version 2", "/api/v1/write", v2, snappy.Encode(nil, around(make([]byte, n), 5, 1))},
		{"resources", "/api/v1/otlp/v1/metrics", "application/x-protobuf", many(n, 1)},
		{"attributes of a resource", "/api/v1/otlp/v1/metrics", "application/x-protobuf", around(many(n, 1), 1, 1)},
		{"metrics", "/api/v1/otlp/v1/metrics", "application/x-protobuf", around(many(n, 2), 1, 2)},
		{"points", "/api/v1/otlp/v1/metrics", "application/x-protobuf", around(many(n, 1), 1, 2, 2, 5)},
		{"values in a list", "/api/v1/otlp/v1/metrics", "application/x-protobuf", around(many(n, 1), 1, 1, 1, 2, 5)},
		{"pairs in a value", "/api/v1/otlp/v1/metrics", "application/x-protobuf", around(many(n, 1), 1, 1, 1, 2, 6)},
		{"resources as JSON", "/api/v1/otlp/v1/metrics", "application/json", []byte(`{"resourceMetrics":[` + strings.Repeat("{},", n) + `{}]}`)},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		encoding := "snappy"
		if strings.HasSuffix(tc.path, "/metrics") {
			encoding = ""
		}
		w := post(t, api, Everything(), tc.path, tc.kind, encoding, tc.body)
		runtime.ReadMemStats(&after)
		if w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d %.200s", tc.about, w.Code, w.Body)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 200<<20 {
			t.Errorf("%s: takes %d MiB", tc.about, took>>20)
		}
	}
}

func TestALargeBatchIsTaken(t *testing.T) {
	var v1 prompb.WriteRequest
	v2 := writev2.Request{Symbols: []string{""}}
	md := pmetric.NewMetrics()
	metrics := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	for range 20_000 {
		var ls []prompb.Label
		var refs []uint32
		m := metrics.AppendEmpty()
		m.SetName("a_metric")
		point := m.SetEmptyGauge().DataPoints().AppendEmpty()
		for range 10 {
			ls = append(ls, prompb.Label{Name: "a_label", Value: "some value"})
			refs = append(refs, uint32(len(v2.Symbols)), uint32(len(v2.Symbols)))
			point.Attributes().PutStr(strings.Repeat("a", len(ls)), "some value")
		}
		v2.Symbols = append(v2.Symbols, "some value")
		v1.Timeseries = append(v1.Timeseries, prompb.TimeSeries{Labels: ls, Samples: []prompb.Sample{{Value: 1.5, Timestamp: 1_700_000_000_000}}})
		v2.Timeseries = append(v2.Timeseries, writev2.TimeSeries{LabelsRefs: refs, Samples: []writev2.Sample{{Value: 1.5, Timestamp: 1_700_000_000_000}}})
	}
	one, err := v1.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	two, err := v2.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	otlp, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	for what, left := range map[string]int{"version 1": writeRequest().left(one, maxDecoded), "version 2": writeRequest().left(two, maxDecoded), "OTLP": otlpRequest().left(otlp, maxDecoded)} {
		if left < 0 {
			t.Errorf("%s: 20,000 series with ten labels each are too many", what)
		}
	}
}
