package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/encoding/protowire"

	"perch/logs/ingest/chunk"
	"perch/logs/ingest/source"
	"perch/logs/record"
)

type memory struct {
	mu      sync.Mutex
	records []record.Record
	full    bool
	wait    chan struct{} // stores wait for it to be closed
	deaf    bool          // also when their sender is gone, as a write that has begun does
	asked   atomic.Int64
	gone    atomic.Bool // the sender of one
}

func (m *memory) sink(ctx context.Context, records []record.Record, _ []record.Position) error {
	m.asked.Add(1)
	if m.wait != nil {
		select {
		case <-m.wait:
		case <-ctx.Done():
			m.gone.Store(true)
			if !m.deaf {
				return ctx.Err()
			}
			<-m.wait
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errors.New("disk is full")
	}
	for _, r := range records {
		r.Body = bytes.Clone(r.Body)
		m.records = append(m.records, r)
	}
	return nil
}

func (m *memory) have() []record.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]record.Record(nil), m.records...)
}

// doors returns the handlers under their paths.
func doors(t testing.TB, m *memory, change func(*Config, *Parts)) (*Push, http.Handler) {
	t.Helper()
	reg := prometheus.NewRegistry()
	cfg := Default()
	cfg.Patience = 50 * time.Millisecond
	parts := Parts{Sink: m.sink, Seen: chunk.New(nil, reg), Identify: func(r *http.Request) (Caller, error) {
		if r.Header.Get("Authorization") == "none" {
			return Caller{}, errors.New("no right")
		}
		return Caller{Stream: record.Stream{Namespace: "shop", Pod: "web-1", Node: "n1"}, Name: "web-1"}, nil
	}}
	if change != nil {
		change(&cfg, &parts)
	}
	p, err := New(cfg, parts, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/loki/api/v1/push", p.Loki())
	mux.Handle("/elastic/", http.StripPrefix("/elastic", p.Elastic()))
	mux.Handle("/_bulk", p.Elastic())
	mux.Handle("/otlp/v1/logs", p.OTLP())
	mux.Handle("/lines", p.Lines())
	return p, mux
}

func post(h http.Handler, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, bytes.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func show(r record.Record) string {
	var f []string
	for _, x := range r.Fields {
		f = append(f, x.Key+"="+x.Value)
	}
	return fmt.Sprintf("%d %s %s %s", r.Time, r.Level, r.Body, strings.Join(f, " "))
}

// What real clients sent, recorded by the tests in ../interop.
func TestRecordedRequestsAreStored(t *testing.T) {
	for name, want := range map[string]struct {
		lines int
		first string
	}{
		"pino-loki.json":  {1, `{"level":50,`},
		"elastic.json":    {100, "elastic line 0"},
		"rsyslog.json":    {100, "daemon line 0"},
		"syslog-ng.json":  {25, "daemon line 0"},
		"otlp_json.json":  {100, "otlp line 0"},
		"otlp_proto.json": {100, "otlp line 0"},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var sent struct {
			Path   string
			Header http.Header
			Body   []byte
		}
		if err := json.Unmarshal(text, &sent); err != nil {
			t.Fatal(err)
		}
		m := &memory{}
		_, h := doors(t, m, nil)
		r := httptest.NewRequest("POST", sent.Path, bytes.NewReader(sent.Body))
		r.Header = sent.Header
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		have := m.have()
		if w.Code/100 != 2 || len(have) < want.lines {
			t.Errorf("%s: %d %s, %d lines, want %d", name, w.Code, w.Body, len(have), want.lines)
			continue
		}
		if !strings.HasPrefix(string(have[0].Body), want.first) || have[0].Stream.Pod != "web-1" || have[0].Stream.Output != record.Push || have[0].Time < 1.7e18 {
			t.Errorf("%s: %+v %s", name, have[0].Stream, show(have[0]))
		}
	}
}

func message(fields ...any) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		n := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v))
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), v)
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
		}
	}
	return b
}

func lokiPush() []byte {
	e := message(1, message(1, 1795168800, 2, 123456789), 2, "hello \xff", 3, message(1, "trace", 2, "t1"))
	return message(1, message(1, `{app="a\"b", detected_level="warn"}`, 2, e, 2, message(1, message(1, 5), 2, "second"), 3, 99))
}

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestEachDoorStoresWhatItTakes(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		body       []byte
		headers    []string
		code       int
		answer     string
		want       []string
	}{
		{"Loki's protobuf", "/loki/api/v1/push", s2.EncodeSnappy(nil, lokiPush()), []string{"Content-Type", "application/x-protobuf"}, 204, "",
			[]string{"1795168800123456789 warn hello \xff app=a\"b detected_level=warn trace=t1", "5000000000 warn second app=a\"b detected_level=warn"}},
		{"Loki's JSON, zipped", "/loki/api/v1/push", zipped(t, []byte(`{"streams":[{"stream":{"app":"x","level":"error"},"values":[["1","a",{"k":"v"}],["2","b"]]}]}`)),
			[]string{"Content-Type", "application/json; charset=utf-8", "Content-Encoding", "gzip"}, 204, "", []string{"1 error a app=x level=error k=v", "2 error b app=x level=error"}},
		{"Loki's older JSON", "/loki/api/v1/push", []byte(`{"streams":[{"labels":"{app=\"x\"}","entries":[{"ts":"2026-11-20T10:00:00Z","line":"a"}]}]}`),
			[]string{"Content-Type", "application/json"}, 204, "", []string{"1795168800000000000 unknown a app=x"}},
		{"Loki without snappy", "/loki/api/v1/push", []byte("\xff\xff\xff\xff\xff\xff"), nil, 400, "not what this door takes", nil},
		{"Loki's JSON without its type", "/loki/api/v1/push", []byte(` {"streams":[]}`), []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, "takes: JSON needs the header Content-Type: application/json\n", nil},
		{"Loki with seconds", "/loki/api/v1/push", []byte(`{"streams":[{"stream":{"app":"x"},"values":[["1795168800","a"]]}]}`), []string{"Content-Type", "application/json"}, 400, `time "1795168800" is not in nanoseconds`, nil},
		{"Loki with µs", "/loki/api/v1/push", []byte(`{"streams":[{"stream":{"app":"x"},"values":[["1795168800000000","a"]]}]}`), []string{"Content-Type", "application/json"}, 400, "is not in nanoseconds", nil},
		{"Loki with a text for streams", "/loki/api/v1/push", []byte(`{"streams":"x"}`), []string{"Content-Type", "application/json"}, 400, "takes: a JSON string does not belong in streams\n", nil},
		{"OTLP that is cut off", "/otlp/v1/logs", []byte("xyz"), []string{"Content-Type", "application/x-protobuf"}, 400, "4the body is not what this door takes: unexpected EOF", nil},
		{"Loki with bad labels", "/loki/api/v1/push", s2.EncodeSnappy(nil, message(1, message(1, `{app=x}`, 2, message(2, "l")))), nil, 400, "labels", nil},
		{"a bulk with a bad document", "/elastic/idx/_bulk", []byte("{\"index\":{}}\n{\"message\":\"a\",\"@timestamp\":1000}\n\n{\"create\":{\"_index\":\"other\",\"_id\":\"7\"}}\nnot json\n{\"delete\":{\"_id\":\"1\"}}\n{\"update\":{\"_id\":\"1\"}}\n{\"doc\":{}}\n{\"create\":{\"_id\":\"8\"}}\n{\"log\":\"b\",\"@timestamp\":\"2026-11-20T10:00:00Z\"}"),
			nil, 200, `"errors":true`, []string{"1000000000000 unknown a index=idx", "1795168800000000000 unknown b index=idx"}},
		{"a bulk on the plain path", "/_bulk", []byte("{\"index\":{}}\n{\"message\":\"a\",\"time\":1}\n"), nil, 200, `"errors":false`, []string{"1000000000 unknown a "}},
		{"a bulk on an older path", "/elastic/idx/_doc/_bulk", []byte("{\"index\":{}}\n{\"message\":\"a\",\"time\":1}\n"), nil, 200, `"errors":false`, []string{"1000000000 unknown a index=idx"}},
		{"a bulk that is none", "/_bulk", []byte("hello\n"), nil, 400, `"illegal_argument_exception"`, nil},
		{"an empty bulk", "/_bulk", nil, nil, 400, "empty", nil},
		{"one document", "/elastic/idx/_doc", []byte(`{"message":"a","time":1}`), nil, 201, `"created"`, []string{"1000000000 unknown a index=idx"}},
		{"OTLP's JSON", "/otlp/v1/logs", []byte(`{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},"scopeLogs":[{"scope":{"name":"lib"},"logRecords":[
			{"timeUnixNano":"5","severityNumber":17,"body":{"stringValue":"boom"},"traceId":"0102030405060708090a0b0c0d0e0f10","attributes":[{"key":"n","value":{"doubleValue":1.5}},{"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"}]}}}]},
			{"observedTimeUnixNano":"6","severityText":"WARN","body":{"kvlistValue":{"values":[{"key":"a","value":{"boolValue":true}}]}}}]}]}]}`),
			[]string{"Content-Type", "application/json"}, 200, "{}", []string{"5 error boom trace_id=0102030405060708090a0b0c0d0e0f10 n=1.5 l=[1] service.name=s scope=lib", `6 warn {"a":true} service.name=s scope=lib`}},
		{"OTLP's protobuf with zstd", "/otlp/v1/logs", z.EncodeAll(message(1, message(2, message(2, message(2, 9, 5, message(1, "hi"), 11, 0))), 99, 1), nil),
			[]string{"Content-Type", "application/x-protobuf", "Content-Encoding", "zstd"}, 400, "", nil}, // 11 is fixed64, not a varint
		{"OTLP's protobuf", "/otlp/v1/logs", message(1, message(2, message(2, message(2, 9, 5, message(1, "hi"))))),
			[]string{"Content-Type", "application/x-protobuf"}, 200, "", []string{"now info hi "}},
		{"OTLP of another type", "/otlp/v1/logs", []byte("x"), []string{"Content-Type", "text/plain"}, 400, "content type", nil},
		{"lines", "/lines", []byte("plain text\r\n\n{\"time\":\"2026-11-20T10:00:00Z\",\"msg\":\"hi\",\"level\":\"error\",\"n\":5}\n{\"a\":1}"), nil, 200, `{"stored":3}`,
			[]string{"now unknown plain text ", "1795168800000000000 error hi level=error n=5", `now unknown {"a":1} `}},
		{"lines with zstd", "/lines", z.EncodeAll([]byte("a\nb"), nil), []string{"Content-Encoding", "zstd"}, 200, `{"stored":2}`, []string{"now unknown a ", "now unknown b "}},
		{"an unknown encoding", "/lines", []byte("a"), []string{"Content-Encoding", "br"}, 400, "content encoding", nil},
		{"who may not", "/lines", []byte("a"), []string{"Authorization", "none"}, 403, "may not push", nil},
		{"who may not, of Elasticsearch", "/_bulk", []byte("a"), []string{"Authorization", "none"}, 403, "security_exception", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{}
			_, h := doors(t, m, nil)
			w := post(h, c.path, c.body, c.headers...)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.answer) {
				t.Fatalf("%d %s, want %d and %q", w.Code, w.Body, c.code, c.answer)
			}
			var have []string
			for _, r := range m.have() {
				s := show(r)
				if age := time.Since(time.Unix(0, r.Time)); age < time.Minute && age > -time.Minute {
					s = "now" + s[strings.IndexByte(s, ' '):]
				}
				have = append(have, s)
				if r.Stream.Namespace != "shop" || r.Stream.Node != "n1" {
					t.Errorf("identity %+v", r.Stream)
				}
			}
			if fmt.Sprintf("%q", have) != fmt.Sprintf("%q", c.want) {
				t.Fatalf("have %q\nwant %q", have, c.want)
			}
			if strings.HasPrefix(c.path, "/elastic") || c.path == "/_bulk" {
				if w.Header().Get("X-Elastic-Product") != "Elasticsearch" || !json.Valid(w.Body.Bytes()) {
					t.Errorf("answer %v %s", w.Header(), w.Body)
				}
			}
		})
	}
}

func TestShippersQuestionsAreAnswered(t *testing.T) {
	_, h := doors(t, &memory{}, nil)
	for _, c := range []struct {
		method, path string
		code         int
		part         string
	}{
		{"GET", "/elastic/", 200, `"number":"8`}, {"HEAD", "/elastic/", 200, ""}, {"GET", "/elastic/_license", 200, `"active"`},
		{"GET", "/elastic/_cluster/health", 200, `"green"`}, {"GET", "/elastic/_cat/health", 200, "green"},
		{"PUT", "/elastic/_index_template/filebeat", 200, "acknowledged"}, {"GET", "/elastic/_index_template/filebeat", 404, ""},
		{"GET", "/elastic/idx/_search", 404, "/logs/api/v1/query"}, {"GET", "/loki/api/v1/push", 400, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.part) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

func TestWhatWasStoredBeforeIsNotStoredAgain(t *testing.T) {
	fine := s2.EncodeSnappy(nil, lokiPush())
	coarse := []byte(`{"streams":[{"stream":{},"values":[["1795168800000000000","tick"]]}]}`)
	ids := []byte("{\"create\":{\"_id\":\"1\"}}\n{\"message\":\"a\"}\n")
	noIDs := []byte("{\"create\":{}}\n{\"message\":\"a\"}\n")
	for _, c := range []struct {
		name, path string
		body       []byte
		headers    []string
		want       int
	}{
		{"a push with fine times is known by its content", "/loki/api/v1/push", fine, nil, 2},
		{"with coarse times the same line may come twice", "/loki/api/v1/push", coarse, []string{"Content-Type", "application/json"}, 2},
		{"documents with ids are known", "/_bulk", ids, nil, 1},
		{"so are documents with fine times", "/_bulk", []byte("{\"create\":{}}\n{\"message\":\"a\",\"@timestamp\":\"2026-11-20T10:00:00.000001Z\"}\n"), nil, 1},
		{"and lines with fine times", "/lines", []byte(`{"msg":"a","time":"2026-11-20T10:00:00.123456789Z"}`), nil, 1},
		{"and records of OTLP with fine times", "/otlp/v1/logs", []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1795168800000000001","body":{"stringValue":"a"}}]}]}]}`), []string{"Content-Type", "application/json"}, 1},
		{"not those with coarse ones", "/otlp/v1/logs", []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1795168800000000000","body":{"stringValue":"a"}}]}]}]}`), []string{"Content-Type", "application/json"}, 2},
		{"documents without ids are not", "/_bulk", noIDs, nil, 2},
		{"lines are not", "/lines", []byte("tick"), nil, 2},
		{"a key says that it is the same request", "/lines", []byte("tick"), []string{"Idempotency-Key", "7"}, 1},
	} {
		m := &memory{}
		_, h := doors(t, m, nil)
		for range 2 {
			if w := post(h, c.path, c.body, c.headers...); w.Code/100 != 2 {
				t.Fatalf("%s: %d %s", c.name, w.Code, w.Body)
			}
		}
		if n := len(m.have()); n != c.want {
			t.Errorf("%s: %d lines, want %d", c.name, n, c.want)
		}
	}
}

// Senders that get no answer send again what may rightly come again, too.
func TestAPushWithoutAnAnswerIsStoredOnceWhenItComesAgain(t *testing.T) {
	for path, body := range map[string][2]string{
		"/loki/api/v1/push": {`{"streams":[{"stream":{},"values":[["1795168800000000000","tick"]]}]}`, "application/json"},
		"/_bulk":            {"{\"create\":{}}\n{\"message\":\"tick\"}\n", ""},
		"/otlp/v1/logs":     {`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"tick"}}]}]}]}`, "application/json"},
		"/lines":            {"tick\n", ""},
	} {
		t.Run(path, func(t *testing.T) {
			m := &memory{wait: make(chan struct{}), deaf: true}
			_, h := doors(t, m, func(c *Config, _ *Parts) { c.Patience = time.Minute })
			server := httptest.NewServer(h)
			defer server.Close()
			send := func(ctx context.Context) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, strings.NewReader(body[0]))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", body[1])
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				if resp.StatusCode/100 != 2 {
					t.Fatal(resp.Status)
				}
				return nil
			}
			until := func(what string, good func() bool) {
				t.Helper()
				limit := time.Now().Add(30 * time.Second)
				for ; !good(); <-time.After(time.Millisecond) {
					if time.Now().After(limit) {
						t.Fatal(what)
					}
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- send(ctx) }()
			until("the store is asked", func() bool { return m.asked.Load() == 1 })
			cancel() // the sender loses patience; the write has begun
			if err := <-done; err == nil {
				t.Fatal("an answer came from nowhere")
			}
			until("the door hears of it", func() bool { return m.gone.Load() })
			close(m.wait)
			if err := send(t.Context()); err != nil { // it tries again
				t.Fatal(err)
			}
			if n := len(m.have()); n != 1 {
				t.Fatalf("%d lines after the second try, want 1", n)
			}
			for range 2 { // the same once more, on purpose
				if err := send(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			until("the lines sent on purpose are stored", func() bool { return len(m.have()) == 3 })
		})
	}
}

func TestAPushFromBeforeARestartIsKnownByItsTimes(t *testing.T) {
	timed, untimed := []byte(`{"time":"2026-11-20T10:00:00.123Z","msg":"a"}`), []byte("tick")
	var marks []record.Position
	m := &memory{}
	keep := func(ctx context.Context, records []record.Record, at []record.Position) error {
		marks = append(marks, at...)
		return m.sink(ctx, records, at)
	}
	open := func() http.Handler {
		_, h := doors(t, m, func(_ *Config, p *Parts) { p.Sink, p.Seen = keep, chunk.New(marks, prometheus.NewRegistry()) })
		return h
	}
	h := open()
	step := func(what string, body []byte, from string, want int) {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, "/lines", bytes.NewReader(body))
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if n := len(m.have()); w.Code != 200 || n != want {
			t.Fatalf("%s: %d, %d lines, want %d", what, w.Code, n, want)
		}
	}
	step("the first", timed, "10.0.0.1:1", 1)
	step("the same on purpose", timed, "10.0.0.1:2", 2)
	h = open() // a restart: the answer may not have come
	step("again", timed, "10.0.0.1:3", 2)
	step("and on purpose", timed, "10.0.0.1:4", 3)
	h = open()
	step("of another sender", timed, "10.0.0.2:1", 4)
	step("without a time", untimed, "10.0.0.1:1", 5)
	h = open()
	step("without a time nobody can know", untimed, "10.0.0.1:1", 6)
}

func TestASenderIsToldToComeBack(t *testing.T) {
	bodies := map[string][2]string{
		"/loki/api/v1/push": {`{"streams":[{"stream":{},"values":[["1","a"]]}]}`, "application/json"},
		"/_bulk":            {"{\"create\":{}}\n{\"message\":\"a\"}\n", ""},
		"/otlp/v1/logs":     {`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}}]}]}]}`, "application/json"},
		"/lines":            {"a\n", ""},
	}
	for path, body := range bodies {
		m := &memory{full: true}
		p, h := doors(t, m, nil)
		w := post(h, path, []byte(body[0]), "Content-Type", body[1])
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s while the store is full: %d %v", path, w.Code, w.Header())
		}
		door := map[string]string{"/loki/api/v1/push": "loki", "/_bulk": "elastic", "/otlp/v1/logs": "otlp", "/lines": "lines"}[path]
		if n := testutil.ToFloat64(p.m.requests.WithLabelValues(door, resultRefused)); n != 1 {
			t.Errorf("%s: %v refused requests counted", path, n)
		}

		m = &memory{}
		_, h = doors(t, m, func(_ *Config, parts *Parts) {
			var err error
			parts.Sources, err = source.New(source.Limits{Lines: 0.01, Bytes: 1e9, Burst: 10 * time.Second, Known: 8}, prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
		})
		if w := post(h, path, []byte(body[0]), "Content-Type", body[1]); w.Code/100 != 2 {
			t.Errorf("%s: the first is taken: %d %s", path, w.Code, w.Body)
		}
		w = post(h, path, []byte(body[0]), "Content-Type", body[1])
		if w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s over its limits: %d %v", path, w.Code, w.Header())
		}
		if n := len(m.have()); n != 1 {
			t.Errorf("%s: %d lines stored", path, n)
		}
	}
}

// A body that does not come has a place that others need.
func TestABodyThatDoesNotArriveGivesItsPlaceUp(t *testing.T) {
	m := &memory{}
	_, h := doors(t, m, func(c *Config, _ *Parts) {
		c.MaxRequests, c.Arrival, c.Patience = 1, 100*time.Millisecond, 30*time.Second
	})
	srv := httptest.NewServer(h)
	defer srv.Close()
	slow, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := slow.Write([]byte("POST /lines HTTP/1.1\r\nHost: perch\r\nContent-Length: 100\r\n\r\nbegin")); err != nil {
		t.Fatal(err)
	}
	_ = slow.SetDeadline(time.Now().Add(20 * time.Second))
	answered := make(chan string, 1)
	go func() {
		b := make([]byte, 1<<10)
		n, _ := slow.Read(b) // nothing is no answer
		answered <- string(b[:n])
	}()
	for i := range 3 { // also over one connection, one after the other
		resp, err := http.Post(srv.URL+"/lines", "text/plain", strings.NewReader(fmt.Sprintf("line %d\n", i)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode, string(body), err)
		}
	}
	if a := <-answered; !strings.Contains(a, " 503 ") || !strings.Contains(a, "Retry-After") {
		t.Errorf("the slow one was told %q", a)
	}
	if n := len(m.have()); n != 3 {
		t.Errorf("%d lines stored", n)
	}
}

func TestTooMuchIsRefused(t *testing.T) {
	m := &memory{wait: make(chan struct{})}
	_, h := doors(t, m, func(c *Config, _ *Parts) { c.MaxBody, c.MaxUnpacked, c.MaxRequests = 1<<10, 4<<10, 1 })
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 1<<20)
	for name, c := range map[string]struct {
		body     []byte
		encoding string
	}{
		"body":        {big, ""},
		"gzip bomb":   {zipped(t, make([]byte, 64<<10)), "gzip"},
		"zstd bomb":   {z.EncodeAll(make([]byte, 64<<10), nil), "zstd"},
		"snappy bomb": {[]byte{0x80, 0x80, 0x80, 0x80, 0x01, 0x00}, "snappy"},
		"many lines":  {zipped(t, bytes.Repeat([]byte("a\n"), 2000)), "gzip"},
	} {
		if w := post(h, "/lines", c.body, "Content-Encoding", c.encoding); w.Code != 413 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	begun, done := make(chan struct{}), make(chan int)
	go func() {
		close(begun)
		done <- post(h, "/lines", []byte("a")).Code
	}()
	<-begun
	limit := time.Now().Add(20 * time.Second)
	for { // one at a time; which of both comes first does not matter
		w := post(h, "/lines", []byte("b"))
		if w.Code == 503 && w.Header().Get("Retry-After") != "" {
			break
		}
		if time.Now().After(limit) {
			t.Fatal(w.Code)
		}
	}
	close(m.wait)
	<-done
}

func FuzzDoors(f *testing.F) {
	f.Add(0, lokiPush())
	f.Add(1, []byte(`{"streams":[{"stream":{"a":"b"},"values":[["1","x",{"k":"v"}]]}]}`))
	f.Add(2, []byte("{\"index\":{\"_index\":\"a\"}}\n{\"message\":\"x\"}\n{\"delete\":{}}\n"))
	f.Add(3, []byte("a\n{\"msg\":1}\n"))
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		b := &batch{stream: &record.Stream{}, now: 1, limit: 1 << 20}
		var err error
		switch which & 3 {
		case 0:
			err = lokiProto(body, b)
		case 1:
			err = lokiJSON(body, b)
		case 2:
			var items []item
			items, err = decodeBulk(body, "i", b)
			for _, it := range items {
				if out := it.append(nil); !json.Valid(out) {
					t.Fatalf("answer %s", out)
				}
			}
		case 3:
			err = decodeLines(body, b)
		}
		if err != nil && result(err) == "" {
			t.Fatal(err)
		}
		for _, r := range b.records {
			if r.Time <= 0 || len(r.Body) > record.MaxBody+64 || len(r.Fields) > 129 {
				t.Fatalf("%+v", r)
			}
		}
	})
}
