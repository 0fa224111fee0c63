package query

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/store"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func testConfig(t testing.TB, block int) store.Config {
	cfg := store.Default(t.TempDir())
	cfg.BlockBytes, cfg.HeadBytes, cfg.LearnBlocks, cfg.PartitionBytes, cfg.SealBytes = block, 8*block, 4, int64(10*block), 2*block
	return cfg
}

func testStore(t testing.TB, block int) *store.Store {
	t.Helper()
	s, err := store.Open(testConfig(t, block), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func goldenLines(t testing.TB) []record.Record { return linesOf(t, "testdata/lines.txt") }

func linesOf(t testing.TB, file string) []record.Record {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []record.Record
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		l, fields, _ := strings.Cut(l, "## ")
		f := strings.SplitN(l, "|", 4)
		n, err := strconv.Atoi(f[0])
		if err != nil {
			t.Fatal(l)
		}
		s := strings.Split(f[1], "/")
		for i := range s {
			s[i] = strings.Trim(s[i], "-")
		}
		r := record.Record{Time: int64(n) * 1e9, Body: []byte(strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(f[3])),
			Stream: &record.Stream{Namespace: s[0], Pod: s[1], Container: s[2], Output: s[3], Node: "n1", Kind: record.KindLog}}
		r.Level, _ = record.ParseLevel(f[2])
		if s[3] == record.Event {
			r.Stream.Kind = record.KindEvent
		}
		if len(s) > 4 {
			r.Stream.Kind = s[4]
		}
		for _, f := range strings.Fields(fields) {
			k, v, _ := strings.Cut(f, "=")
			r.Fields = append(r.Fields, record.Field{Key: k, Value: v})
		}
		if s[3] == record.Forward {
			r.Fields = []record.Field{{Key: "source", Value: "syslog"}, {Key: "facility", Value: "authpriv"}}
		}
		out = append(out, r)
	}
	return out
}

func engineNumbers(t testing.TB, e *Engine, q string, order Order) []int {
	t.Helper()
	var out []int
	_, err := e.Query(t.Context(), Request{Text: q, From: minTime, To: maxTime, Limit: 10000, Order: order}, func(l *Line) error {
		out = append(out, int(l.Time/1e9))
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return out
}

func TestGoldenQueriesOnEngineAndNaiveScan(t *testing.T) {
	t.Run("language", func(t *testing.T) { golden(t, "testdata/lines.txt", "testdata/golden.txt", 60) })
	t.Run("shapes", func(t *testing.T) { golden(t, "testdata/shapes.lines.txt", "testdata/shapes.golden.txt", 60) })
	t.Run("kinds", func(t *testing.T) { golden(t, "testdata/kinds.lines.txt", "testdata/kinds.golden.txt", 39) })
}

func golden(t *testing.T, linesFile, queriesFile string, least int) {
	lines := linesOf(t, linesFile)
	s := testStore(t, 1<<20)
	e := New(s, quiet())
	b, err := os.ReadFile(queriesFile)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T) {
		count := 0
		for _, row := range strings.Split(strings.TrimRight(string(b), "\n"), "\n")[1:] {
			at := strings.LastIndex(row, "=>")
			q := strings.TrimSpace(row[:at])
			var want []int
			for _, f := range strings.Fields(row[at+2:]) {
				n, _ := strconv.Atoi(f)
				want = append(want, n)
			}
			parsed, err := Parse(q)
			if err != nil {
				t.Errorf("%s: %v", q, err)
				continue
			}
			var scan []int
			for i := range lines {
				if naive(parsed.root, &lines[i]) {
					scan = append(scan, int(lines[i].Time/1e9))
				}
			}
			if !slices.Equal(scan, want) {
				t.Errorf("naive scan of %s: have %v, want %v", q, scan, want)
			}
			if have := engineNumbers(t, e, q, OldestFirst); !slices.Equal(have, want) {
				t.Errorf("engine, %s: have %v, want %v", q, have, want)
			}
			have := engineNumbers(t, e, q, NewestFirst)
			slices.Reverse(have)
			if !slices.Equal(have, want) {
				t.Errorf("engine, newest first, %s: have %v, want %v", q, have, want)
			}
			count++
		}
		if count < least {
			t.Errorf("only %d golden queries", count)
		}
	}
	if err := s.Append(t.Context(), lines, nil); err != nil {
		t.Fatal(err)
	}
	t.Run("heads", check)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("blocks with index", check)
}

var vocabulary = strings.Fields("GET POST request served failed Failed FAILED payment info warn error cart-7 x.y café id=5 status=500 status=200 took=1.5 a b ab abc pod web")

func randomLine(rnd *rand.Rand, n int) []byte {
	w := func() string { return vocabulary[rnd.IntN(len(vocabulary))] }
	switch n % 11 {
	case 1:
		return fmt.Appendf(nil, "%c1120 10:11:12.123456  %d %s.go:%d] %s %s req%d", "IWEF"[rnd.IntN(4)], rnd.IntN(90), "abc"[:1+rnd.IntN(3)], rnd.IntN(50), w(), w(), rnd.IntN(3000))
	case 2:
		return fmt.Appendf(nil, `10.0.0.%d - web [20/Nov/2026:10:00:00 +0000] "%s /api/v%d/cart HTTP/1.1" %d %d "-" "abc"`, rnd.IntN(9), []string{"GET", "POST"}[rnd.IntN(2)], rnd.IntN(3), 200+rnd.IntN(4)*100, rnd.IntN(900))
	case 3:
		return fmt.Appendf(nil, "<%d>Nov 20 10:00:07 db-%d sshd[%d]: %s %s", rnd.IntN(192), rnd.IntN(3), rnd.IntN(50), w(), w())
	}
	if n%7 == 0 {
		return fmt.Appendf(nil, `{"level":"%s","msg":"%s %s","status":%d,"n":{"id":"req%d"}}`, []string{"info", "error"}[rnd.IntN(2)],
			vocabulary[rnd.IntN(len(vocabulary))], vocabulary[rnd.IntN(len(vocabulary))], 200+rnd.IntN(4)*100, rnd.IntN(3000))
	}
	var b strings.Builder
	for range 1 + rnd.IntN(9) {
		b.WriteString(vocabulary[rnd.IntN(len(vocabulary))])
		b.WriteString([]string{" ", " ", " ", "-", ": ", "\n"}[rnd.IntN(6)])
	}
	fmt.Fprintf(&b, "req%d w%s", rnd.IntN(3000), string(rune('a'+rnd.IntN(26)))+string(rune('a'+rnd.IntN(26)))+"zz")
	return []byte(b.String())
}

func randomQuery(rnd *rand.Rand, depth int) string {
	if depth > 0 && rnd.IntN(2) == 0 {
		a, b := randomQuery(rnd, depth-1), randomQuery(rnd, depth-1)
		return []string{a + " " + b, "(" + a + " or " + b + ")", a + " -(" + b + ")", "(" + a + ") and not " + b}[rnd.IntN(4)]
	}
	w := vocabulary[rnd.IntN(len(vocabulary))]
	switch rnd.IntN(20) {
	case 14:
		return "severity:" + []string{"info", "error", "crit*", "*"}[rnd.IntN(4)]
	case 15:
		return []string{"thread:>40", "pid:17", "app:sshd", "host:db-1", "facility:auth*", "caller:ab.go*"}[rnd.IntN(6)]
	case 16:
		return []string{"method:get", "path:/api/v1/cart", "path:/api/v2*", "status:300", "bytes:<100", `protocol:"HTTP/1.1"`}[rnd.IntN(6)]
	case 17:
		return fmt.Sprintf("msg:~%s", []string{"^GET", "request$", "a.*b"}[rnd.IntN(3)])
	case 0:
		return fmt.Sprintf("req%d", rnd.IntN(3000))
	case 1:
		return fmt.Sprintf("req%d*", rnd.IntN(300))
	case 2:
		return w[:1+rnd.IntN(len(w))] + "*"
	case 3:
		return `"` + w + `"`
	case 4:
		return `"` + w + " " + vocabulary[rnd.IntN(len(vocabulary))] + `"`
	case 5:
		return "level:>=" + []string{"info", "warn", "error"}[rnd.IntN(3)]
	case 6:
		return fmt.Sprintf("status:>=%d", 200+rnd.IntN(4)*100)
	case 7:
		return fmt.Sprintf("n.id:req%d", rnd.IntN(3000))
	case 8:
		return fmt.Sprintf("pod:web-%d", rnd.IntN(5))
	case 18:
		return `~"` + strings.ReplaceAll(randomExpression(rnd, 2), `"`, `\"`) + `"`
	case 19: // words that stand in variables, with what is around them
		return []string{`"status=500"`, `"req1` + strconv.Itoa(rnd.IntN(100)) + `"*`, "500", `"cart-7"`, `"ab3 abc"`, `took=1*`, "SERVED1", `"served2 Failed"*`, `café`, `"Failed0\n"`}[rnd.IntN(10)]
	case 9:
		return "~" + []string{`req1\d+`, `payment.*error`, `(?i)failed`, `"served failed GET"`, `" w[a-c]"`, `status=(200|500)`}[rnd.IntN(6)]
	case 10:
		return "w" + string(rune('a'+rnd.IntN(26))) + string(rune('a'+rnd.IntN(26))) + "zz"
	case 11:
		return "w" + string(rune('a'+rnd.IntN(26))) + string(rune('a'+rnd.IntN(26))) + "*"
	}
	return w
}

// statementLine is a line of one of few statements, so that blocks have
// templates.
func statementLine(rnd *rand.Rand, n int) []byte {
	switch rnd.IntN(30) % 7 {
	case 0:
		return fmt.Appendf(nil, "GET request served req%d took=%d.5 status=%d", n%3000, rnd.IntN(20), 200+rnd.IntN(4)*100)
	case 1:
		return fmt.Appendf(nil, "%s payment failed for cart-%d: w%s", []string{"error", "ERROR"}[rnd.IntN(2)], rnd.IntN(9), "abzz")
	case 2:
		return []byte("Failed payment, no digits here; GET POST")
	case 3:
		return fmt.Appendf(nil, `{"level":"%s","msg":"request served","status":%d,"n":{"id":"req%d"}}`, []string{"info", "error"}[rnd.IntN(2)], 200+rnd.IntN(4)*100, rnd.IntN(3000))
	case 4:
		return fmt.Appendf(nil, "info served%d Failed%d\nreq%d failed", rnd.IntN(3), rnd.IntN(3), rnd.IntN(3000))
	case 5:
		return fmt.Appendf(nil, "WARN id=5 x.y café status=%d ab%d abc", 200+rnd.IntN(4)*100, rnd.IntN(5))
	}
	return fmt.Appendf(nil, "I1120 10:11:12.123456  %d ab.go:%d] Failed request req%d", rnd.IntN(90), rnd.IntN(50), rnd.IntN(3000))
}

func TestRandomQueriesFindWhatANaiveScanFinds(t *testing.T) {
	t.Run("plain blocks", func(t *testing.T) { newTrial(t, 2<<10, randomLine).run(t) })
	t.Run("blocks with templates", func(t *testing.T) {
		c := newTrial(t, 12<<10, statementLine)
		c.run(t)
		view, err := c.s.View()
		if err != nil {
			t.Fatal(err)
		}
		with := 0
		pieces := view.Select(t.Context(), minTime, maxTime, func(*record.Stream) bool { return true }, index.Need{})
		for i := range pieces {
			if pieces[i].Templated() {
				with++
			}
		}
		if with < 5 {
			t.Fatalf("only %d of %d pieces have templates", with, len(pieces))
		}
		if err := view.Release(); err != nil {
			t.Fatal(err)
		}
	})
}

// trial asks a store and a naive scan the same.
type trial struct {
	rnd      *rand.Rand
	cfg      store.Config
	s        *store.Store
	pods     []*record.Stream
	makeLine func(*rand.Rand, int) []byte
	lines    []record.Record
	levels   []record.Level
}

func newTrial(t *testing.T, block int, makeLine func(*rand.Rand, int) []byte) *trial {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &trial{rnd: rand.New(rand.NewPCG(seed, 0)), makeLine: makeLine, cfg: testConfig(t, block)}
	c.open(t)
	t.Cleanup(func() { _ = c.s.Close() })
	for i := range 5 {
		c.pods = append(c.pods, &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("web-%d", i), Output: record.Stdout})
	}
	return c
}

func (c *trial) open(t *testing.T) {
	t.Helper()
	var err error
	if c.s, err = store.Open(c.cfg, quiet(), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
}

// run asks in all states that lines go through.
func (c *trial) run(t *testing.T) {
	for _, step := range []struct {
		state string
		do    func() error
	}{
		{"heads", func() error { return nil }},
		{"some cut", func() error { return nil }},
		{"all cut", func() error { return c.s.Flush(t.Context()) }},
		{"cut, and heads", func() error { return nil }},
		{"opened again", func() error { err := c.s.Close(); c.open(t); return err }},
		{"sealed", func() error { return c.s.Seal(t.Context()) }},
		{"without an index", func() error {
			err := c.s.Close()
			dirs, _ := filepath.Glob(filepath.Join(c.cfg.Dir, "parts", "*", "index")) // the pattern is good
			if len(dirs) == 0 {
				t.Error("there was no index")
			}
			for _, d := range dirs {
				err = errors.Join(err, os.RemoveAll(d))
			}
			c.open(t)
			return err
		}},
	} {
		c.add(t, 400)
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.state, err)
		}
		for range 90 {
			c.ask(t, step.state)
		}
	}
}

func (c *trial) add(t *testing.T, n int) {
	t.Helper()
	first := len(c.lines)
	for range n {
		r := record.Record{Time: int64(len(c.lines)) * 1e9, Stream: c.pods[c.rnd.IntN(5)], Body: c.makeLine(c.rnd, len(c.lines))}
		level := record.Detect(r.Body)
		if c.rnd.IntN(4) == 0 {
			r.Level = record.Level(c.rnd.IntN(record.LevelCount))
			level = cmp.Or(r.Level, level)
		}
		if c.rnd.IntN(200) == 0 {
			r.Fields = []record.Field{{Key: "status", Value: "500"}, {Key: "msg", Value: "GET it"}}
		}
		c.lines, c.levels = append(c.lines, r), append(c.levels, level)
	}
	if err := c.s.Append(t.Context(), c.lines[first:], nil); err != nil {
		t.Fatal(err)
	}
}

func (c *trial) ask(t *testing.T, state string) {
	t.Helper()
	rnd, lines, e := c.rnd, c.lines, New(c.s, quiet())
	text := randomQuery(rnd, 3)
	q, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	from, to := 0, len(lines)-1
	if rnd.IntN(3) > 0 {
		from, to = rnd.IntN(len(lines)), rnd.IntN(len(lines))
		from, to = min(from, to), max(from, to)
	}
	var want []int
	levels := map[string]int64{}
	for i := from; i <= to; i++ {
		if naive(q.root, &lines[i]) {
			want = append(want, i)
			levels[c.levels[i].String()]++
		}
	}
	r := Request{Query: q, From: int64(from) * 1e9, To: int64(to) * 1e9, Limit: 1 + rnd.IntN(400), Order: Order(rnd.IntN(2))}
	part := r
	if r.Order == NewestFirst {
		slices.Reverse(want)
	}
	have := []int{}
	for { // page by page
		sum, err := e.Query(t.Context(), r, func(l *Line) error {
			i := int(l.Time / 1e9)
			if l.Level != c.levels[i] || !bytes.Equal(l.Body, lines[i].Body) {
				t.Errorf("%s: line %d is %v %q, want %v %q", state, i, l.Level, l.Body, c.levels[i], lines[i].Body)
			}
			have = append(have, i)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if sum.Cursor == "" {
			break
		}
		c, err := ParseCursor(sum.Cursor)
		if err != nil {
			t.Fatal(err)
		}
		r.Cursor = &c
	}
	if !slices.Equal(have, want) {
		t.Fatalf("%s: %s (%d to %d): have %d lines, want %d\n%v\n%v", state, text, from, to, len(have), len(want), have, want)
	}
	part.Field, part.Buckets = []string{"", "pod", "status", "level"}[rnd.IntN(4)], 1+rnd.IntN(3)*20
	h, err := e.Histogram(t.Context(), part)
	if err != nil || h.Total != int64(len(want)) {
		t.Fatalf("%s: %s: histogram has %d, want %d (%v)", state, text, h.Total, len(want), err)
	}
	if part.Field == "" && !maps.Equal(h.Levels, levels) {
		t.Fatalf("%s: %s: histogram has %v, want %v", state, text, h.Levels, levels)
	}
	part.Field, part.Limit = "level", 100
	v, err := e.Values(t.Context(), part)
	for _, x := range v.Values {
		levels[x.Value] -= x.Count
	}
	for level, n := range levels {
		if err != nil || n != 0 {
			t.Fatalf("%s: %s: values lack %d of %s (%v)", state, text, n, level, err)
		}
	}
	p, err := e.Patterns(t.Context(), part)
	if err != nil || p.Total != int64(len(want)) {
		t.Fatalf("%s: %s: patterns of %d lines, want %d (%v)", state, text, p.Total, len(want), err)
	}
}

func TestErrorsNameThePositionAndWhatWasExpected(t *testing.T) {
	for q, want := range map[string]string{
		`a (b`:          "4: and, or, or )",
		`a )`:           "2: a word, a phrase, field:value, and, or, not",
		`pod:`:          "4: a value after pod:",
		`x pod: y`:      "6: a value after pod:",
		`"abc`:          `4: a closing " for the one at position 0`,
		`"a\x"`:         `3: one of " \ n t r after the backslash`,
		`""`:            "0: a phrase that is not empty",
		`level:loud`:    "6: trace, debug, info, warn, error, fatal or unknown",
		`level:>=x`:     "8: trace, debug, info, warn, error, fatal or unknown",
		`level:>=`:      "8: trace, debug, info, warn, error, fatal or unknown",
		`status:>=many`: "9: a number after the comparison",
		`~(`:            "1: a regular expression in RE2 syntax",
		`~`:             "1: a regular expression after ~",
		`~"(ab{9}c{9}){50}d{900}(e{600})?(f{700})"`: "1: regular expressions of at most 2000 instructions",
		`a ~b{900} or msg:~"c{600}(d{600})?"`:       "18: regular expressions of at most 2000 instructions",
		`a or`:                                      "4: a word, a phrase, field:value, not or (",
		`or a`:                                      "0: a word, a phrase, field:value, not or (",
		`not`:                                       "3: a word, a phrase, field:value, not or (",
		`()`:                                        "1: a word, a phrase, field:value, not or (",
		`a - b`:                                     "3: a word, a phrase, field:value, not or ( right after the sign",
		`a and and b`:                               "6: a word, a phrase, field:value, not or (",
	} {
		_, err := Parse(q)
		e, ok := err.(*Error)
		if !ok || fmt.Sprintf("%d: %s", e.Position, e.Expected) != want {
			t.Errorf("%s: have %v, want %s", q, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`a -b (c or "d e"*) f:>=1 g:~x(y) level:>=warn`, `not not a`, `~"\"x"`, `((((`, `a:*`} {
		f.Add(s, `{"a":"b"} k=v`)
	}
	lines := []*record.Stream{{Namespace: "a", Pod: "b"}}
	f.Fuzz(func(t *testing.T, text, body string) {
		q, err := Parse(text)
		if err != nil {
			if e, ok := err.(*Error); !ok || e.Position < 0 || e.Position > len(text) {
				t.Fatal(err)
			}
			return
		}
		q.root.need()
		r := record.Record{Stream: lines[0], Body: []byte(body), Level: record.Info}
		var c candidate
		c.reset(r.Stream, r.Level, r.Body, nil, nil)
		match := q.root.match(&c)
		if a := q.root.ask(r.Stream); a == yes && !match || a == no && match {
			t.Fatalf("asked %v, matched %v", a, match)
		}
	})
}

// Names of objects and ids stand before the names within: what that takes of a line
// has a limit, whoever wrote it.
func TestNamesWithinAreNotRepeatedWithoutEnd(t *testing.T) {
	long, members := strings.Repeat("x", 20<<10), strings.Repeat(`"":1,`, 4000)
	for _, c := range []struct {
		what, line string
		want       string // a field that is found
	}{
		{"a long name", `{"b":"2","` + long + `":{` + members + `"a":1}}`, "b=2"},
		{"and a field behind it", `{"` + long + `":{"a":1},"b":"2"}`, "b=2"},
		{"a shorter one", `{"` + long[:maxName-2] + `":{"a":1,` + members + `"b":1}}`, long[:maxName-2] + ".a=1"},
		{"objects within", `{"b":"2","` + long[:maxName-2] + `":{` + strings.Repeat(`"":{"":{}},`, 4000) + `"a":1}}`, "b=2"},
		{"no name before", `{"":{"":{"a":{"":{"b":1}}}}}`, "a..b=1"},
		{"a long alone", `{"` + long + `":1}`, long + "=1"},
		{"syslog", `<1>1 2026-11-20T10:00:03Z h a 1 m [` + long + strings.Repeat(` a="1"`, 4000) + "] text", "host=h"},
		{"syslog with a shorter id", `<1>1 2026-11-20T10:00:03Z h a 1 m [` + long[:maxName-2] + ` a="1"] text`, long[:maxName-2] + ".a=1"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := AppendLineFields(nil, []byte(c.line))
		runtime.ReadMemStats(&after)
		if used := int(after.TotalAlloc - before.TotalAlloc); used > 4*len(c.line)+maxFields*(2*maxName) {
			t.Errorf("%s: %d bytes were taken for %d", c.what, used, len(c.line))
		}
		if !slices.ContainsFunc(got, func(p pair) bool { return p.Key+"="+p.Value == c.want }) {
			t.Errorf("%s: %.60s is not found", c.what, c.want)
		}
		counts := map[string]int64{}
		(&Line{Stream: &record.Stream{}, Body: []byte(c.line)}).countFields("", counts)
		for name := range counts {
			if name == "" || len(name) > maxName && name != long {
				t.Errorf("%s: a field of %d bytes is counted", c.what, len(name))
			}
		}
	}
}

func FuzzFields(f *testing.F) {
	for _, l := range append(linesOf(f, "testdata/lines.txt"), linesOf(f, "testdata/shapes.lines.txt")...) {
		f.Add(l.Body)
	}
	f.Add([]byte(`{"a":{"b":[1,{"c":2}],"d":"\u00e9\ud83d\ude00"},"e":null}`))
	f.Add([]byte(`{"` + strings.Repeat("x", maxName-2) + `":{"a":{"":1},"b":1},"c":1}`))
	f.Add([]byte(`x a=1 b="c d" e=`))
	f.Add([]byte(`<1>1 a b c d e [x y="z][`))
	f.Add([]byte("2026/11/20 10:00:03 [a] 1#1: *"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kept := bytes.Clone(b)
		got := AppendLineFields(nil, b)
		if !bytes.Equal(b, kept) {
			t.Fatal("the line was changed")
		}
		if len(got) > maxFields {
			t.Fatalf("%d fields", len(got))
		}
		for _, p := range got {
			if derived(p.Key) || bytes.ContainsAny(b, "\"\\{[") {
				continue // written otherwise than it is
			}
			if !bytes.Contains(b, []byte(p.Value)) {
				t.Fatalf("%q has no %s=%q", b, p.Key, p.Value)
			}
			if !shaped(p.Key) && !bytes.Contains(b, []byte(p.Key)) {
				t.Fatalf("%q has no name %s", b, p.Key)
			}
		}
	})
}

// FuzzPlan checks on one line that what the plan leaves out cannot match.
func FuzzPlan(f *testing.F) {
	f.Add(`~fo+bar`, "x foobar")
	f.Add(`status:500 or path:/a`, `1.2.3.4 - - [20/Nov/2026:10:00:00 +0000] "GET /a HTTP/1.1" 500 1`)
	f.Add(`~"(?i)abc"`, "xABCx")
	f.Add(`user:"a b"`, `user="a b"`)
	f.Fuzz(func(t *testing.T, text, body string) {
		q, err := Parse(text)
		if err != nil || len(body) > 4<<10 || strings.Contains(body, `\u`) { // JSON may write any letter so
			return
		}
		var c candidate
		c.reset(&record.Stream{}, record.Info, []byte(body), nil, nil)
		if !q.root.match(&c) {
			return
		}
		words := map[string]bool{}
		index.Words(body, func(w string) { words[w] = true })
		if !has(q.root.need(), words) {
			t.Fatalf("%q matches %q, which the need %v leaves out", text, body, q.root.need())
		}
		hay := body
		d := q.root.driver()
		if d.folds {
			hay = foldString(body)
		}
		if !strings.Contains(hay, d.text) {
			t.Fatalf("%q matches %q, where the driver %q is not", text, body, d.text)
		}
	})
}

func has(n index.Need, words map[string]bool) bool {
	switch n.Op {
	case index.Word:
		return words[n.Text]
	case index.Prefix:
		for w := range words {
			if strings.HasPrefix(w, n.Text) {
				return true
			}
		}
		return false
	case index.And:
		return !slices.ContainsFunc(n.Kids, func(k index.Need) bool { return !has(k, words) })
	case index.Or:
		return slices.ContainsFunc(n.Kids, func(k index.Need) bool { return has(k, words) })
	}
	return true
}

func TestParseTime(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for v, want := range map[string]int64{"now": 1_000_000, "now-1h": 996_400, "now-2d": 827_200, "now+10s": 1_000_010, "123": 123, "1970-01-01T00:01:00Z": 60} {
		if have, err := ParseTime(v, now); err != nil || have != want*1e9 {
			t.Errorf("%s: have %d, %v", v, have, err)
		}
	}
	for _, v := range []string{"", "now-", "now*1h", "tomorrow", "1e99"} {
		if _, err := ParseTime(v, now); err == nil {
			t.Errorf("%s was taken", v)
		}
	}
}
