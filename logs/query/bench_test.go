package query

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tinylib/msgp/msgp"

	"perch/logs/ingest"
	"perch/logs/ingest/chunk"
	"perch/logs/record"
	"perch/logs/store"
)

// The sets of lines: services that look real, with a few dozen statements each,
// ids, paths and JSON; the same with words that vary without end; and random
// base64, 90 bytes a line.
const (
	servicesSet   = "services"
	vocabularySet = "vocabulary"
	base64Set     = "base64"
)

// generator makes lines of one set.
type generator struct {
	set     string
	rnd     *rand.Rand
	streams []*record.Stream
	words   []string
	at      int64
	session [100]uint64
}

func newGenerator(set string) *generator {
	g := &generator{set: set, rnd: rand.New(rand.NewPCG(7, 7)), at: 1_790_000_000e9}
	for i := range 100 {
		g.streams = append(g.streams, &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("svc-%d-abc", i), UID: fmt.Sprintf("uid-%d", i), Container: "app", Instance: "0", Node: "n1", Output: record.Stdout, Kind: record.KindLog})
	}
	syllables := strings.Fields("con fig ure ser vice pay ment cart or der ship ping user ses sion tok en cach que ry ta ble in dex par ti tion re try time out up stream down load bal an cer")
	for range 4000 {
		w := ""
		for range 2 + g.rnd.IntN(3) {
			w += syllables[g.rnd.IntN(len(syllables))]
		}
		g.words = append(g.words, w)
	}
	return g
}

// word is one of three words of the stream at this place of its statements, or
// of all words.
func (g *generator) word(k, place int) string {
	if g.set == servicesSet {
		return g.words[(k*97+place*13+g.rnd.IntN(3))%len(g.words)]
	}
	return g.words[int(g.rnd.ExpFloat64()*300)%len(g.words)]
}

func (g *generator) next() record.Record {
	g.at += int64(g.rnd.ExpFloat64() * 1e6)
	k := int(g.rnd.ExpFloat64()*15) % 100
	if g.rnd.IntN(8) == 0 {
		g.session[k] = g.rnd.Uint64()
	}
	s := g.session[k]
	stamp := time.Unix(0, g.at).UTC().Format("2006-01-02T15:04:05.000000Z")
	level := []string{"INFO", "INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"}[g.rnd.IntN(7)]
	var b []byte
	if g.set == base64Set {
		var raw [68]byte
		for i := range raw {
			raw[i] = byte(g.rnd.Uint32())
		}
		b = fmt.Appendf(nil, "%s %s payload %s", stamp, level, base64.StdEncoding.EncodeToString(raw[:]))
		return record.Record{Time: g.at, Stream: g.streams[k], Body: b}
	}
	switch (k + g.rnd.IntN(2)) % 6 {
	case 0:
		b = fmt.Appendf(nil, `{"time":"%s","level":"%s","msg":"request served","trace_id":"%016x","method":"GET","path":"/api/v1/%s/%d","status":%d,"took_ms":%d}`, stamp, strings.ToLower(level), s, g.word(k, 1), s%9973, 200+g.rnd.IntN(4)*100, g.rnd.IntN(900))
	case 1:
		b = fmt.Appendf(nil, `%s %s [worker-%d] com.shop.%s.Service: Processed order %d for user u%x in %d ms, %s accepted`, stamp, level, s%16, g.word(k, 2), s%1e9, s>>40, g.rnd.IntN(500), g.word(k, 3))
	case 2:
		b = fmt.Appendf(nil, `10.42.%d.%d - - [%s] "POST /%s/%s HTTP/1.1" %d %d "-" "curl/8.5" rt=%.3f`, s%256, s>>8%256, stamp, g.word(k, 4), g.word(k, 5), 200+g.rnd.IntN(3)*100, g.rnd.IntN(50000), g.rnd.Float64())
	case 3:
		b = fmt.Appendf(nil, `ts=%s level=%s caller=%s.go:%d msg="%s %s failed, trying again" attempt=%d session=%x`, stamp, strings.ToLower(level), g.word(k, 6), g.rnd.IntN(900), g.word(k, 7), g.word(k, 8), g.rnd.IntN(5), s)
	case 4:
		b = fmt.Appendf(nil, `%s %s dfs.DataNode$%s: Receiving block blk_-%d src: /10.251.%d.%d:%d dest: /10.250.1.%d:50010 of %s`, stamp[:19], level, g.word(k, 9), s, s%256, s>>8%256, 30000+s%20000, s%200, g.word(k, 10))
	default:
		b = fmt.Appendf(nil, `%s %s pool %s: Connection %d to %s-%d.%s.svc.cluster.local closed after %d queries, Failed password attempts %d`, stamp, level, g.word(k, 11), s%100000, g.word(k, 12), s%40, g.word(k, 13), g.rnd.IntN(5000), g.rnd.IntN(3))
	}
	return record.Record{Time: g.at, Stream: g.streams[k], Body: b}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchLines is small enough for every run; PERCH_BENCH_LINES asks for more.
func benchLines() int {
	n := 200_000
	_, _ = fmt.Sscan(os.Getenv("PERCH_BENCH_LINES"), &n) // else the default
	return n
}

func benchStore(b *testing.B) (*store.Store, string) {
	b.Helper()
	dir := b.TempDir()
	s, err := store.Open(store.Default(dir), quiet(), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
		_ = s.Close()
	})
	return s, dir
}

func diskBytes(dir string) (n int64) {
	_ = filepath.WalkDir(filepath.Join(dir, "parts"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if i, err := d.Info(); err == nil {
				n += i.Size()
			}
		}
		return nil
	})
	return n
}

// BenchmarkIngest reports CPU seconds of the whole process per million lines,
// durable before each batch of 1000 is acknowledged, cut and indexed at the end.
func BenchmarkIngest(b *testing.B) {
	for _, set := range []string{servicesSet, vocabularySet, base64Set} {
		b.Run(set, func(b *testing.B) { benchmarkIngest(b, set) })
	}
}

func benchmarkIngest(b *testing.B, set string) {
	g := newGenerator(set)
	lines := make([]record.Record, benchLines())
	raw := 0
	for i := range lines {
		lines[i] = g.next()
		raw += len(lines[i].Body)
	}
	report := func(b *testing.B, s *store.Store, dir string, used time.Duration) {
		start := cpu()
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		used += cpu() - start
		n := float64(b.N * len(lines))
		b.ReportMetric(used.Seconds()/n*1e6, "cpu-s/Mline")
		b.ReportMetric(float64(diskBytes(dir))/float64(b.N*raw), "disk-B/B")
		b.ReportMetric(float64(raw)/float64(len(lines)), "B/line")
	}
	b.Run("direct", func(b *testing.B) {
		s, dir := benchStore(b)
		batch := make([]record.Record, 1000)
		start := cpu()
		for range b.N {
			for i := 0; i+1000 <= len(lines); i += 1000 {
				copy(batch, lines[i:])
				if err := s.Append(b.Context(), batch, nil); err != nil {
					b.Fatal(err)
				}
			}
		}
		report(b, s, dir, cpu()-start)
	})
	b.Run("forward", func(b *testing.B) {
		s, dir := benchStore(b)
		reg := prometheus.NewRegistry()
		f, err := ingest.New(ingest.Default("127.0.0.1:0", "n1"), ingest.Parts{Identify: func(netip.Addr) (record.Stream, bool, bool) {
			return record.Stream{Namespace: "shop", Pod: "p"}, true, true
		}, Sink: s.Append, Seen: chunk.New(nil, reg)}, quiet(), reg)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		defer func() { cancel(); <-done }()
		var chunks [][]byte
		for i := 0; i+1000 <= len(lines); i += 1000 {
			var body []byte
			for _, r := range lines[i : i+1000] {
				body = msgp.AppendArrayHeader(body, 2)
				body = append(body, 0xd7, 0, byte(r.Time/1e9>>24), byte(r.Time/1e9>>16), byte(r.Time/1e9>>8), byte(r.Time/1e9), byte(r.Time%1e9>>24), byte(r.Time%1e9>>16), byte(r.Time%1e9>>8), byte(r.Time%1e9))
				body = msgp.AppendMapHeader(body, 1)
				body = msgp.AppendString(body, "log")
				body = msgp.AppendStringFromBytes(body, r.Body)
			}
			chunks = append(chunks, body)
		}
		c, err := net.Dial("tcp", f.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		start := cpu()
		ack := make([]byte, 64)
		for n := range b.N {
			for i, body := range chunks {
				o := msgp.AppendArrayHeader(nil, 3)
				o = msgp.AppendString(o, "bench")
				o = msgp.AppendBytes(o, body)
				o = msgp.AppendMapHeader(o, 1)
				o = msgp.AppendString(o, "chunk")
				o = msgp.AppendString(o, fmt.Sprintf("%d-%d", n, i))
				if _, err := c.Write(o); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(ack); err != nil {
					b.Fatal(err)
				}
			}
		}
		report(b, s, dir, cpu()-start)
	})
}

// BenchmarkQuery reports CPU time per query over lines that are cut and indexed.
func BenchmarkQuery(b *testing.B) {
	s, _ := benchStore(b)
	g := newGenerator(servicesSet)
	n := benchLines()
	batch := make([]record.Record, 1000)
	from := g.at
	for i := 0; i < n; i += 1000 {
		for k := range batch {
			batch[k] = g.next()
		}
		if i == n/2 {
			batch[500].Body = append(batch[500].Body, " needle48213x"...)
		}
		if err := s.Append(b.Context(), batch, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	e := New(s, quiet())
	for _, c := range []struct{ name, q string }{
		{"rare id", "needle48213x"}, {"absent id", "absent999x"}, {"common newest 100", "INFO"}, {"and", "Failed password"}, {"phrase", `"Receiving block"`},
		{"prefix", "Connec*"}, {"regex with literal", `~"Receiving block blk_-6[0-9]*7 "`}, {"regex without", `~[a-f]{3}9[0-9]z`}, {"field", "status:500"},
	} {
		for _, kind := range []string{"first 100", "count"} {
			b.Run(c.name+"/"+kind, func(b *testing.B) {
				start := cpu()
				r := Request{Text: c.q, From: from, To: g.at, Limit: 100}
				hits := int64(0)
				for range b.N {
					if kind == "count" {
						h, err := e.Histogram(b.Context(), r)
						if err != nil || h.Partial {
							b.Fatal(err, h.Reason)
						}
						hits = h.Total
						continue
					}
					hits = 0
					if sum, err := e.Query(b.Context(), r, func(*Line) error { hits++; return nil }); err != nil || sum.Partial {
						b.Fatal(err, sum.Reason)
					}
				}
				b.ReportMetric((cpu()-start).Seconds()/float64(b.N)*1e3, "cpu-ms")
				b.ReportMetric(float64(hits), "hits")
			})
		}
	}
	b.Run("histogram by level", func(b *testing.B) {
		start := cpu()
		for range b.N {
			if _, err := e.Histogram(b.Context(), Request{From: from, To: g.at}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((cpu()-start).Seconds()/float64(b.N)*1e3, "cpu-ms")
	})
}
