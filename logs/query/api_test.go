package query

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"perch/logs/record"
	"perch/logs/store"
)

func serve(t *testing.T, s *store.Store, access Access) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(Handler(New(s, quiet()), func(context.Context, *http.Request) (Access, error) { return access, nil }, quiet()))
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, srv *httptest.Server, path string, kv ...string) (int, string) {
	t.Helper()
	v := url.Values{"from": {"0"}, "to": {"100"}}
	for i := 0; i < len(kv); i += 2 {
		v.Set(kv[i], kv[i+1])
	}
	resp, err := http.Get(srv.URL + Prefix + path + "?" + v.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

func TestAPI(t *testing.T) {
	s := testStore(t, 1<<20)
	if err := s.Append(t.Context(), goldenLines(t), nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{All: true})

	_, body := get(t, srv, "query", "q", "failed", "limit", "2")
	rows := strings.Split(strings.TrimSpace(body), "\n")
	var line struct{ Time, ID, Namespace, Pod, Line, Level, Kind string }
	if err := json.Unmarshal([]byte(rows[0]), &line); err != nil || len(rows) != 3 {
		t.Fatal(err, body)
	}
	if line.Time != "1970-01-01T00:00:17Z" || line.Pod != "job-x" || line.Level != "warn" || line.Kind != "event" || !strings.HasPrefix(line.Line, "Back-off") {
		t.Fatalf("%+v", line)
	}
	var end Summary
	if err := json.Unmarshal([]byte(rows[2]), &end); err != nil || end.Cursor == "" || end.Partial || end.Missing == nil || end.Stats.Lines == 0 {
		t.Fatal(err, rows[2])
	}
	_, body = get(t, srv, "query", "q", "failed", "limit", "2", "cursor", end.Cursor)
	if !strings.Contains(body, "Payment FAILED") || !strings.Contains(body, "Failed password") && !strings.Contains(body, "Failover") {
		t.Fatal(body)
	}

	status, body := get(t, srv, "query", "q", "pod:")
	if status != 400 || !strings.Contains(body, `"position":4`) || !strings.Contains(body, `"expected":"a value after pod:"`) {
		t.Fatal(status, body)
	}
	several := func(q ...string) (int, string) {
		v := url.Values{"from": {"0"}, "to": {"100"}, "q": q}
		resp, err := http.Get(srv.URL + Prefix + "query?" + v.Encode())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		return resp.StatusCode, b.String() + fmt.Sprint(err)
	}
	if status, body = several("namespace:shop -kind:event", "failover or password", ""); status != 200 || strings.Count(body, `"line"`) != 1 || !strings.Contains(body, "Failover") {
		t.Fatal(status, body)
	}
	for text, position := range map[string]int{"(a": 2, "a) or (b": 1, `x "y`: 4, "pod:": 4} {
		if status, body = several("namespace:shop", text); status != 400 || !strings.Contains(body, fmt.Sprintf(`"position":%d`, position)) {
			t.Errorf("%s: %d %s", text, status, body)
		}
	}
	for _, ends := range [][2]string{{"0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"}, {"-99999999999", "99999999999"}, {"now-10000w", "now+10000w"}, {"0", "8999999999"}} {
		for _, path := range []string{"query", "histogram", "patterns", "stats", "values"} {
			status, body = get(t, srv, path, "q", "failed", "from", ends[0], "to", ends[1], "field", "pod", "step", map[bool]string{true: "8999999999", false: "1s"}[path == "patterns"])
			if status != 200 || !strings.Contains(strings.ToLower(body), "failed") && !strings.Contains(body, `"total":5,`) && !strings.Contains(body, `"count":5,`) && path != "values" {
				t.Errorf("%s from %s to %s: %d %s", path, ends[0], ends[1], status, body)
			}
		}
	}
	if status, body = get(t, srv, "query", "from", "yesterday"); status != 400 || !strings.Contains(body, "RFC3339") {
		t.Fatal(status, body)
	}
	_, body = get(t, srv, "stats", "q", "namespace:shop", "field", "http.status", "by", "pod")
	var stats FieldStats
	if err := json.Unmarshal([]byte(body), &stats); err != nil || len(stats.Groups) != 3 || stats.Groups[0].Group != "web-1" || stats.Groups[1].Unique != 2 || stats.Groups[1].Max != 502 || math.Abs(stats.Groups[1].Quantiles["0.99"]-502) > 5 {
		t.Fatal(err, body)
	}
	_, body = get(t, srv, "histogram", "q", "http.status:*", "by", "http.status", "buckets", "1")
	if !strings.Contains(body, `"values":{"200":1,"502":1}`) {
		t.Fatal(body)
	}

	_, body = get(t, srv, "histogram", "q", "failed", "step", "10s")
	var h Histogram
	if err := json.Unmarshal([]byte(body), &h); err != nil || h.Total != 5 || h.Step != 10000 || h.Buckets[0].Count != 3 || h.Buckets[1].Count != 2 || h.Levels["error"] != 2 {
		t.Fatal(err, body)
	}

	_, body = get(t, srv, "values", "field", "namespace")
	var v Values
	if err := json.Unmarshal([]byte(body), &v); err != nil || v.Values[0] != (ValueCount{"shop", 13}) {
		t.Fatal(err, body)
	}
	_, body = get(t, srv, "values", "field", "http.status")
	if !strings.Contains(body, `{"value":"502","count":1}`) {
		t.Fatal(body)
	}
	_, body = get(t, srv, "fields")
	if !strings.Contains(body, `"http.path"`) || !strings.Contains(body, `{"value":"level","count":17}`) {
		t.Fatal(body)
	}

	_, body = get(t, srv, "query", "q", "ERRORS=0")
	_ = json.Unmarshal([]byte(body[:strings.IndexByte(body, '\n')]), &line)
	_, body = get(t, srv, "context", "id", line.ID, "before", "1", "after", "1")
	if strings.Count(body, "\n") != 4 || !strings.Contains(body, "Ünïcode") || !strings.Contains(body, "IllegalState") {
		t.Fatal(body)
	}
}

func TestPatternsAreTheSameFromHeadsAndBlocks(t *testing.T) {
	s := testStore(t, 1<<20)
	web := &record.Stream{Namespace: "shop", Pod: "web-1", Container: "app", Output: record.Stdout, Kind: record.KindLog}
	events := &record.Stream{Namespace: "shop", Pod: "web-1", Container: "app", Output: record.Event, Kind: record.KindEvent}
	records := []record.Record{{Time: 1, Stream: events, Body: []byte(`Pulled: Successfully pulled image "shop/web:2.14" in 3s`)}}
	for i := range 90 {
		body := fmt.Appendf(nil, "request req%d took %d ms", i, i*i)
		if i%3 == 0 {
			body = fmt.Appendf(nil, "ERROR cannot reach db-%d\n\tat line %d", i, i)
		}
		records = append(records, record.Record{Time: int64(i+1) * 1e9, Stream: web, Body: body})
	}
	if err := s.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{All: true})
	ask := func(q string) string {
		_, body := get(t, srv, "patterns", "q", q)
		body, _, _ = strings.Cut(body, `"stats":`)
		return body
	}
	heads, some := ask("kind:log"), ask("took 16 or req4")
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if blocks := ask("kind:log"); blocks != heads {
		t.Fatalf("heads: %s\nblocks: %s", heads, blocks)
	}
	if blocks := ask("took 16 or req4"); blocks != some || !strings.Contains(some, `"total":1,`) {
		t.Fatalf("heads: %s\nblocks: %s", some, blocks)
	}
	var p Patterns
	if err := json.Unmarshal([]byte(heads+`"x":0}`), &p); err != nil {
		t.Fatal(err)
	}
	if p.Total != 90 || len(p.Patterns) != 2 || p.Patterns[0].Pattern != "request <*> took <*> ms" || p.Patterns[0].Count != 60 || p.Patterns[1].Pattern != "ERROR cannot reach db-<*>" || p.Patterns[1].Level != "error" ||
		p.Patterns[0].Image != "shop/web:2.14" || p.Patterns[0].First != time.Unix(2, 0).UTC() {
		t.Fatal(heads)
	}
}

func TestBytesThatAreNoTextAreShownAlikeInLinesAndValues(t *testing.T) {
	s := testStore(t, 1<<20)
	if err := s.Append(t.Context(), []record.Record{{Time: 1e9, Stream: &record.Stream{Namespace: "shop", Pod: "web-1", Kind: record.KindLog}, Body: []byte("caf\xe9 caf\u00e9 \ufffd name=a\xfeb")}}, nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{All: true})
	for path, want := range map[string]string{
		"query":  "\"line\":\"caf\\\\xe9 caf\u00e9 \ufffd name=a\\\\xfeb\"",
		"values": "\"value\":\"a\\\\xfeb\"",
	} {
		if _, body := get(t, srv, path, "field", "name"); !strings.Contains(body, want) {
			t.Errorf("%s: want %s in %s", path, want, body)
		}
	}
}

func TestContextOfPodWorkloadAndNode(t *testing.T) {
	s := testStore(t, 1<<20)
	stream := func(pod, container, node string) *record.Stream {
		return &record.Stream{Namespace: "shop", Pod: pod, Container: container, Node: node, Output: record.Stdout, Kind: record.KindLog}
	}
	streams := []*record.Stream{stream("web-7d9f4c6b8-kx2mq", "app", "n1"), stream("web-7d9f4c6b8-kx2mq", "side", "n1"), stream("web-5f6c7d8b9c-abcde", "app", "n2"), stream("db-0", "db", "n1"), stream("db-1", "db", "n2")}
	var records []record.Record
	for i := range 20 {
		records = append(records, record.Record{Time: int64(i+1) * 1e9, Stream: streams[i%5], Body: fmt.Appendf(nil, "line %d", i)})
	}
	if err := s.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{All: true})
	var line struct{ ID string }
	_, body := get(t, srv, "query", "q", `"line 10"`)
	if err := json.Unmarshal([]byte(body[:strings.IndexByte(body, '\n')]), &line); err != nil {
		t.Fatal(err)
	}
	for scope, want := range map[string]string{"stream": "0 5 10 15", "container": "0 5 10 15", "pod": "5 6 10 11 15", "workload": "6 7 10 11 12", "node": "6 8 10 11 13"} {
		_, body := get(t, srv, "context", "id", line.ID, "before", "2", "after", map[bool]string{true: "1", false: "2"}[scope == "stream" || scope == "container"], "scope", scope)
		var have []string
		for _, m := range regexp.MustCompile(`"line":"line (\d+)"`).FindAllStringSubmatch(body, -1) {
			have = append(have, m[1])
		}
		if strings.Join(have, " ") != want {
			t.Errorf("%s: have %v, want %s\n%s", scope, have, want, body)
		}
	}
	if status, _ := get(t, srv, "context", "id", line.ID, "scope", "moon"); status != 400 {
		t.Fatal(status)
	}
}

func TestContextOfLinesWithoutAPodHasLinesWithoutOne(t *testing.T) {
	s := testStore(t, 1<<20)
	pushed := &record.Stream{Namespace: "shop", Output: record.Push, Kind: record.KindLog}
	pod := &record.Stream{Namespace: "shop", Pod: "web-0", Container: "app", Node: "n1", Output: record.Stdout, Kind: record.KindLog}
	var records []record.Record
	for i := range 10 {
		records = append(records, record.Record{Time: int64(i+1) * 1e9, Stream: []*record.Stream{pushed, pod}[i%2], Body: fmt.Appendf(nil, "line %d", i)})
	}
	if err := s.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{All: true})
	var line struct{ ID string }
	_, body := get(t, srv, "query", "q", `"line 4"`)
	if err := json.Unmarshal([]byte(body[:strings.IndexByte(body, '\n')]), &line); err != nil {
		t.Fatal(err)
	}
	for _, scope := range []string{"stream", "container", "pod", "workload", "node"} {
		_, body := get(t, srv, "context", "id", line.ID, "before", "1", "after", "1", "scope", scope)
		var have []string
		for _, m := range regexp.MustCompile(`"line":"line (\d+)"`).FindAllStringSubmatch(body, -1) {
			have = append(have, m[1])
		}
		if strings.Join(have, " ") != "2 4 6" {
			t.Errorf("%s: have %v\n%s", scope, have, body)
		}
	}
}

func TestNamespacesThatMayNotBeReadAreNamed(t *testing.T) {
	s := testStore(t, 1<<20)
	if err := s.Append(t.Context(), goldenLines(t), nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{Namespaces: []string{"shop"}})
	const all = `"hidden":["_host","default","kube-system"]`
	_, body := get(t, srv, "query", "q", "failed")
	if strings.Contains(body, "password") || strings.Contains(body, "Back-off") || !strings.Contains(body, `"hidden":["_host","default","kube-system"]`) {
		t.Fatal(body)
	}
	_, body = get(t, srv, "histogram", "q", "failed")
	if !strings.Contains(body, `"total":3,`) {
		t.Fatal(body)
	}
	_, body = get(t, srv, "values", "field", "pod")
	if strings.Contains(body, "dns-0") {
		t.Fatal(body)
	}
	_, body = get(t, serve(t, s, Access{}), "query")
	if strings.Contains(body, `"line"`) {
		t.Fatal(body)
	}
	var hidden struct{ ID string }
	_, body = get(t, serve(t, s, Access{All: true}), "query", "q", "namespace:default", "limit", "1")
	if err := json.NewDecoder(strings.NewReader(body)).Decode(&hidden); err != nil {
		t.Fatal(err, body)
	}
	_, body = get(t, srv, "context", "id", hidden.ID)
	if strings.Contains(body, `"line"`) || !strings.Contains(body, all) {
		t.Fatal(body)
	}
	// No question tells of what is in there but what the names do.
	_, unknown := get(t, srv, "context", "id", "00000000000000aa-0")
	if !strings.Contains(unknown, all) {
		t.Fatal(unknown)
	}
	for _, q := range []string{"pod:dns-0", "pod:none-such", "kind:event", "password", "pod:dns-0 -namespace:shop", "namespace:default or pod:x"} {
		for _, path := range []string{"query", "histogram", "patterns", "fields"} {
			if _, body := get(t, srv, path, "q", q); !strings.Contains(body, all) {
				t.Errorf("%s %s: %s", path, q, body)
			}
		}
	}
	for q, want := range map[string]string{"namespace:default pod:none-such": `"hidden":["default"]`, "-namespace:default": `"hidden":["_host","kube-system"]`, "namespace:shop": `"hidden":[]`} {
		if _, body := get(t, srv, "query", "q", q); !strings.Contains(body, want) {
			t.Errorf("%s: %s", q, body)
		}
	}
}

func TestTailShowsNewLinesAndGoesOnAfterTheLastSeen(t *testing.T) {
	s := testStore(t, 1<<20)
	srv := serve(t, s, Access{Namespaces: []string{"shop"}})
	follow := func(last string) (*bufio.Scanner, func()) {
		req, _ := http.NewRequest("GET", srv.URL+Prefix+"tail?q=tick", nil)
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(resp.Body)
		sc.Scan() // the stream is open
		return sc, func() { _ = resp.Body.Close() }
	}
	next := func(sc *bufio.Scanner) (id, data string) {
		for sc.Scan() {
			if v, ok := strings.CutPrefix(sc.Text(), "id: "); ok {
				id = v
			}
			if v, ok := strings.CutPrefix(sc.Text(), "data: "); ok && strings.Contains(v, `"line":`) {
				return id, v
			}
		}
		t.Fatal("stream ended")
		return "", ""
	}
	shop, other := &record.Stream{Namespace: "shop", Pod: "a"}, &record.Stream{Namespace: "other"}
	base := time.Now().UnixNano()
	add := func(n int) {
		at := base + int64(n)
		if err := s.Append(t.Context(), []record.Record{
			{Time: at, Stream: other, Body: []byte("tick secret")},
			{Time: at, Stream: shop, Body: []byte("boring")},
			{Time: at, Stream: shop, Body: fmt.Appendf(nil, "tick %d", n)},
		}, nil); err != nil {
			t.Fatal(err)
		}
	}
	sc, stop := follow("")
	// Lines are followed from some moment after the stream is open.
	seen := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case <-seen:
				return
			default:
				add(n)
			}
		}
	}()
	id, data := next(sc)
	close(seen)
	if !strings.Contains(data, `"line":"tick `) {
		t.Fatal(data)
	}
	stop()
	add(1 << 40)
	c, err := ParseCursor(id)
	if err != nil {
		t.Fatal(err)
	}
	sc, stop = follow(id)
	defer stop()
	for {
		_, data := next(sc)
		l, ok, err := ParseLine([]byte(data))
		if err != nil || !ok || l.compare(c) <= 0 {
			t.Fatal(err, data)
		}
		c = l.Cursor
		if l.Time == base+1<<40 {
			return
		}
	}
}

func TestATailNamesTheNamespacesItLeavesOut(t *testing.T) {
	s := testStore(t, 1<<20)
	add := func(namespaces ...string) {
		for _, n := range namespaces {
			if err := s.Append(t.Context(), []record.Record{{Time: time.Now().UnixNano(), Stream: &record.Stream{Namespace: n}, Body: []byte("tick")}}, nil); err != nil {
				t.Error(err)
			}
		}
	}
	add("before")
	srv := serve(t, s, Access{Namespaces: []string{"shop"}})
	resp, err := http.Get(srv.URL + Prefix + "tail?q=tick+-namespace:other&cursor=1.0000000000000000-0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	told := map[string]int{}
	for sc, event := bufio.NewScanner(resp.Body), ""; len(told) < 3 && sc.Scan(); {
		if e, ok := strings.CutPrefix(sc.Text(), "event: "); ok {
			event = e
			continue
		}
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if !ok || event != "hidden" {
			continue
		}
		var names struct{ Namespaces []string }
		if err := json.Unmarshal([]byte(data), &names); err != nil {
			t.Fatal(err, data)
		}
		for _, n := range names.Namespaces {
			told[n]++
		}
		if len(told) == 1 { // it follows
			add("secret", "", "shop", "other", "secret")
		}
	}
	if fmt.Sprint(told) != "map[(none):1 before:1 secret:1]" {
		t.Error(told)
	}
}

// Whatever values a field has, the answer is JSON.
func TestFiguresOfNumbersBeyondAllSums(t *testing.T) {
	s := testStore(t, 1<<20)
	var records []record.Record
	for i, v := range []string{"1e308", "1.5e308", "-1", "Inf", "NaN", "1e400", "x"} {
		records = append(records, record.Record{Time: int64(i) + 1, Stream: &record.Stream{Namespace: "shop"}, Body: []byte("size=" + v)})
	}
	if err := s.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{All: true})
	for _, raw := range []string{"0", "1"} { // raw is what another node asks for
		var have FieldStats
		status, body := get(t, srv, "stats", "field", "size", "raw", raw)
		if err := json.Unmarshal([]byte(body), &have); err != nil || status != 200 || len(have.Groups) != 1 {
			t.Fatal(status, err, body)
		}
		if g := have.Groups[0]; g.Count != 7 || g.Numbers != 3 || g.Max != 1.5e308 || g.Sum != math.MaxFloat64 {
			t.Errorf("%+v", g)
		}
	}
}

// A trend is kept for each of very many patterns.
func TestATrendHasFewNumbers(t *testing.T) {
	s := testStore(t, 1<<20)
	if err := s.Append(t.Context(), goldenLines(t), nil); err != nil {
		t.Fatal(err)
	}
	srv := serve(t, s, Access{All: true})
	for key, value := range map[string]string{"buckets": "2000", "step": "10ms"} {
		var have Patterns
		_, body := get(t, srv, "patterns", key, value)
		if err := json.Unmarshal([]byte(body), &have); err != nil || len(have.Patterns) == 0 {
			t.Fatal(err, body)
		}
		sum := int64(0)
		for _, n := range have.Patterns[0].Trend {
			sum += n
		}
		if n := len(have.Patterns[0].Trend); n < patternTrend/4 || n > patternTrend+1 || sum != have.Patterns[0].Count {
			t.Errorf("%s=%s: %d numbers, %d lines of %d", key, value, n, sum, have.Patterns[0].Count)
		}
	}
}
