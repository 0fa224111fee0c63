package cli

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestTimeRangeOfLogs(t *testing.T) {
	now := time.Date(2026, 11, 20, 14, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		o    logsOptions
		want string // from and to; empty: refused
	}{
		{"everything without flags", logsOptions{}, "0 now+1d"},
		{"since a duration", logsOptions{since: "10m"}, "2026-11-20T13:50:00Z now+1d"},
		{"since a time as kubectl", logsOptions{sinceTime: "2026-11-20T13:00:00Z"}, "2026-11-20T13:00:00Z now+1d"},
		{"since and until", logsOptions{since: "2h", until: "1h"}, "2026-11-20T12:00:00Z 2026-11-20T13:00:00Z"},
		{"the minutes around a time", logsOptions{at: "2026-11-20T13:30:00Z"}, "2026-11-20T13:29:00Z 2026-11-20T13:31:00Z"},
		{"patterns up to now", logsOptions{patterns: true, since: "10m"}, "2026-11-20T13:50:00Z "},
		{"at with since", logsOptions{at: "10m", since: "1h"}, ""},
		{"both kinds of since", logsOptions{since: "1h", sinceTime: "2026-11-20T13:00:00Z"}, ""},
		{"no time at all", logsOptions{since: "yesterday-ish"}, ""},
	} {
		ask, err := timeRange(url.Values{}, c.o, now)
		if c.want == "" {
			if !errors.As(err, new(Usage)) {
				t.Errorf("%s: have %v", c.name, err)
			}
			continue
		}
		if err != nil || ask.Get("from")+" "+ask.Get("to") != c.want {
			t.Errorf("%s: have %v, %v, want %s", c.name, ask, err, c.want)
		}
	}
}

func TestBarsAndLimitedOutput(t *testing.T) {
	if have := bars([]int64{0, 1, 50, 100}); have != " ▂▅█" {
		t.Errorf("have %q", have)
	}
	var b strings.Builder
	l := &limited{&b, 5}
	for range 3 {
		if n, err := l.Write([]byte("abc")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if b.String() != "abcab" {
		t.Errorf("have %q", b.String())
	}
}

func TestPatternSaysWhenItWasFirstSeen(t *testing.T) {
	for text, want := range map[string]string{
		`{"first":"2026-11-20T13:00:00Z","namespace":"shop","pod":"web-2"}`:                                                                                              "13:00:00 or before in shop/web-2",
		`{"first":"2026-11-20T13:00:00Z","namespace":"shop","pod":"web-2","image":"web:1","seen":{"time":"2026-11-20T12:00:00Z","namespace":"shop","pod":"web-1"}}`:      "12:00:00 in shop/web-1 web:1",
		`{"first":"2026-11-20T13:00:00Z","namespace":"shop","pod":"web-2","seen":{"time":"2026-11-20T12:00:00Z","namespace":"shop","pod":"web-1","maybe_earlier":true}}`: "12:00:00 or before in shop/web-1",
	} {
		var p pattern
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		local := time.Date(2026, 11, 20, 13, 0, 0, 0, time.UTC)
		if p.Seen != nil {
			local = local.Add(-time.Hour)
		}
		want = local.Local().Format("first 2006-01-02 ") + strings.Replace(want, local.Format("15:04:05"), local.Local().Format("15:04:05"), 1)
		if have := p.first(); have != want {
			t.Errorf("%s: have %q, want %q", text, have, want)
		}
	}
}
