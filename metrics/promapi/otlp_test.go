package promapi

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// within is a protobuf body of a field within a field …; the outermost is last.
func within(numbers ...protowire.Number) []byte {
	var reversed []byte
	for _, n := range numbers {
		head := protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.BytesType), uint64(len(reversed)))
		slices.Reverse(head)
		reversed = append(reversed, head...)
	}
	slices.Reverse(reversed)
	return reversed
}

// lists are an OTLP request with a value of lists within lists.
func lists(depth int) []byte {
	var numbers []protowire.Number
	for range depth {
		numbers = append(numbers, 1, 5) // values of an array, array of a value
	}
	return within(append(numbers, 2, 1, 1, 1)...) // value, attribute, resource, its metrics
}

func packed(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestOTLPThatIsTooDeepIsRefused(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	const proto, text = "application/x-protobuf", "application/json"
	for about, c := range map[string]struct {
		kind, encoding, body string
		code                 int
		say                  string
	}{
		"few lists":            {proto, "", string(lists(50)), http.StatusOK, ""},
		"few lists, packed":    {proto, "gzip", packed(t, lists(50)), http.StatusOK, ""},
		"too many":             {proto, "", string(lists(20_000)), http.StatusBadRequest, "within each other"},
		"too many, packed":     {proto, "gzip", packed(t, lists(2_000_000)), http.StatusBadRequest, "within each other"},
		"few, JSON":            {text, "", `{"resourceMetrics":[]}`, http.StatusOK, ""},
		"too many, JSON":       {text, "", strings.Repeat(`[`, 20_000) + strings.Repeat(`]`, 20_000), http.StatusBadRequest, "too deep"},
		"not packed":           {proto, "gzip", "plain", http.StatusBadRequest, "unpack body"},
		"too large, unpacked":  {proto, "gzip", packed(t, make([]byte, maxBatch+1)), http.StatusBadRequest, "when unpacked"},
		"an encoding unknown":  {proto, "br", "x", http.StatusBadRequest, "compression"},
		"a content type of no": {"text/plain", "", "x", http.StatusBadRequest, "content type"},
	} {
		req := httptest.NewRequest(http.MethodPost, "/api/v1/otlp/v1/metrics", strings.NewReader(c.body))
		req.Header.Set("Content-Type", c.kind)
		if c.encoding != "" {
			req.Header.Set("Content-Encoding", c.encoding)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, req.WithContext(WithAccess(req.Context(), Everything())))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.say) {
			t.Errorf("%s: %d %.200s, want %d and %q", about, w.Code, w.Body, c.code, c.say)
		}
	}
}
