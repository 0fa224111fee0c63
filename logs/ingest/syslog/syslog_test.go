package syslog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

func TestMessages(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name, in, body, at, fields string
		level                      record.Level
	}{
		{"RFC 5424 with data", `<165>1 2026-01-01T22:14:15.003Z mymachine.example.com evntslog 8710 ID47 [exampleSDID@32473 iut="3" eventSource="a\"b\]"][x y="z"] ` + "\xef\xbb\xbfAn application event",
			"An application event", "2026-01-01T22:14:15.003Z", `facility=local4 host=mymachine.example.com app=evntslog procid=8710 msgid=ID47 exampleSDID@32473.iut=3 exampleSDID@32473.eventSource=a"b] x.y=z`, record.Info},
		{"RFC 5424 with nothing", "<34>1 - - - - - -", "", "2026-01-02T03:04:05Z", "facility=auth", record.Fatal},
		{"RFC 5424 with zone", "<11>1 2026-01-02T00:00:00+01:00 h su - - - text", "text", "2026-01-01T23:00:00Z", "facility=user host=h app=su", record.Error},
		{"RFC 3164", "<34>Jan  1 22:14:15 mymachine su[12]: 'su root' failed", "'su root' failed", "2026-01-01T22:14:15Z", "facility=auth host=mymachine app=su procid=12", record.Fatal},
		{"RFC 3164 of last year", "<13>Dec 31 23:59:59 h prog: text", "text", "2025-12-31T23:59:59Z", "facility=user host=h app=prog", record.Info},
		{"RFC 3164 without host", "<13>Jan  2 03:00:00 prog: text: more", "text: more", "2026-01-02T03:00:00Z", "facility=user app=prog", record.Info},
		{"RFC 3164 with a newer time", "<12>2026-01-02T03:00:00.5Z h prog[1]: text\n", "text", "2026-01-02T03:00:00.5Z", "facility=user host=h app=prog procid=1", record.Warn},
		{"only a priority", "<15>hello world", "hello world", "2026-01-02T03:04:05Z", "facility=user", record.Debug},
		{"text that has a colon", "<14>Jan  2 03:00:00 h no program here: text", "no program here: text", "2026-01-02T03:00:00Z", "facility=user host=h", record.Info},
		{"no syslog", "plain text\r\n", "plain text", "2026-01-02T03:04:05Z", "", record.Unknown},
		{"broken data is a line as it stands", `<14>1 2026-01-02T00:00:00Z h a - - [x y="z text`, `1 2026-01-02T00:00:00Z h a - - [x y="z text`, "2026-01-02T03:04:05Z", "facility=user", record.Info},
		{"bytes that are not UTF-8 are kept", "<14>Jan  2 03:00:00 h p: \xff\xfe", "\xff\xfe", "2026-01-02T03:00:00Z", "facility=user host=h app=p", record.Info},
	} {
		var r record.Record
		Parse(&r, []byte(c.in), now)
		var fields []string
		for _, f := range r.Fields {
			fields = append(fields, f.Key+"="+f.Value)
		}
		if at := time.Unix(0, r.Time).UTC().Format(time.RFC3339Nano); string(r.Body) != c.body || at != c.at || strings.Join(fields, " ") != c.fields || r.Level != c.level {
			t.Errorf("%s: %q at %s, %s, %q", c.name, r.Body, at, r.Level, fields)
		}
	}
}

// An id stands before each of its names: what that takes has a limit, and the line stays.
func TestDataOfAnyLengthLeavesTheLine(t *testing.T) {
	id := func(n int) string { return "[" + strings.Repeat("i", n) }
	for _, c := range []struct {
		what, data   string
		fields, left int // of the data
	}{
		{"a long id", id(512<<10) + strings.Repeat(` a="1"`, 80000) + "]", 0, 80000},
		{"one beside it", id(maxName+1) + ` a="1"][x y="z"]`, 1, 1},
		{"a longest id", id(maxName) + strings.Repeat(` a="1"`, 5000) + "]", entry.MaxFields - 3, 5000 - entry.MaxFields + 3},
		{"a long name", "[x " + strings.Repeat("n", maxName+1) + `="1" a="2"]`, 1, 1},
		{"long values", "[x" + strings.Repeat(` a="`+strings.Repeat(`\"`, 1000)+`"`, 500) + "]", entry.MaxFields - 3, 500 - entry.MaxFields + 3},
		{"a datagram", id(8000) + strings.Repeat(` a="1"`, 128) + "]", 0, 128},
		{"data that says nothing", "[x" + strings.Repeat(` a="-"`, 500) + "]", 0, 0},
	} {
		msg := []byte("<165>1 2026-01-01T22:14:15.003Z h p - - " + c.data + " the line")
		var r record.Record
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		left := Parse(&r, msg, time.Unix(1e9, 0))
		runtime.ReadMemStats(&after)
		if used := int(after.TotalAlloc - before.TotalAlloc); used > 2*len(msg)+entry.MaxFields*4*maxName {
			t.Errorf("%s: %d bytes were taken for %d", c.what, used, len(msg))
		}
		if string(r.Body) != "the line" || len(r.Fields) != 3+c.fields || left != c.left {
			t.Errorf("%s: %.100q, %d fields, %d left", c.what, r.Body, len(r.Fields), left)
		}
	}
}

func TestFraming(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for _, c := range []struct {
		name, in string
		want     []string
		bad      bool
	}{
		{name: "newlines", in: "<1>a\n<1>b\r\n\n<1>last", want: []string{"<1>a", "<1>b", "", "<1>last"}},
		{name: "octets", in: "4 <1>a6 <1>b\nc", want: []string{"<1>a", "<1>b\nc"}},
		{name: "both mixed", in: "4 <1>a<1>b\n4 <1>c", want: []string{"<1>a", "<1>b", "<1>c"}},
		{name: "longer than the buffer", in: long + "\nb\n", want: []string{long, "b"}},
		{name: "text that begins with a number", in: "2026-11-21 up\n12\n7 dwarfs\n1234567890 <1>x\n4 <1>a9", want: []string{"2026-11-21 up", "12", "7 dwarfs", "1234567890 <1>x", "<1>a", "9"}},
		{name: "more octets than allowed", in: "99999999 <1>a", bad: true},
		{name: "half a message", in: "10 <1>a", want: nil},
	} {
		in := bufio.NewReaderSize(strings.NewReader(c.in), 64<<10)
		var have []string
		var err error
		for err == nil {
			var b []byte
			if b, err = next(in, 1<<20); err == nil || len(b) > 0 {
				have = append(have, string(b))
			}
		}
		if errors.Is(err, errFormat) != c.bad || fmt.Sprint(have) != fmt.Sprint(c.want) && !c.bad {
			t.Errorf("%s: %.200q %v", c.name, have, err)
		}
	}
}

type memory struct {
	mu      sync.Mutex
	records []record.Record
	refuse  int
}

func (m *memory) sink(_ context.Context, records []record.Record, _ []record.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse > 0 {
		m.refuse--
		return errors.New("full")
	}
	m.records = append(m.records, records...)
	return nil
}

func (m *memory) until(t *testing.T, n int) []record.Record {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		m.mu.Lock()
		out := append([]record.Record(nil), m.records...)
		m.mu.Unlock()
		if len(out) >= n {
			return out
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%d lines, want %d", len(out), n)
		}
	}
}

func open(t *testing.T, m *memory, allowed bool) *Syslog {
	t.Helper()
	s, err := New(Default("127.0.0.1:0", "n1"), Parts{Sink: m.sink, Identify: func(a netip.Addr) (record.Stream, bool, bool) {
		return record.Stream{Namespace: "shop", Pod: "p"}, a.IsLoopback(), allowed
	}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestLinesOverBothTransportsHaveThePodsIdentity(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		m := &memory{refuse: 2}
		s := open(t, m, true)
		c, err := net.Dial(network, s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if _, err := fmt.Fprintf(c, "<11>1 - forged app - - - line %d\n", i); err != nil {
				t.Fatal(err)
			}
		}
		r := m.until(t, 100)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if r[99].Stream.Pod != "p" || r[99].Stream.Node != "n1" || string(r[99].Body) != "line 99" || r[99].Level != record.Error {
			t.Errorf("%s: %+v %q", network, r[99].Stream, r[99].Body)
		}
		if n := testutil.ToFloat64(s.m.lines.WithLabelValues(network)); n != 100 {
			t.Errorf("%s: %v lines counted", network, n)
		}
	}
}

func TestWholeMessagesDoNotWaitForTheRestOfTheNext(t *testing.T) {
	for _, begin := range []string{"<11>half", "40 <11>half", "4"} {
		m := &memory{}
		c, err := net.Dial("tcp", open(t, m, true).Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "<11>one\n7 <11>two12 plain words\n%s", begin); err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, r := range m.until(t, 3) {
			have = append(have, string(r.Body))
		}
		if strings.Join(have, ",") != "one,two,12 plain words" {
			t.Errorf("before %q: %q", begin, have)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSendersWithoutLeaveAreCutOff(t *testing.T) {
	s := open(t, &memory{}, false)
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(n, err)
	}
	u, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	limit := time.Now().Add(20 * time.Second)
	for testutil.ToFloat64(s.m.lost.WithLabelValues("unknown")) == 0 {
		if _, err := u.Write([]byte("<1>x")); err != nil || time.Now().After(limit) {
			t.Fatalf("the datagram is not counted: %v", err)
		}
	}
}

func TestOneAddressDoesNotTakeAllConnections(t *testing.T) {
	s := open(t, &memory{}, true)
	each := s.cfg.MaxConnections / 8
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for range each {
		dial()
	}
	c := dial()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("a connection beyond the share stays open", n, err)
	}
	if n := testutil.ToFloat64(s.m.rejected.WithLabelValues("many")); n != 1 {
		t.Errorf("%v connections were rejected", n)
	}
}

// A store refuses what is too large for good, and memory has an end: so long datagrams
// are stored fewer at once, and fewer wait.
func TestLongDatagramsAreStoredFewAtOnce(t *testing.T) {
	const size = 60 << 10
	most, all := 0, 0
	s := &Syslog{cfg: Default("", ""), m: newMetrics(prometheus.NewRegistry()), parts: Parts{Sink: func(_ context.Context, records []record.Record, _ []record.Position) error {
		most, all = max(most, len(records)), all+len(records)
		return nil
	}}}
	queue := &waiting{records: make(chan record.Record, s.cfg.Queue)}
	n := 0
	for queue.put(record.Record{Body: make([]byte, size-100), Fields: []record.Field{{Key: "k", Value: strings.Repeat("v", 99)}}}) {
		n++
	}
	if n != waitingBytes/size {
		t.Errorf("%d datagrams wait", n)
	}
	close(queue.records)
	s.storeDatagrams(t.Context(), queue)
	if all != n || most != record.BatchBytes/size+1 || queue.bytes.Load() != 0 {
		t.Errorf("%d of %d were stored, %d at once; %d bytes wait", all, n, most, queue.bytes.Load())
	}
	if lost := testutil.ToFloat64(s.m.lost.WithLabelValues("buffer")); lost != 0 {
		t.Errorf("%v were lost", lost)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`<165>1 2003-10-11T22:14:15.003Z h a 1 m [x y="z"] text`))
	f.Add([]byte("<34>Oct 11 22:14:15 h su[1]: text"))
	f.Add([]byte(`<34>1 - h a - - [` + strings.Repeat("i", maxName+1) + ` a="\]"][x ` + strings.Repeat("n", maxName) + `="1"] text`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record.Record
		Parse(&r, b, time.Unix(1e9, 0))
		if r.Time == 0 || len(r.Body) > len(b) || len(r.Fields) > entry.MaxFields {
			t.Fatalf("%d %q", r.Time, r.Body)
		}
		in := bufio.NewReaderSize(strings.NewReader(string(b)), 16)
		for n := 0; ; n++ {
			if _, err := next(in, 1<<10); err != nil {
				break
			}
			if n > len(b) {
				t.Fatal("framing does not end")
			}
		}
	})
}
