package cli

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestMatchersOfSilences(t *testing.T) {
	for text, want := range map[string]string{
		"PodCrashLoop":       `alertname="PodCrashLoop"`,
		"pod=web-1":          `pod="web-1"`,
		`pod="web 1"`:        `pod="web 1"`,
		"pod!=web-1":         `pod!="web-1"`,
		"pod=~web.*":         `pod=~"web.*"`,
		"pod!~web.*":         `pod!~"web.*"`,
		"pod=":               `pod=""`,
		"a=b=c":              `a="b=c"`,
		`summary=~"a, \"b\"`: "quotes do not match",
		"pod=~(":             "missing closing",
		"a b":                "write LABEL=VALUE",
		"1a=b":               "write LABEL=VALUE",
		"":                   "write LABEL=VALUE",
	} {
		m, err := parseMatcher(text)
		if err != nil {
			if !strings.Contains(err.Error(), want) || ExitCode(err) != 2 {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
			continue
		}
		if m.String() != want {
			t.Errorf("%q is %s, want %s", text, m, want)
		}
	}
}

func TestASilenceSaysWhatItHides(t *testing.T) {
	var asked []string
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.FormValue("query")
		asked = append(asked, q)
		rows := `{"metric":{"alertname":"Crash","namespace":"shop"},"value":[1,"2"]}`
		if strings.Contains(q, "7d") {
			rows = `{"metric":{"alertname":"Slow"},"value":[1,"3"]},{"metric":{"alertname":"Crash","namespace":"shop"},"value":[1,"40"]}`
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[` + rows + `]}}`))
	}))
	defer door.Close()
	base, err := url.Parse(door.URL)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	all, err := parseMatchers([]string{"namespace=shop", `pod=~a,b`})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&web{base: base, client: door.Client()}).hides(context.Background(), &out, all); err != nil {
		t.Fatal(err)
	}
	if want := "hides 2 alerts now: shop Crash 2\nwould have hidden 43 in the past week: shop Crash 40 times, Slow 3 times\n"; out.String() != want {
		t.Errorf("said %q, want %q", out.String(), want)
	}
	if len(asked) != 2 || !strings.Contains(asked[0], `ALERTS{alertstate="firing",namespace="shop",pod=~"a,b"}`) {
		t.Errorf("asked %q", asked)
	}
}
