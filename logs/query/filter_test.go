package query

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"perch/logs/block"
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
		a := &asked{over: t.Context().Err}
		a.parts.Open(file, m)
		if err := a.start(q, m.Stream, false); err != nil {
			t.Fatal(err)
		}
		ids, err := a.parts.IDs()
		if err != nil {
			t.Fatal(err)
		}
		var all, want []uint32
		for i := range l.Len() {
			var c candidate
			c.reset(m.Stream, record.Level(l.Levels[i]), l.Body(i), nil, nil)
			match := q.root.match(&c)
			if match {
				want = append(want, uint32(i))
			}
			all = append(all, uint32(i))
			if is := a.says(ids[i], l.Levels[i]); is == yes && !match || is == no && match {
				t.Fatalf("%s: template %q says %d of %q", text, a.t.Of(int(ids[i])), is, l.Body(i))
			}
		}
		have, err := a.filter(q.root, all)
		if err != nil || !slices.Equal(have, want) {
			t.Fatalf("%s in %q: have %v, want %v (%v)", text, lines, have, want, err)
		}
	})
}
