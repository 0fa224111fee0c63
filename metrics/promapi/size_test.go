package promapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAQueryThatWouldKeepTheParserBusyIsRefused(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	deep := func(open, end string, n int) string { return strings.Repeat(open, n) + "1" + strings.Repeat(end, n) }
	cases := map[string]struct {
		query string
		code  int
	}{
		"nested as people do":          {deep("(", ")", 50), 200},
		"parentheses in a string":      {`count_values("` + strings.Repeat("(", 500) + `\"", vector(1))`, 200},
		"parentheses in a comment":     {"1 # " + strings.Repeat("(", 500), 200},
		"the longest sum":              {strings.Repeat("1+", maxSigns) + "1", 200},
		"a longer sum":                 {strings.Repeat("1+", maxSigns+1) + "1", 400},
		"the longest union":            {strings.Repeat("a or ", maxSigns) + "a", 200},
		"a longer union":               {strings.Repeat("a OR ", maxSigns+1) + "a", 400},
		"deeper than anybody writes":   {deep("(", ")", 101), 400},
		"deep functions":               {deep("abs(", ")", 5000), 400},
		"signs without end":            {strings.Repeat("-", 30_000) + "1", 400},
		"signs with spaces in between": {strings.Repeat("- ", 15_000) + "1", 400},
		"a megabyte":                   {strings.Repeat(" ", 1<<20) + "1", 400},
	}
	for name, c := range cases {
		began := time.Now()
		code, text := get(t, api, Everything(), "/api/v1/query", "query", c.query)
		if code != c.code || !strings.Contains(text, `"status"`) {
			t.Errorf("%s: %d %.200s", name, code, text)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("%s took %s", name, took)
		}
	}
	if code, _ := get(t, api, Everything(), "/federate", "match[]", deep("(", ")", 200)); code != 400 {
		t.Errorf("federate: %d", code)
	}
}

func TestABatchOfSamplesMayBeLargerThanAQuery(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	otlp := func(metrics int) string {
		one := `{"name":"m","gauge":{"dataPoints":[{"asDouble":1,"timeUnixNano":"` + strconv.FormatInt(time.Now().UnixNano(), 10) + `","attributes":[{"key":"i","value":{"stringValue":"%d"}}]}]}}`
		var all []string
		for i := range metrics {
			all = append(all, fmt.Sprintf(one, i))
		}
		return `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[` + strings.Join(all, ",") + `]}]}]}`
	}
	for _, tc := range []struct {
		about, path, kind, body string
		want                    int
	}{
		{"two megabytes of OTLP", "/api/v1/otlp/v1/metrics", "application/json", otlp(15_000), http.StatusOK},
		{"too much of remote write", "/api/v1/write", "application/x-protobuf", strings.Repeat(" ", maxBatch+1), http.StatusBadRequest},
	} {
		req := httptest.NewRequest(http.MethodPost, tc.path, strings.NewReader(tc.body))
		req.Header.Set("Content-Type", tc.kind)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, req.WithContext(WithAccess(req.Context(), Everything())))
		if w.Code != tc.want {
			t.Errorf("%s, %d bytes: %d, want %d: %.200s", tc.about, len(tc.body), w.Code, tc.want, w.Body)
		}
	}
}
