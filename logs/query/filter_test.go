package query

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

// FuzzFilter checks what templates and columns tell of lines against the lines.
func FuzzFilter(f *testing.F) {
	for _, s := range [][2]string{
		{`~"a[0-9]+ b"`, "a1 b\na22 c\na3 b"}, {`req1* -status:500`, "GET req12 status=500\nGET req1 status=400"}, {`"served2 Failed"`, "info served2 Failed3\nserved22 Failed"},
		{`(~x or 7*) not ~"\b5"`, "x 7\ny 77\n5 x"}, {`~"^[^a]*$" level:info`, "INFO b1\nINFO é2\nWARN \xff3"}, {`took:>5`, "took=5 a\ntook=6 b"}, {`~"(?i)ab$"`, "1AB\nab2\nab"},
	} {
		f.Add(s[0], []byte(s[1]))
	}
	codec, err := block.NewCodec()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(codec.Close)
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		q, err := Parse(text)
		if err != nil || len(body) > 2000 || len(text) > 300 {
			return
		}
		lines := bytes.Split(body, []byte{'\n'})
		l := &block.Lines{}
		for i := range 12 * len(lines) { // so that there are templates: each line again and again, then in turns
			body := lines[i%len(lines)]
			if i < 4*len(lines) {
				body = lines[i/4]
			}
			l.Add(&record.Record{Time: int64(i), Level: record.Level(i % record.LevelCount), Body: body})
		}
		file, _, _, err := block.Open(filepath.Join(t.TempDir(), "blocks.dat"), codec, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		m := &block.Meta{Stream: &record.Stream{Pod: "p"}}
		if err := file.Append(m, codec.Encode(nil, m, l)); err != nil || !m.Templated() {
			return
		}
		sameLines(t, &asked{over: t.Context().Err}, q, file, m, l)
	})
}

// sameLines checks what a block with templates answers against its lines l. It
// returns how many match.
func sameLines(t *testing.T, a *asked, q *Query, file *block.File, m *block.Meta, l *block.Lines) int {
	t.Helper()
	a.parts.Open(file, m)
	if err := a.start(q, m.Stream, m.Sent()); err != nil {
		t.Fatal(err)
	}
	ids, err := a.parts.IDs()
	if err != nil {
		t.Fatal(err)
	}
	var all, want []uint32
	for i := range l.Len() {
		var c candidate
		c.reset(m.Stream, record.Level(l.Levels[i]), l.Body(i), nil, l.FieldsOf(i))
		match := q.root.match(&c)
		if match {
			want = append(want, uint32(i))
		}
		all = append(all, uint32(i))
		if is := a.says(ids[i], l.Levels[i]); is == yes && !match || is == no && match {
			t.Fatalf("%s: template %q says %d of %q", q.Text, a.t.Of(int(ids[i])), is, l.Body(i))
		}
	}
	have, err := a.filter(q.root, all)
	if err != nil || !slices.Equal(have, want) {
		t.Fatalf("%s in %q: have %v, want %v (%v)", q.Text, l.Text, have, want, err)
	}
	return len(want)
}

// The files of blocks were written by these versions; in those of testdata lines
// have fields: JSON, access logs and what looks like them, key=value.
func TestBlocksOfVersionsBeforeAnswerAlike(t *testing.T) {
	for _, version := range []string{"v2", "v3", "v5"} {
		for _, name := range []string{"../block/testdata/blocks-", "testdata/fields-"} {
			t.Run(version+" "+filepath.Base(name), func(t *testing.T) { oldBlocks(t, name+version+".base64") })
		}
	}
}

func oldBlocks(t *testing.T, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "blocks.dat")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	codec, err := block.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	defer codec.Close()
	file, metas, _, err := block.Open(path, codec, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found, fields := 0, map[string]int{"absent": 0}
	var a asked
	a.over = t.Context().Err
	for _, m := range metas {
		if !m.Templated() {
			continue
		}
		l, err := file.Read(m, nil)
		if err != nil {
			t.Fatal(err)
		}
		exprs := []string{`~"[a-f][0-9]"`, `~"^[^5]*$"`, "-5", "level:>=info or ~x", "1*"}
		for i := range l.Len() { // words of the lines
			index.Words(string(l.Body(i)), func(w string) { exprs = append(exprs, phrase(w), w+"*") })
			for _, p := range AppendLineFields(nil, l.Body(i)) {
				if fields[p.Key]++; p.Key != "level" {
					exprs = append(exprs, p.Key+":"+phrase(p.Value), p.Key+":>=20", p.Key+":*")
				}
			}
		}
		slices.Sort(exprs)
		for _, e := range slices.Compact(exprs) {
			q, err := Parse(e)
			if err != nil {
				t.Fatal(err)
			}
			if n := sameLines(t, &a, q, file, m, l); n < l.Len() {
				found += n
			}
		}
		sameFields(t, &a, m, l, fields)
	}
	if found < 100 {
		t.Errorf("only %d lines found", found)
	}
}
