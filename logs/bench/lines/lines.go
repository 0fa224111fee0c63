package lines

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"perch/logs/record"
)

// Sets of lines.
const (
	Services   = "services"
	Vocabulary = "vocabulary"
	Base64     = "base64"
)

// Streams is the number of streams of a generator.
const Streams = 100

// Start is the time of the first line, ns.
const Start = 1_790_000_000e9

// Generator makes lines of one set.
type Generator struct {
	set     string
	rnd     *rand.Rand
	streams []*record.Stream
	words   []string
	at      int64
	session [Streams]uint64
}

// New makes a generator whose lines depend on set and seed only.
func New(set string, seed uint64) *Generator {
	g := &Generator{set: set, rnd: rand.New(rand.NewPCG(seed, 7)), at: Start}
	for i := range Streams {
		g.streams = append(g.streams, Stream(i))
	}
	syllables := strings.Fields("con fig ure ser vice pay ment cart or der ship ping user ses sion tok en cach que ry ta ble in dex par ti tion re try time out up stream down load bal an cer")
	count := 4000
	if set == Vocabulary {
		count = 40000
	}
	for range count {
		w := ""
		for range 2 + g.rnd.IntN(3) {
			w += syllables[g.rnd.IntN(len(syllables))]
		}
		g.words = append(g.words, w)
	}
	return g
}

// Stream is the stream with number i.
func Stream(i int) *record.Stream {
	return &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("svc-%d-abc", i), UID: fmt.Sprintf("uid-%d", i), Container: "app", Instance: "0", Node: "n1", Output: record.Stdout, Kind: record.KindLog}
}

// word is one of three words of the stream at this place of its statements, or
// of all words.
func (g *Generator) word(k, place int) string {
	if g.set == Services {
		return g.words[(k*97+place*13+g.rnd.IntN(3))%len(g.words)]
	}
	return g.words[int(g.rnd.ExpFloat64()*float64(len(g.words)/12))%len(g.words)]
}

// Next makes a line and says of which stream, by number. Lines ascend in time,
// a thousand a second.
func (g *Generator) Next() (record.Record, int) {
	g.at += int64(g.rnd.ExpFloat64() * 1e6)
	k := int(g.rnd.ExpFloat64()*15) % Streams
	if g.rnd.IntN(8) == 0 {
		g.session[k] = g.rnd.Uint64()
	}
	return record.Record{Time: g.at, Stream: g.streams[k], Body: g.body(k)}, k
}

func (g *Generator) body(k int) []byte {
	s := g.session[k]
	stamp := time.Unix(0, g.at).UTC().Format("2006-01-02T15:04:05.000000Z")
	level := []string{"INFO", "INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"}[g.rnd.IntN(7)]
	if g.set == Base64 {
		var raw [68]byte
		for i := range raw {
			raw[i] = byte(g.rnd.Uint32())
		}
		return fmt.Appendf(nil, "%s %s payload %s", stamp, level, base64.StdEncoding.EncodeToString(raw[:]))
	}
	switch (k + g.rnd.IntN(2)) % 6 {
	case 0:
		return fmt.Appendf(nil, `{"time":"%s","level":"%s","msg":"request served","trace_id":"%016x","method":"GET","path":"/api/v1/%s/%d","status":%d,"took_ms":%d}`, stamp, strings.ToLower(level), s, g.word(k, 1), s%9973, 200+g.rnd.IntN(4)*100, g.rnd.IntN(900))
	case 1:
		return fmt.Appendf(nil, `%s %s [worker-%d] com.shop.%s.Service: Processed order %d for user u%x in %d ms, %s accepted`, stamp, level, s%16, g.word(k, 2), s%1e9, s>>40, g.rnd.IntN(500), g.word(k, 3))
	case 2:
		return fmt.Appendf(nil, `10.42.%d.%d - - [%s] "POST /%s/%s HTTP/1.1" %d %d "-" "curl/8.5" rt=%.3f`, s%256, s>>8%256, stamp, g.word(k, 4), g.word(k, 5), 200+g.rnd.IntN(3)*100, g.rnd.IntN(50000), g.rnd.Float64())
	case 3:
		return fmt.Appendf(nil, `ts=%s level=%s caller=%s.go:%d msg="%s %s failed, trying again" attempt=%d session=%x`, stamp, strings.ToLower(level), g.word(k, 6), g.rnd.IntN(900), g.word(k, 7), g.word(k, 8), g.rnd.IntN(5), s)
	case 4:
		return fmt.Appendf(nil, `%s %s dfs.DataNode$%s: Receiving block blk_-%d src: /10.251.%d.%d:%d dest: /10.250.1.%d:50010 of %s`, stamp[:19], level, g.word(k, 9), s, s%256, s>>8%256, 30000+s%20000, s%200, g.word(k, 10))
	default:
		return fmt.Appendf(nil, `%s %s pool %s: Connection %d to %s-%d.%s.svc.cluster.local closed after %d queries, Failed password attempts %d`, stamp, level, g.word(k, 11), s%100000, g.word(k, 12), s%40, g.word(k, 13), g.rnd.IntN(5000), g.rnd.IntN(3))
	}
}
