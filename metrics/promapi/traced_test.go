package promapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"perch/metrics/store"
)

// TestExemplarsComeByVersionTwo apart from samples too, as Prometheus sends them.
func TestExemplarsComeByVersionTwo(t *testing.T) {
	api, s := newAPI(t, Parts{})
	if _, err := s.Inlet("t").Append(t.Context(), []store.Sample{{Labels: labels.FromStrings("__name__", "took", "namespace", "red"), T: ago(0), V: 1}}); err != nil {
		t.Fatal(err)
	}
	symbols := []string{"", "__name__", "took", "namespace", "red", "trace_id", "apart", "beside", "lost", "nameless"}
	series := func(refs []uint32, trace uint32, samples ...writev2.Sample) writev2.TimeSeries {
		return writev2.TimeSeries{LabelsRefs: refs, Samples: samples, Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{5, trace}, Value: float64(trace), Timestamp: ago(0) + int64(trace)}}}
	}
	red := []uint32{1, 2, 3, 4}
	shown := func(what ...string) {
		t.Helper()
		_, body := get(t, api, Everything(), "/api/v1/query_exemplars", "query", "took", "start", "0", "end", "9999999999")
		for _, text := range what {
			if !strings.Contains(body, text) {
				t.Errorf("no %s in %s", text, body)
			}
		}
	}
	for _, tc := range []struct {
		about   string
		series  []writev2.TimeSeries
		code    int
		written string
		shown   []string
	}{
		{"apart", []writev2.TimeSeries{series(red, 6)}, http.StatusNoContent, "1", []string{"apart"}},
		{"beside a sample", []writev2.TimeSeries{series(red, 7, writev2.Sample{Value: 2, Timestamp: ago(0) + 1000})}, http.StatusNoContent, "1", []string{"apart", "beside"}},
		{"of a series that is not known", []writev2.TimeSeries{series([]uint32{1, 8}, 8)}, http.StatusNoContent, "0", nil},
		{"of no series", []writev2.TimeSeries{series([]uint32{3, 4}, 9)}, http.StatusBadRequest, "0", nil},
		{"of symbols that are not there", []writev2.TimeSeries{series([]uint32{1, 99}, 9)}, http.StatusBadRequest, "0", nil},
		{"of a series without anything", []writev2.TimeSeries{{LabelsRefs: red}}, http.StatusBadRequest, "0", nil},
		{"of the same time again", []writev2.TimeSeries{series(red, 7)}, http.StatusNoContent, "1", []string{"apart", "beside"}},
	} {
		w := writeV2(t, api, Everything(), writev2.Request{Symbols: symbols, Timeseries: tc.series})
		if got := w.Header().Get(exemplarsWritten); w.Code != tc.code || got != tc.written {
			t.Errorf("%s: %d, %s written, %s", tc.about, w.Code, got, w.Body)
		}
		shown(tc.shown...)
	}
	raw := snappy.Encode(nil, []byte{0x2a, 0xff})
	if w := post(t, api, Everything(), "/api/v1/write", "application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", raw); w.Code != http.StatusBadRequest {
		t.Errorf("what is malformed: %d", w.Code)
	}
	// Into the caller's namespace, whatever they say.
	if w := writeV2(t, api, Access{Write: true, Into: "blue"}, writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{series(red, 6)}}); w.Code != http.StatusNoContent || w.Header().Get(exemplarsWritten) != "0" {
		t.Errorf("of another namespace: %d %s", w.Code, w.Header().Get(exemplarsWritten))
	}
}
