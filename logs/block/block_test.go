package block

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"perch/logs/record"
)

func stream(i int) *record.Stream {
	return &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("web-%d", i), Container: "app", Node: "n1", Output: record.Stdout, Kind: record.KindLog}
}

func someLines(rnd *rand.Rand, n int, multiline, fields bool) *Lines {
	l := &Lines{}
	t := int64(1_790_000_000_000_000_000)
	for i := range n {
		t += rnd.Int64N(1e9) - 1e8
		body := fmt.Appendf(nil, "request %d served in %d ms", rnd.Int(), rnd.IntN(100))
		if multiline && i%3 == 1 {
			body = append(body, "\n\tat x\n"...)
		}
		r := record.Record{Time: t, Level: record.Level(rnd.IntN(record.LevelCount)), Body: body}
		if fields && i%5 == 4 {
			r.Fields = []record.Field{{Key: "k\n\"", Value: fmt.Sprint(i)}}
		}
		l.Add(&r)
	}
	return l
}

func codec(t testing.TB) *Codec {
	c, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func same(t *testing.T, have, want *Lines) {
	t.Helper()
	if have.Len() != want.Len() || !reflect.DeepEqual(have.Times, want.Times) || !bytes.Equal(have.Levels, want.Levels) {
		t.Fatal("times or levels differ")
	}
	for i := range want.Times {
		if !bytes.Equal(have.Body(i), want.Body(i)) || !bytes.Equal(have.FieldsOf(i), want.FieldsOf(i)) {
			t.Fatalf("line %d: have %q %q, want %q %q", i, have.Body(i), have.FieldsOf(i), want.Body(i), want.FieldsOf(i))
		}
	}
}

func TestBlocksComeBackAfterReopen(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	f, _, _, err := Open(path, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var want []*Lines
	for i := range 8 {
		l := someLines(rnd, 1+i*40, i&1 > 0, i&2 > 0)
		want = append(want, l)
		m := &Meta{Stream: stream(i % 3), First: uint64(i), Seq: 9, Ord: 4}
		if err := f.Append(m, c.Encode(nil, m, l)); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Close()
	f, metas, cut, err := Open(path, c, 0)
	if err != nil || cut != (Lost{}) || len(metas) != len(want) {
		t.Fatal(err, cut, len(metas))
	}
	defer f.Close()
	used := &Lines{}
	for i, m := range metas {
		if used, err = f.Read(m, used); err != nil {
			t.Fatal(err)
		}
		same(t, used, want[i])
		if m.First != uint64(i) || m.Seq != 9 || m.Ord != 4 || *m.Stream != *stream(i % 3) {
			t.Fatalf("meta %+v", m)
		}
		times, err := f.ReadTimes(m, nil)
		if err != nil || !reflect.DeepEqual(times.Times, want[i].Times) {
			t.Fatal(err)
		}
	}
}

func TestFileIsCutBeforeTheFirstDamagedBlock(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	f, _, _, err := Open(path, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var ends []int64
	for range 3 {
		m := &Meta{Stream: stream(0)}
		if err := f.Append(m, c.Encode(nil, m, someLines(rnd, 10, true, true))); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, f.Size())
	}
	_ = f.Close()
	eachDamage(t, path, c, 7, ends, []int{0, 1, 2, 3})
}

// eachDamage opens a file that has a wrong byte, and one that ends there, at every
// step, and wants the blocks of the records before: ends are those of the records,
// blocks how many there are when so many records are whole.
func eachDamage(t *testing.T, path string, c *Codec, step int, ends []int64, blocks []int) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += step {
		b := bytes.Clone(whole)
		b[n] ^= 0x40
		for _, b := range [][]byte{b, whole[:n]} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			f, metas, _, err := Open(path, c, 0)
			if err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
			records := 0
			for records < len(ends) && ends[records] <= int64(n) {
				records++
			}
			if len(metas) != blocks[records] {
				t.Fatalf("damage at %d: have %d blocks, want %d", n, len(metas), blocks[records])
			}
		}
	}
}

func TestDamageInVerifiedBlocksCostsOnlyThatBlock(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	f, _, _, err := Open(path, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		m := &Meta{Stream: stream(0)}
		if err := f.Append(m, c.Encode(nil, m, someLines(rnd, 10, true, true))); err != nil {
			t.Fatal(err)
		}
	}
	size := f.Size()
	_ = f.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole[size/2] ^= 1
	whole[20] ^= 1 // in the first header
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	f, metas, lost, err := Open(path, c, size)
	if err != nil || lost.Cut != 0 || lost.Skipped == 0 || len(metas) != 4 {
		t.Fatalf("%v %+v, %d blocks", err, lost, len(metas))
	}
	bad := 0
	for _, m := range metas {
		if _, err := f.Read(m, nil); err != nil {
			bad++
		}
	}
	if bad != 1 {
		t.Fatalf("%d blocks cannot be read", bad)
	}
}

func FuzzDecode(f *testing.F) {
	c := codec(f)
	l := someLines(rand.New(rand.NewPCG(1, 2)), 9, true, true)
	times, _ := appendTimes(nil, l)
	f.Add(times, 9, append(append([]byte{1}, appendLengths(nil, l.Ends)...), l.Text...))
	f.Add(appendRuns(appendVarints([]byte{timesVarint}, l.Times), l.Levels), 9, append([]byte{0}, l.Text...))
	f.Fuzz(func(_ *testing.T, times []byte, n int, text []byte) {
		n = max(1, n&0xfff)
		var l Lines
		if parseTimes(times, &l, n) == nil && parseText(text, &l, n) == nil {
			for i := range n {
				l.Body(i)
			}
		}
		for _, mark := range []string{magic, magic2, magic3, magic4, magic5, magic7} {
			form, _ := formOf(mark)
			if m, err := parseMeta(text, form); err == nil {
				_ = c.decode(m, &l, times)
			}
		}
	})
}

func FuzzExpand(f *testing.F) {
	l := someLines(rand.New(rand.NewPCG(1, 2)), 40, true, false)
	var s splitter
	if !s.split(l) {
		f.Fatal("lines of one statement have templates")
	}
	columns := s.appendColumns(nil, l)
	f.Add(appendTemplates(nil, &s.dict), appendIDs(nil, s.ids), columns, 40)
	f.Fuzz(func(_ *testing.T, dict, ids, columns []byte, n int) {
		n = max(1, n&0xfff)
		for _, form := range []form{{}, {shaped: true}, {shaped: true, told: true}} {
			t, err := parseTemplates(dict, n, form)
			if err != nil {
				continue
			}
			l := Lines{IDs: make([]uint32, n)}
			if parseIDs(ids, l.IDs, t.Len()) == nil && expand(nil, t, columns, &l) == nil {
				for i := range n {
					l.Body(i)
				}
			}
		}
	})
}

func FuzzLinesComeBack(f *testing.F) {
	f.Add("GET /a/17 took 3ms\nGET /b/9 took 12ms\n\nx", 5)
	f.Add("\xff\x11 a1\r\n\x00 9", 40)
	c := codec(f)
	f.Fuzz(func(t *testing.T, text string, times int) {
		var l Lines
		for range 1 + times&63 {
			for i, part := range strings.Split(text, "\n") {
				if i%3 == 2 {
					part += "\n\tat 5"
				}
				l.Add(&record.Record{Time: int64(i), Body: []byte(part)})
			}
		}
		m := &Meta{Stream: stream(0)}
		b := c.Encode(nil, m, &l)
		var have Lines
		if err := c.decode(m, &have, b[m.head:]); err != nil {
			t.Fatal(err)
		}
		same(t, &have, &l)
	})
}

// older are files of blocks that versions before have written: of the one before
// shapes, of the one before packings, and of the one before columns told their
// values.
func older(t *testing.T) map[string]string {
	t.Helper()
	paths := map[string]string{}
	for _, name := range []string{"blocks-v2", "blocks-v3", "blocks-v5"} {
		text, err := os.ReadFile("testdata/" + name + ".base64")
		if err != nil {
			t.Fatal(err)
		}
		b, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil {
			t.Fatal(err)
		}
		paths[name] = filepath.Join(t.TempDir(), "blocks.dat")
		if err := os.WriteFile(paths[name], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func TestBlocksOfVersionsBeforeCanBeRead(t *testing.T) {
	for name, path := range older(t) {
		f, metas, lost, err := Open(path, codec(t), 0)
		if err != nil || len(metas) != 2 || lost != (Lost{}) {
			t.Fatalf("%s: %d blocks, lost %v: %v", name, len(metas), lost, err)
		}
		defer f.Close()
		for k, n := range []int{40, 3} {
			want := &Lines{}
			for i := range n {
				want.Add(&record.Record{Time: int64(i) * 1e9, Level: record.Level(i % 3), Body: fmt.Appendf(nil, "%s request %d of u%d served in %d ms", []string{"INFO", "WARN"}[i%2], i*i, i/8, i%7)})
			}
			have, err := f.Read(metas[k], nil)
			if err != nil {
				t.Fatal(name, err)
			}
			same(t, have, want)
			if metas[k].Templated() != (k == 0) {
				t.Errorf("%s, block %d: templated is %v", name, k, metas[k].Templated())
			}
			if _, err := f.ReadWords(metas[k]); err != nil {
				t.Error(name, err)
			}
			if have, err = f.ReadTimes(metas[k], nil); err != nil || !reflect.DeepEqual(have.Times, want.Times) {
				t.Errorf("%s, block %d: times are %v: %v", name, k, have.Times, err)
			}
		}
	}
}

func TestLinesOfFewStatementsHaveTemplates(t *testing.T) {
	c := codec(t)
	f, _, _, err := Open(filepath.Join(t.TempDir(), "blocks.dat"), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, x := range []struct {
		what      string
		line      func(i int) string
		templated bool
		templates int
	}{
		{"one statement", func(int) string { return fmt.Sprintf("user u%x took %d ms", rnd.Int(), rnd.IntN(99)) }, true, 1},
		{"three of them", func(i int) string { return fmt.Sprintf("%s done in %d", []string{"red", "green", "blue"}[i%3], i) }, true, 3},
		{"a line with the byte that stands for variables", func(i int) string { return fmt.Sprintf("a\x11b %d", i) }, false, 0},
		{"statements of one shape with values that come again", func(i int) string {
			return fmt.Sprintf("%s id=%d of u%d", []string{"INFO", "WARN", "ERROR"}[i%3], i/8, i/8)
		}, true, 3},
		{"statements of several shapes", func(i int) string { return []string{"a 1 b", "a (2) b", "x", "c 1 d"}[i%4] }, true, 4},
		{"words that never come again", func(i int) string { return "word" + strings.Repeat("x", i) }, false, 0},
	} {
		l := &Lines{}
		for i := range 100 {
			l.Add(&record.Record{Time: int64(i), Body: []byte(x.line(i))})
		}
		m := &Meta{Stream: stream(0)}
		if err := f.Append(m, c.Encode(nil, m, l)); err != nil {
			t.Fatal(err)
		}
		if m.Templated() != x.templated {
			t.Fatalf("%s: templated is %v", x.what, m.Templated())
		}
		have, err := f.Read(m, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, have, l)
		if !x.templated {
			continue
		}
		var p Parts
		p.Open(f, m)
		dict, err := p.Templates()
		if err != nil || dict.Len() != x.templates {
			t.Fatalf("%s: %v, %d templates", x.what, err, dict.Len())
		}
		ids, err := p.IDs()
		if err != nil || !reflect.DeepEqual(ids, have.IDs) {
			t.Fatalf("%s: templates of lines differ: %v", x.what, err)
		}
	}
}
