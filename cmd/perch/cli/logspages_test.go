package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// What is told of any page, or of what stands around any line, is told at the end.
func TestWhatOnePageLacksIsToldAtTheEnd(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		end := `{"partial":false,"missing":[],"hidden":[],"cursor":"%d.x"}`
		switch {
		case r.URL.Path == "/logs/api/v1/context" && asked == 2:
			end = `{"partial":true,"reason":"not all nodes answered","missing":["n2"],"hidden":[]}`
		case r.URL.Path == "/logs/api/v1/context":
			end = `{"partial":false,"missing":[],"hidden":[]}`
		case asked == 1:
			end = `{"partial":true,"reason":"time is up","missing":["n1"],"hidden":["bank"],"cursor":"%d.x"}`
		case asked == 3:
			end = `{"partial":false,"missing":[],"hidden":["bank"]}`
		}
		fmt.Fprintf(w, `{"time":"2026-01-01T00:00:0%dZ","id":"%d","line":"x"}`+"\n", asked, asked)
		fmt.Fprintln(w, strings.Replace(end, "%d", fmt.Sprint(asked), 1))
	}))
	defer srv.Close()
	base, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	w := &web{base: base, client: srv.Client()}
	told := func(last trailer) string {
		var out strings.Builder
		tellTrailer(&out, last)
		return out.String()
	}
	check := func(what string, last trailer, err error, want ...string) {
		t.Helper()
		text := told(last)
		for _, part := range want {
			if strings.Count(text, part) != 1 {
				t.Errorf("%s: %q is not told: %s", what, part, text)
			}
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	p := newPrinter(&bytes.Buffer{}, logsOptions{}, nil)
	last, err := printAll(t.Context(), w, url.Values{}, p)
	check("all", last, err, "without n1", "time is up", "1 namespaces are not visible to you: bank")
	asked = 0
	_, last, err = fetchNewest(t.Context(), w, url.Values{}, 3)
	check("newest", last, err, "without n1", "time is up", "bank")
	asked = 1
	_, last, err = withContext(t.Context(), w, []line{{ID: "1"}, {ID: "2"}}, 3)
	check("context", last, err, "without n2")
}
