package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/ingest"
	"perch/logs/ingest/chunk"
	"perch/logs/ingest/push"
	"perch/logs/record"
)

const token = "T0ken"

// place is where make interop-logs installs clients.
func place(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "out", "interop"))
	if err != nil {
		t.Fatal(err)
	}
	if v := os.Getenv("PERCH_INTEROP"); v != "" {
		dir = v
	}
	return dir
}

// program returns a command of an installed client, which is on the machine or
// unpacked below place. It skips the test when it is not there.
func program(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	root := filepath.Join(place(t), "root")
	path := filepath.Join(root, name)
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath(filepath.Base(name)); err != nil {
			t.Skipf("%s is not installed: make interop-logs", name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib+":"+filepath.Join(root, "lib/x86_64-linux-gnu")+":"+filepath.Join(root, "usr/lib/syslog-ng"), "PYTHONPATH="+filepath.Join(root, "usr/lib/python3/dist-packages"))
	return cmd
}

// node returns a command that runs a script with the installed modules.
func node(t *testing.T, script, module string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := os.Stat(filepath.Join(place(t), "node_modules", module)); err != nil {
		t.Skipf("npm's %s is not installed: make interop-logs", module)
	}
	text, err := os.ReadFile(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(place(t), script) // modules are looked for beside the script
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return program(t, "usr/bin/node", append([]string{path}, args...)...)
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// memory is a store.
type memory struct {
	mu      sync.Mutex
	records []record.Record
	refuse  int // so many times at first
	changed chan struct{}
}

func newMemory() *memory { return &memory{changed: make(chan struct{}, 1), refuse: 1} }

func (m *memory) sink(_ context.Context, records []record.Record, _ []record.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse > 0 {
		m.refuse--
		return errors.New("full")
	}
	for _, r := range records {
		r.Body = bytes.Clone(r.Body)
		m.records = append(m.records, r)
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return nil
}

// lines waits until n are stored that match, each once.
func (m *memory) lines(t *testing.T, n int, form string) []record.Record {
	t.Helper()
	limit := time.After(30 * time.Second)
	match := regexp.MustCompile(form)
	for {
		m.mu.Lock()
		seen := map[string]int{}
		var out []record.Record
		for _, r := range m.records {
			if match.Match(r.Body) {
				seen[string(r.Body)]++
				out = append(out, r)
			}
		}
		all := len(m.records)
		m.mu.Unlock()
		for body, k := range seen {
			if k > 1 {
				t.Fatalf("%q is there %d times", body, k)
			}
		}
		if len(out) >= n {
			return out
		}
		select {
		case <-m.changed:
		case <-limit:
			t.Fatalf("%d lines that match %s, want %d; %d in all", len(out), form, n, all)
		}
	}
}

// twice waits until n lines are stored, whatever they say.
func (m *memory) twice(t *testing.T, n int) []record.Record {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		m.mu.Lock()
		out := append([]record.Record(nil), m.records...)
		m.mu.Unlock()
		if len(out) >= n {
			return out
		}
		select {
		case <-m.changed:
		case <-limit:
			t.Fatalf("%d lines, want %d", len(out), n)
		}
	}
}

// web serves the doors as the web door does: a token as bearer or as password.
func web(t *testing.T, m *memory) *httptest.Server {
	t.Helper()
	reg := prometheus.NewRegistry()
	p, err := push.New(push.Default(), push.Parts{Identify: func(r *http.Request) (push.Caller, error) {
		_, password, _ := r.BasicAuth()
		if password != token && r.Header.Get("Authorization") != "Bearer "+token {
			return push.Caller{}, errors.New("no token")
		}
		return push.Caller{Stream: record.Stream{Namespace: "shop", Pod: "web-1"}, Name: "web-1"}, nil
	}, Sink: m.sink, Seen: chunk.New(nil, reg)}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/loki/api/v1/push", p.Loki())
	mux.Handle("/elastic/", http.StripPrefix("/elastic", p.Elastic()))
	mux.Handle("/_bulk", p.Elastic())
	mux.Handle("/_cat/health", p.Elastic())
	mux.Handle("/otlp/v1/logs", p.OTLP())
	mux.Handle("/logs/api/v1/push", p.Lines())
	s := httptest.NewServer(recording(t, mux))
	t.Cleanup(s.Close)
	return s
}

// recorded is a request as a client sent it, kept for tests without the client.
type recorded struct {
	Path   string      `json:"path"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// recording writes the first request with a body below PERCH_RECORD.
func recording(t *testing.T, next http.Handler) http.Handler {
	dir := os.Getenv("PERCH_RECORD")
	if dir == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		path := filepath.Join(dir, strings.NewReplacer("/", "-", " ", "_").Replace(strings.TrimPrefix(t.Name(), "TestClients/"))+".json")
		if _, err := os.Stat(path); err != nil && len(body) > 0 {
			header := r.Header.Clone()
			header.Del("Authorization")
			text, _ := json.Marshal(recorded{r.URL.Path, header, body}) // plain values
			if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
				t.Error(err)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// forward opens the Forward door, which takes TLS too. With keys nobody is known
// by address.
func forward(t *testing.T, m *memory, keys ...ingest.Key) *ingest.Forward {
	t.Helper()
	cfg := ingest.Default("127.0.0.1:0", "n1")
	cfg.Keys = keys
	pair, err := tls.LoadX509KeyPair(certificate(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Certificate = func() (*tls.Certificate, error) { return &pair, nil }
	reg := prometheus.NewRegistry()
	f, err := ingest.New(cfg, ingest.Parts{Identify: func(netip.Addr) (record.Stream, bool, bool) {
		return record.Stream{Namespace: "shop", Pod: "web-1"}, true, len(keys) == 0
	}, Sink: m.sink, Seen: chunk.New(nil, reg)}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	background(t, f.Run)
	return f
}

// background runs a part until the test ends.
func background(t *testing.T, part func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func port(f *ingest.Forward) string {
	a, _ := netip.ParseAddrPort(f.Addr().String())
	return fmt.Sprint(a.Port())
}

func field(r record.Record, key string) string {
	for _, f := range r.Fields {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// ours fails when a line has not the identity that the door gave it.
func ours(t *testing.T, records []record.Record) {
	t.Helper()
	for _, r := range records {
		if r.Stream.Namespace != "shop" || r.Stream.Pod != "web-1" || r.Time == 0 {
			t.Fatalf("%q is of %+v at %d", r.Body, *r.Stream, r.Time)
		}
	}
}

func TestClients(t *testing.T) {
	t.Run("pino-loki", func(t *testing.T) {
		m := newMemory()
		m.refuse = 0 // it does not try again
		run(t, node(t, "loki.mjs", "pino-loki", web(t, m).URL, token))
		r := m.lines(t, 100, `loki line \d+`)
		ours(t, r)
		if field(r[0], "namespace") != "forged" || field(r[0], "app") != "shop" || r[0].Level != record.Error || r[1].Level != record.Info {
			t.Errorf("%s %+v", r[0].Level, r[0].Fields)
		}
	})
	t.Run("elastic", func(t *testing.T) {
		m := newMemory()
		run(t, node(t, "elastic.mjs", "@elastic/elasticsearch", web(t, m).URL, token))
		r := m.lines(t, 101, `^elastic line \d+$`)
		ours(t, r)
		if field(r[0], "index") != "logs-shop" || r[0].Level != record.Warn || r[0].Time/1e9 != 1750000000 {
			t.Errorf("%s %d %+v", r[0].Level, r[0].Time, r[0].Fields)
		}
	})
	for _, form := range []string{"json", "proto"} {
		t.Run("otlp "+form, func(t *testing.T) {
			m := newMemory()
			run(t, node(t, "otlp.mjs", "@opentelemetry/sdk-logs", web(t, m).URL, token, form))
			r := m.lines(t, 100, `^otlp line \d+$`)
			ours(t, r)
			if field(r[0], "http.status") != "500" || field(r[0], "deep") != `{"a":[1,"x"]}` || field(r[0], "scope") != "checkout" || r[0].Level != record.Error {
				t.Errorf("%s %+v", r[0].Level, r[0].Fields)
			}
		})
	}
	t.Run("fluent node", func(t *testing.T) {
		m := newMemory()
		run(t, node(t, "forward.mjs", "@fluent-org/logger", port(forward(t, m))))
		ours(t, m.lines(t, 100, `line \d+$`))
	})
	t.Run("fluent node with a key", func(t *testing.T) {
		m := newMemory()
		run(t, node(t, "forward.mjs", "@fluent-org/logger", port(forward(t, m, ingest.Key{Name: "a", Secret: "x"}, ingest.Key{Name: "edge", Secret: "s3", Namespace: "branch"})), "s3"))
		if r := m.lines(t, 100, `line \d+$`); r[0].Stream.Namespace != "branch" || field(r[0], "sender") != "edge" {
			t.Errorf("%+v %+v", *r[0].Stream, r[0].Fields)
		}
	})
	t.Run("fluent node over TLS", func(t *testing.T) {
		m := newMemory()
		ca, _ := certificate(t)
		run(t, node(t, "forward.mjs", "@fluent-org/logger", port(forward(t, m)), "", ca))
		ours(t, m.lines(t, 100, `line \d+$`))
	})
	t.Run("fluent node over TLS with a key", func(t *testing.T) {
		m := newMemory()
		ca, _ := certificate(t)
		run(t, node(t, "forward.mjs", "@fluent-org/logger", port(forward(t, m, ingest.Key{Name: "edge", Secret: "s3", Namespace: "branch"})), "s3", ca))
		if r := m.lines(t, 100, `line \d+$`); r[0].Stream.Namespace != "branch" || field(r[0], "sender") != "edge" {
			t.Errorf("%+v %+v", *r[0].Stream, r[0].Fields)
		}
	})
	t.Run("fluent python", func(t *testing.T) {
		m := newMemory()
		if err := program(t, "usr/bin/python3", "-c", "import fluent.sender").Run(); err != nil {
			t.Skip("python3-fluent-logger is not installed: make interop-logs")
		}
		run(t, program(t, "usr/bin/python3", filepath.Join("testdata", "forward.py"), port(forward(t, m))))
		ours(t, m.lines(t, 100, `^python line \d+$`))
	})
}
