package ingest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluent/fluent-logger-golang/fluent"
	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tinylib/msgp/msgp"

	"perch/logs/ingest/chunk"
	"perch/logs/ingest/entry"
	"perch/logs/ingest/source"
	"perch/logs/record"
)

type memory struct {
	mu      sync.Mutex
	records []record.Record
	refuse  int
	hold    func() // before anything is stored

	positions []record.Position
	sources   *source.Sources
}

func (m *memory) sink(_ context.Context, records []record.Record, positions []record.Position) error {
	if m.hold != nil {
		m.hold()
	}
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
	m.positions = append(m.positions, positions...)
	return nil
}

func (m *memory) have() []record.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]record.Record(nil), m.records...)
}

func start(t *testing.T, m *memory, change func(*Config), identify Identify) *Forward {
	t.Helper()
	cfg := Default("127.0.0.1:0", "n1")
	if change != nil {
		change(&cfg)
	}
	if identify == nil {
		identify = func(netip.Addr) (record.Stream, bool, bool) { return record.Stream{}, false, true }
	}
	reg := prometheus.NewRegistry()
	m.mu.Lock()
	seen := chunk.New(m.positions, reg)
	m.mu.Unlock()
	f, err := New(cfg, Parts{Identify: identify, Sink: m.sink, Seen: seen, Sources: m.sources}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestFluentLoggerWithAcknowledgement(t *testing.T) {
	m := &memory{refuse: 2}
	f := start(t, m, nil, func(a netip.Addr) (record.Stream, bool, bool) {
		return record.Stream{Namespace: "shop", Pod: "web-1", UID: "u1"}, a.IsLoopback(), true
	})
	addr := f.Addr().(*net.TCPAddr)
	c, err := fluent.New(fluent.Config{FluentHost: "127.0.0.1", FluentPort: addr.Port, RequestAck: true, SubSecondPrecision: true})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 10, 0, 0, 123456789, time.UTC)
	for i := range 5 {
		if err := c.PostWithTime("app.web", at, map[string]any{"log": fmt.Sprintf("line %d\n", i), "status": 500, "ok": true, "namespace": "forged", "nested": map[string]any{"a": []int{1}}}); err != nil {
			t.Fatal(err)
		}
		if n := len(m.have()); n != i+1 { // acknowledged means stored
			t.Fatalf("have %d records after %d acknowledgements", n, i+1)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r := m.have()[4]
	want := record.Stream{Namespace: "shop", Pod: "web-1", UID: "u1", Node: "n1", Output: "forward", Kind: "log"}
	fields := map[string]string{}
	for _, x := range r.Fields {
		fields[x.Key] = x.Value
	}
	if *r.Stream != want || string(r.Body) != "line 4" || r.Time != at.UnixNano() || fields["status"] != "500" || fields["ok"] != "true" ||
		fields["namespace"] != "forged" || fields["nested"] != `{"a":[1]}` || fields["tag"] != "app.web" {
		t.Fatalf("%+v %+v %q %v", r, *r.Stream, r.Body, fields)
	}
}

func TestTheSenderSaysTheLevel(t *testing.T) {
	for _, c := range []struct {
		name       string
		sent, meta map[string]any
		want       record.Level
		fields     string
	}{
		{"a name", map[string]any{"message": "refused", "level": "error"}, nil, record.Error, "level=error"},
		{"pino's number", map[string]any{"msg": "boom", "level": 50}, nil, record.Error, "level=50"},
		{"syslog's number", map[string]any{"msg": "boom", "level": 3}, nil, record.Unknown, "level=3"},
		{"in the metadata", map[string]any{"msg": "boom"}, map[string]any{"severity": "WARN"}, record.Warn, "metadata.severity=WARN"},
		{"in both", map[string]any{"msg": "boom", "level": "info"}, map[string]any{"level": "error"}, record.Info, "level=info metadata.level=error"},
		{"without a line", map[string]any{"level": "warn"}, nil, record.Warn, ""},
	} {
		var r record.Record
		b, err := msgp.AppendIntf(nil, c.sent)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fill(&r, b); err != nil {
			t.Fatal(err)
		}
		if c.meta != nil {
			if b, err = msgp.AppendIntf(nil, c.meta); err != nil {
				t.Fatal(err)
			}
			if _, err := fillMeta(&r, b); err != nil {
				t.Fatal(err)
			}
		}
		var have []string
		for _, f := range r.Fields {
			have = append(have, f.Key+"="+f.Value)
		}
		if r.Level != c.want || strings.Join(have, " ") != c.fields {
			t.Errorf("%s: level %s, fields %q; want %s, %q", c.name, r.Level, have, c.want, c.fields)
		}
	}
}

func anEntry(body string, timeForm int) []byte {
	b := msgp.AppendArrayHeader(nil, 2)
	switch timeForm {
	case 0:
		b = append(b, 0xd7, 0, 0, 0, 0, 9, 0, 0, 0, 7)
	case 1:
		b = msgp.AppendInt(b, 9)
	case 2:
		b = msgp.AppendFloat64(b, 9.5)
	case 3: // [time, metadata]
		b = msgp.AppendArrayHeader(b, 2)
		b = append(b, 0xc7, 8, 0, 0, 0, 0, 9, 0, 0, 0, 7)
		b = msgp.AppendMapHeader(b, 0)
	}
	b = msgp.AppendMapHeader(b, 1)
	b = msgp.AppendString(b, "message")
	return msgp.AppendString(b, body)
}

func packed(chunk, compressed string, asString bool, body []byte) []byte {
	b := msgp.AppendArrayHeader(nil, 3)
	b = msgp.AppendString(b, "t")
	if asString {
		b = msgp.AppendStringFromBytes(b, body)
	} else {
		b = msgp.AppendBytes(b, body)
	}
	b = msgp.AppendMapHeader(b, 3)
	b = msgp.AppendString(b, "size")
	b = msgp.AppendInt(b, 1)
	b = msgp.AppendString(b, "chunk")
	b = msgp.AppendString(b, chunk)
	b = msgp.AppendString(b, "compressed")
	return msgp.AppendString(b, compressed)
}

func zip(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&out)
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func dial(t *testing.T, f *Forward) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func ack(t *testing.T, c net.Conn) string {
	t.Helper()
	var m map[string]any
	b := make([]byte, 256)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := msgp.ReadIntfBytes(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	m, _ = v.(map[string]any)
	s, _ := m["ack"].(string)
	return s
}

func TestAllModesAndDoubledChunks(t *testing.T) {
	m := &memory{}
	f := start(t, m, nil, nil)
	c := dial(t, f)
	forward := msgp.AppendArrayHeader(nil, 3)
	forward = msgp.AppendString(forward, "t")
	forward = msgp.AppendArrayHeader(forward, 2)
	forward = append(append(forward, anEntry("f1", 1)...), anEntry("f2", 3)...)
	forward = msgp.AppendMapHeader(forward, 1)
	forward = msgp.AppendString(forward, "chunk")
	forward = msgp.AppendString(forward, "c1")
	message := msgp.AppendArrayHeader(nil, 4)
	message = msgp.AppendString(message, "t")
	message = append(message, anEntry("m1", 0)[1:]...)
	message = msgp.AppendNil(message)
	for i, b := range [][]byte{
		message, forward,
		packed("c2", "text", false, append(anEntry("p1", 0), anEntry("p2", 2)...)),
		packed("c3", "text", true, anEntry("p3", 0)),
		packed("c4", "gzip", false, zip(t, anEntry("z1", 0), anEntry("z2", 3))),
		packed("c4", "gzip", false, zip(t, anEntry("z1", 0), anEntry("z2", 3))),
	} {
		for len(b) > 0 { // in small pieces
			n := min(len(b), 7)
			if _, err := c.Write(b[:n]); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		if i > 0 {
			if have, want := ack(t, c), fmt.Sprintf("c%d", min(i, 4)); have != want {
				t.Fatalf("ack %q, want %q", have, want)
			}
		}
	}
	var have []string
	for _, r := range m.have() {
		have = append(have, string(r.Body))
		if r.Time/1e9 != 9 || r.Stream.Namespace != record.HostNamespace {
			t.Fatalf("%s at %d from %s", r.Body, r.Time, r.Stream.Namespace)
		}
	}
	if strings.Join(have, " ") != "m1 f1 f2 p1 p2 p3 z1 z2" {
		t.Fatalf("have %v", have)
	}
	// After a restart of the door it is still known.
	f = start(t, m, nil, nil)
	c = dial(t, f)
	if _, err := c.Write(packed("c3", "text", true, anEntry("p3", 0))); err != nil {
		t.Fatal(err)
	}
	if have := ack(t, c); have != "c3" || len(m.have()) != 8 {
		t.Fatalf("ack %q, %d records", have, len(m.have()))
	}
}

// closed waits for the door to close the connection.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes from a connection that should be closed", n)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatal("connection stays open")
	}
}

func TestBadSendersAreCutOffAndCounted(t *testing.T) {
	m := &memory{}
	f := start(t, m, func(c *Config) { c.MaxMessage, c.MaxUnpacked = 1<<20, 1<<20 }, nil)
	huge := msgp.AppendArrayHeader(nil, 2)
	huge = msgp.AppendString(huge, "t")
	huge = append(huge, 0xc6, 0x7f, 0, 0, 0, 1)
	for name, c := range map[string]struct {
		send   []byte
		reason string
	}{
		"HTTP":        {[]byte("GET / HTTP/1.1\r\n\r\n"), "format"},
		"huge length": {huge, "large"},
		"gzip bomb":   {packed("b", "gzip", false, zip(t, make([]byte, 8<<20))), "large"},
		"not gzip":    {packed("n", "gzip", false, []byte("plain")), "format"},
		"bad entries": {packed("e", "text", false, []byte{1, 2, 3}), "format"},
		"bad packing": {packed("e", "lz4", false, nil), "format"},
	} {
		t.Run(name, func(t *testing.T) {
			before := testutil.ToFloat64(f.m.rejected.WithLabelValues(c.reason))
			conn := dial(t, f)
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			closed(t, conn)
			limit := time.After(time.Minute)
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for testutil.ToFloat64(f.m.rejected.WithLabelValues(c.reason)) != before+1 {
				select {
				case <-tick.C:
				case <-limit:
					t.Fatalf("not counted as %s", c.reason)
				}
			}
		})
	}
	if n := len(m.have()); n != 0 {
		t.Fatalf("%d records stored", n)
	}
}

func TestABadEntryDoesNotTakeTheGoodOnesWithIt(t *testing.T) {
	m := &memory{}
	f := start(t, m, nil, nil)
	c := dial(t, f)
	notMap := append(msgp.AppendInt(msgp.AppendArrayHeader(nil, 2), 9), 0xc0)
	noPair := msgp.AppendInt(msgp.AppendArrayHeader(nil, 1), 9)
	group := append(msgp.AppendArrayHeader(nil, 2), 0x92, 0xd7, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x80, 0x80)
	many := msgp.AppendMapHeader(msgp.AppendInt(msgp.AppendArrayHeader(nil, 2), 9), entry.MaxFields+3)
	many = msgp.AppendString(msgp.AppendString(many, "log"), "many")
	for i := range entry.MaxFields + 2 {
		many = msgp.AppendInt(msgp.AppendString(many, fmt.Sprint("k", i)), i)
	}
	meta := msgp.AppendArrayHeader(nil, 2)
	meta = msgp.AppendInt(msgp.AppendArrayHeader(meta, 2), 9)
	meta = msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(meta, 1), "source"), "otel")
	meta = msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(meta, 1), "log"), "meta")
	body := slices.Concat(anEntry("one", 0), notMap, noPair, group, anEntry("two", 1), many, meta, []byte{0x92, 0x01}) // the last is cut short
	if _, err := c.Write(packed("c", "text", false, body)); err != nil {
		t.Fatal(err)
	}
	if have := ack(t, c); have != "c" {
		t.Fatal(have)
	}
	var have []string
	for _, r := range m.have() {
		have = append(have, string(r.Body))
	}
	if strings.Join(have, " ") != "one two many meta" {
		t.Fatalf("have %q", have)
	}
	if bad, left := testutil.ToFloat64(f.m.bad), testutil.ToFloat64(f.m.fields); bad != 3 || left != 2 {
		t.Fatalf("%v bad entries, %v fields left out", bad, left)
	}
	if r := m.have()[3]; !slices.Contains(r.Fields, record.Field{Key: "metadata.source", Value: "otel"}) {
		t.Fatalf("fields %+v", r.Fields)
	}
}

// A clock that is wrong loses no lines: only the two times that mark groups are left out.
func TestTimesBefore1970AreNow(t *testing.T) {
	var body []byte
	list := func(text string, at []byte) {
		body = append(append(msgp.AppendArrayHeader(body, 2), at...), 0x81)
		body = msgp.AppendString(msgp.AppendString(body, "log"), text)
	}
	list("float", msgp.AppendFloat64(nil, -0.5))
	list("mark", msgp.AppendFloat64(nil, -1))
	list("small", msgp.AppendFloat32(nil, -3e8))
	list("int", msgp.AppendInt(nil, -3))
	list("mark", msgp.AppendInt(nil, -2))
	list("none", msgp.AppendInt(nil, -1e15)) // no time
	list("nil", msgp.AppendNil(nil))
	var have []string
	bad, err := entries(body, func(at int64, _, fields []byte) error {
		var r record.Record
		_, err := fill(&r, fields)
		have = append(have, fmt.Sprint(string(r.Body), at))
		return err
	})
	if err != nil || bad != 1 || strings.Join(have, " ") != "float0 small0 int0 nil0" {
		t.Errorf("%d bad, have %q (%v)", bad, have, err)
	}
}

func TestASenderOverItsLimitsWaitsForItsAcknowledgement(t *testing.T) {
	limits := source.Limits{Lines: 100, Bytes: 1 << 30, Burst: 100 * time.Millisecond, Known: 8} // 10 lines at once
	sources, err := source.New(limits, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{sources: sources}
	f := start(t, m, nil, nil)
	c := dial(t, f)
	begin := time.Now()
	for i := range 5 {
		var body []byte
		for range 10 {
			body = append(body, anEntry("x", 0)...)
		}
		if _, err := c.Write(packed(fmt.Sprint(i), "text", false, body)); err != nil {
			t.Fatal(err)
		}
		ack(t, c)
	}
	if took := time.Since(begin); took < 300*time.Millisecond { // 50 lines, 10 of them free
		t.Fatalf("50 lines took %s at 100 a second", took)
	}
	if n := len(m.have()); n != 50 {
		t.Fatalf("%d lines stored", n)
	}
}

func TestSendersWithoutLeaveAreCutOff(t *testing.T) {
	f := start(t, &memory{}, nil, func(netip.Addr) (record.Stream, bool, bool) { return record.Stream{}, false, false })
	closed(t, dial(t, f))
}

func TestHandshake(t *testing.T) {
	m := &memory{}
	f := start(t, m, func(c *Config) {
		c.Keys = []Key{{Name: "other", Secret: "s2"}, {Name: "edge", Secret: "secret", Namespace: "branch"}}
	}, func(netip.Addr) (record.Stream, bool, bool) { return record.Stream{}, false, false })
	for _, key := range []string{"wrong", "secret"} {
		c := dial(t, f)
		b := make([]byte, 512)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		v, _, err := msgp.ReadIntfBytes(b[:n])
		if err != nil {
			t.Fatal(err)
		}
		nonce := v.([]any)[1].(map[string]any)["nonce"].([]byte)
		ping := msgp.AppendArrayHeader(nil, 6)
		for _, s := range []string{"PING", "me", "salt", keyDigest([]byte("salt"), []byte("me"), nonce, key), "", ""} {
			ping = msgp.AppendString(ping, s)
		}
		if _, err := c.Write(append(ping, packed("k", "text", false, anEntry("hello", 0))...)); err != nil {
			t.Fatal(err)
		}
		if n, err = c.Read(b); err != nil {
			t.Fatal(err)
		}
		v, rest, err := msgp.ReadIntfBytes(b[:n])
		if err != nil || v.([]any)[1] != (key == "secret") {
			t.Fatal(v, err)
		}
		if key == "wrong" {
			closed(t, c)
			continue
		}
		if len(rest) == 0 {
			if got := ack(t, c); got != "k" {
				t.Fatal(got)
			}
		}
	}
	r := m.have()
	if len(r) != 1 {
		t.Fatal("only the right key may send")
	}
	if r[0].Stream.Namespace != "branch" || !slices.Contains(r[0].Fields, record.Field{Key: "sender", Value: "edge"}) {
		t.Fatalf("identity %+v %+v", r[0].Stream, r[0].Fields)
	}
}

func TestHeartbeat(t *testing.T) {
	f := start(t, &memory{}, nil, nil)
	c, err := net.Dial("udp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestEventStandsBetweenThePodsLines(t *testing.T) {
	r := Event(EventValues{Time: time.Unix(5, 0), Namespace: "shop", Kind: "Pod", Name: "web-1", UID: "u", Type: "Warning", Reason: "BackOff", Message: "restarting", Count: 3})
	if r.Stream.Pod != "web-1" || r.Stream.Kind != record.KindEvent || r.Level != record.Warn || string(r.Body) != "BackOff: restarting" || r.Time != 5e9 {
		t.Fatalf("%+v %+v", r, r.Stream)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(packed("c", "text", false, append(anEntry("a", 0), anEntry("b", 3)...)))
	f.Add(packed("c", "gzip", true, anEntry("a", 1)))
	m := msgp.AppendArrayHeader(nil, 3)
	m = msgp.AppendString(m, "t")
	f.Add(append(m, anEntry("x", 2)[1:]...))
	f.Add(packed("c", "text", false, slices.Concat([]byte{0x92, 9}, odd())))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := newExtent()
		need, bad := whole.pass(b, 1<<20)
		for e, n := newExtent(), 0; n < len(b) && n < 64; n++ { // a byte at a time it is the same
			if k, err := e.pass(b[:n], 1<<20); err == nil && k == 0 && (bad != nil || need != 0 || e.at != whole.at) {
				t.Fatalf("ends at %d of %d, whole %d %d %v", e.at, n, whole.at, need, bad)
			}
		}
		m, rest, err := decode(b)
		if err != nil {
			return
		}
		if bad == nil && (need != 0 || whole.at != len(b)-len(rest)) {
			t.Fatalf("ends at %d, need %d; decoded up to %d", whole.at, need, len(b)-len(rest))
		}
		if m.compressed {
			if m.packed, err = inflate(m.packed, 1<<10, 1<<20, func() error { return nil }); err != nil {
				return
			}
		}
		_, _ = entries(m.packed, func(_ int64, meta, fields []byte) error {
			var r record.Record
			_, err := fill(&r, fields)
			if err == nil && meta != nil {
				_, err = fillMeta(&r, meta)
			}
			if len(r.Body) > record.MaxBody+64 || len(r.Fields) > entry.MaxFields {
				t.Fatalf("a line of %d bytes, %d fields", len(r.Body), len(r.Fields))
			}
			return err
		})
	})
}

func BenchmarkPackedForward(b *testing.B) {
	var body []byte
	for i := range 1000 {
		body = append(body, 0x92, 0xd7, 0)
		body = binary.BigEndian.AppendUint64(body, uint64(i))
		body = msgp.AppendMapHeader(body, 2)
		body = msgp.AppendString(body, "source")
		body = msgp.AppendString(body, "stdout")
		body = msgp.AppendString(body, "log")
		body = msgp.AppendString(body, strings.Repeat("abcdefg ", 18))
	}
	msg := packed("c", "text", false, body)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		m, _, err := decode(msg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := entries(m.packed, func(_ int64, _, f []byte) error {
			var r record.Record
			_, err := fill(&r, f)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}
