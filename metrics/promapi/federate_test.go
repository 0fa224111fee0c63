package promapi

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"perch/metrics/store"
)

// federated asks as Prometheus does when it takes native histograms, or as who
// takes text; it returns the histograms and the text of all else.
func federatedTo(t *testing.T, api *API, accept string) (kind string, whole map[string]*histogram.FloatHistogram, gauges map[string]bool, others string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/federate?match[]={__name__=~%22.%2B%22}", nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, req.WithContext(WithAccess(req.Context(), Everything())))
	kind = w.Header().Get("Content-Type")
	p, err := textparse.New(w.Body.Bytes(), kind, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	whole, gauges = map[string]*histogram.FloatHistogram{}, map[string]bool{}
	var text strings.Builder
	for {
		switch e, err := p.Next(); {
		case errors.Is(err, io.EOF):
			return kind, whole, gauges, text.String()
		case err != nil:
			t.Fatalf("%v in %q", err, w.Body)
		case e == textparse.EntryHistogram:
			_, _, h, fh := p.Histogram()
			if h != nil {
				fh = h.ToFloat(nil)
			}
			var l labels.Labels
			p.Labels(&l)
			whole[l.Get("__name__")], gauges[l.Get("__name__")] = fh, fh.CounterResetHint == histogram.GaugeType
		case e == textparse.EntrySeries:
			series, _, v := p.Series()
			fmt.Fprintln(&text, string(series), v)
		}
	}
}

func TestFederateGivesNativeHistogramsToWhoTakesProtobuf(t *testing.T) {
	api, s := newAPI(t, Parts{})
	now := time.Now().UnixMilli()
	named := func(name string) labels.Labels { return labels.FromStrings("__name__", name, "namespace", "red") }
	whole, gauge, own := tsdbutil.GenerateTestHistogram(3), tsdbutil.GenerateTestGaugeFloatHistogram(4), tsdbutil.GenerateTestCustomBucketsHistogram(5)
	stale := &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	batch := store.Batch{Samples: []store.Sample{{Labels: named("number"), T: now - 20, V: 7}, {Labels: named("changed"), T: now - 30, V: 7}},
		Histograms: []store.Histogram{{Labels: named("took"), T: now - 20, H: whole}, {Labels: named("queue"), T: now - 20, FH: gauge}, {Labels: named("own"), T: now - 20, H: own},
			{Labels: named("gone"), T: now - 30, H: whole.Copy()}, {Labels: named("gone"), T: now - 20, H: stale}, {Labels: named("changed"), T: now - 20, H: whole.Copy()}}}
	if done, err := s.Inlet("t").AppendAll(t.Context(), batch); err != nil || done.Refused > 0 {
		t.Fatal(done, err)
	}
	kind, got, gauges, others := federatedTo(t, api, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2")
	if !strings.HasPrefix(kind, "application/vnd.google.protobuf") || len(got) != 3 || !got["took"].Equals(whole.ToFloat(nil)) || !got["changed"].Equals(whole.ToFloat(nil)) || !got["queue"].Equals(gauge) || !gauges["queue"] || gauges["took"] {
		t.Errorf("%s: %v, gauges %v", kind, got, gauges)
	}
	for _, want := range []string{"number", "own_count", "own_bucket"} {
		if !strings.Contains(others, want) {
			t.Errorf("no %s in\n%s", want, others)
		}
	}
	kind, got, _, others = federatedTo(t, api, "*/*")
	if !strings.HasPrefix(kind, "text/plain") || len(got) != 0 {
		t.Errorf("%s: %v", kind, got)
	}
	for _, want := range []string{`own_bucket{namespace="red",instance="",le="+Inf"}`, "own_count", "own_sum", "number"} {
		if !strings.Contains(others, want) {
			t.Errorf("no %s in\n%s", want, others)
		}
	}
	for _, no := range []string{"took", "queue", "gone", "changed"} {
		if strings.Contains(others, no) {
			t.Errorf("%s is in\n%s", no, others)
		}
	}
}
