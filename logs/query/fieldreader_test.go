package query

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"perch/logs/block"
	"perch/logs/record"
	"perch/logs/store"
)

// blockOf is a block with templates of these lines.
func blockOf(t *testing.T, l *block.Lines) (*block.File, *block.Meta) {
	t.Helper()
	codec, err := block.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(codec.Close)
	file, _, _, err := block.Open(filepath.Join(t.TempDir(), "blocks.dat"), codec, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	m := &block.Meta{Stream: &record.Stream{Pod: "p"}}
	if err := file.Append(m, codec.Encode(nil, m, l)); err != nil || !m.Templated() {
		t.Fatal(err, m.Templated())
	}
	return file, m
}

func TestFieldsOfALineAreFoundHoweverManyItsSenderGave(t *testing.T) {
	var sent []record.Field
	for i := range 128 {
		sent = append(sent, record.Field{Key: fmt.Sprintf("s%d", i), Value: "x"})
	}
	l := &block.Lines{}
	for i := range 40 {
		body := []byte("{")
		for k := range 200 {
			body = fmt.Appendf(body, `"f%s":%d,`, strings.Repeat("x", k), k)
		}
		l.Add(&record.Record{Time: int64(i), Fields: sent, Body: fmt.Appendf(body, `"last":%d}`, i%2)})
	}
	file, m := blockOf(t, l)
	q, err := Parse("last:1")
	if err != nil {
		t.Fatal(err)
	}
	if n := sameLines(t, &asked{over: t.Context().Err}, q, file, m, l); n != 20 {
		t.Errorf("%d lines, want 20", n)
	}
}

func TestAWorkerKeepsTheFieldsThatItIsAskedFor(t *testing.T) {
	s := testStore(t, 4<<10)
	var batch []record.Record
	for i := range 200 {
		batch = append(batch, record.Record{Time: int64(i) + 1, Stream: &record.Stream{Pod: "web-1"},
			Body: fmt.Appendf(nil, "a=%d b=%d c=%d d=%d e=%d f=%d", i, i+1, i+2, i+3, i+4, i+5)})
	}
	if err := s.Append(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := (&Request{To: 1e9}).Normal()
	if err != nil {
		t.Fatal(err)
	}
	search, end, err := New(s, quiet()).begin(t.Context(), &r)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	asked := 0
	search.each(search.pieces(), nil, func(w *worker, p *store.Piece) {
		for _, names := range []string{"a", "b", "c", "d", "ae", "bf", "aa", "ca"} {
			w.find(p, r.From, r.To)
			if err := w.fields(names[:1], names[len(names)-1:]); err != nil {
				t.Error(err)
			}
			for k, row := range w.rows {
				for _, name := range strings.Split(names, "") {
					want := fmt.Sprint(int(p.First) + int(row) + int(name[0]-'a'))
					if v, ok := w.field(k, row, name); v != want || !ok {
						t.Errorf("%s of line %d is %q, %v, want %s", name, row, v, ok, want)
					}
					asked++
				}
			}
		}
	})
	if asked < 200 {
		t.Errorf("%d values", asked)
	}
}

func TestADamagedColumnIsSaid(t *testing.T) {
	l := &block.Lines{}
	for i := range 40 {
		l.Add(&record.Record{Time: int64(i), Body: fmt.Appendf(nil, "took=%d ms", i)})
	}
	file, m := blockOf(t, l)
	var parts block.Parts
	parts.Open(file, m)
	values, err := parts.Variables()
	if err != nil {
		t.Fatal(err)
	}
	values[bytes.IndexByte(values, '\n')] = '0' // one value less
	f := fieldReader{name: "took"}
	if _, err := f.start(&parts, []uint32{1, 39}); err == nil {
		v, ok, placed := f.read(39)
		t.Errorf("no error, and a value: %q, %v, %v", v, ok, placed)
	}
}

func TestPlacesThatAreRememberedHaveALimit(t *testing.T) {
	var p placed
	text := append([]byte("y=z "), bytes.Repeat([]byte("w "), 20<<10)...)
	for i := range 300 {
		text = append(text, 'a'+byte(i%26))
		if at := p.find("y", text); at.how != fixed || at.value != "z" {
			t.Fatal(at)
		}
	}
	size := 0
	for template := range p.seen {
		size += len(template)
	}
	if size > mostSeenBytes {
		t.Errorf("%d bytes in %d templates", size, len(p.seen))
	}
}

func TestTheTimeIsLookedAtWhileAnExpressionGoesThroughABlock(t *testing.T) {
	word := func(i int) string { // without digits
		return string([]byte{'a' + byte(i/26/26%26), 'a' + byte(i/26%26), 'a' + byte(i%26)})
	}
	for _, c := range []struct {
		name string
		line func(i int) string
	}{
		{"variables", func(i int) string { return fmt.Sprintf("x=%d", i) }},
		{"texts of templates", func(i int) string { return fmt.Sprintf("x=%s", word(i/4%900)) }},
		{"a value in templates with variables", func(i int) string { return fmt.Sprintf("x=%s y=%d", word(i/4%900), i) }},
	} {
		l := &block.Lines{}
		for i := range 4000 {
			l.Add(&record.Record{Time: int64(i), Body: []byte(c.line(i))})
		}
		file, m := blockOf(t, l)
		q, err := Parse(`x:~"[135ac].*[246eg]"`)
		if err != nil {
			t.Fatal(err)
		}
		looks := 0
		sameLines(t, &asked{over: func() error { looks++; return nil }}, q, file, m, l)
		if looks < 900/lookedLines {
			t.Errorf("%s: looked %d times", c.name, looks)
		}
	}

	l := &block.Lines{} // few lines, but long
	for i := range 24 {
		l.Add(&record.Record{Time: int64(i), Body: fmt.Appendf(nil, "x=a%d%s", i, strings.Repeat("y", 100<<10))})
	}
	file, m := blockOf(t, l)
	q, err := Parse(`x:~"[135ac].*[246eg]"`)
	if err != nil {
		t.Fatal(err)
	}
	looks := 0
	if sameLines(t, &asked{over: func() error { looks++; return nil }}, q, file, m, l); looks < l.Len() {
		t.Errorf("long values: looked %d times", looks)
	}
}
