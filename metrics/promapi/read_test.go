package promapi

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
)

// TestRemoteReadSeesOnlyTheCallersNamespaces, in both forms of the answer.
func TestRemoteReadSeesOnlyTheCallersNamespaces(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	read := func(who Access, form prompb.ReadRequest_ResponseType, ms ...*prompb.LabelMatcher) (places []string) {
		t.Helper()
		ask := prompb.ReadRequest{AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{form}, Queries: []*prompb.Query{{
			StartTimestampMs: at.UnixMilli() - 120_000, EndTimestampMs: at.UnixMilli(),
			Matchers: append(ms, &prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "use"})}}}
		raw, err := ask.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(snappy.Encode(nil, raw)))
		r.Header.Set("Content-Type", "application/x-protobuf")
		r.Header.Set("Content-Encoding", "snappy")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), who)))
		if w.Code != http.StatusOK {
			t.Fatal(w.Code, w.Body)
		}
		add := func(labels []prompb.Label) {
			for _, l := range labels {
				if l.Name == "namespace" || l.Name == "node" {
					places = append(places, l.Value)
				}
			}
		}
		if form == prompb.ReadRequest_STREAMED_XOR_CHUNKS {
			chunks := remote.NewChunkedReader(w.Body, 1<<20, nil)
			for {
				var some prompb.ChunkedReadResponse
				if chunks.NextProto(&some) != nil {
					break
				}
				for _, s := range some.ChunkedSeries {
					add(s.Labels)
				}
			}
		} else {
			plain, err := snappy.Decode(nil, w.Body.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			var all prompb.ReadResponse
			if err := all.Unmarshal(plain); err != nil {
				t.Fatal(err)
			}
			for _, s := range all.Results[0].Timeseries {
				add(s.Labels)
			}
		}
		slices.Sort(places)
		return places
	}
	blue := &prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: "namespace", Value: "blue"}
	for _, form := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES, prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
		if got := read(Everything(), form); !slices.Equal(got, []string{"blue", "n1", "red"}) {
			t.Errorf("%s: everything is %v", form, got)
		}
		if got := read(Access{Namespaces: []string{"red"}}, form); !slices.Equal(got, []string{"red"}) {
			t.Errorf("%s: red sees %v", form, got)
		}
		if got := read(Access{Namespaces: []string{"red"}}, form, blue); len(got) > 0 {
			t.Errorf("%s: red asks for blue and gets %v", form, got)
		}
	}
}
