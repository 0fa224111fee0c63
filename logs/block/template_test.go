package block

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"perch/logs/record"
)

func TestTemplatesKnowTheirLinesByLevelAndTheirColumns(t *testing.T) {
	c := codec(t)
	l := &Lines{}
	for i := range 400 {
		body := fmt.Sprintf("%s got %d from A%c%x_", []string{"red", "green"}[i%2], i/9*9, 'F'-i%4, i%3*1000)
		if i%5 == 0 {
			body = fmt.Sprintf("nothing é%d", i)
		}
		l.Add(&record.Record{Time: int64(i), Level: record.Level(i % 3 * i % 4), Body: []byte(body)})
	}
	f, _, _, err := Open(filepath.Join(t.TempDir(), "blocks.dat"), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &Meta{Stream: &record.Stream{Pod: "p"}}
	if err := f.Append(m, c.Encode(nil, m, l)); err != nil {
		t.Fatal(err)
	}
	rows, err := f.Read(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	var p Parts
	p.Open(f, m)
	dict, err := p.Templates()
	if err != nil {
		t.Fatal(err)
	}
	columns, err := p.Variables()
	if err != nil {
		t.Fatal(err)
	}
	for id := range dict.Len() {
		want := make([]uint32, record.LevelCount)
		var first int
		for i := range slices.Backward(rows.IDs) {
			if rows.IDs[i] == uint32(id) {
				want[rows.Levels[i]]++
			}
			if dict.Shapes[rows.IDs[i]] == dict.Shapes[id] {
				first = i
			}
		}
		if have := dict.Lines(id); !slices.Equal(have, want) {
			t.Errorf("%q: %v lines, want %v", dict.Of(id), have, want)
		}
		text := string(dict.Of(id))
		for _, col := range dict.Columns(id) {
			values := columns[col.Start:col.End]
			class := Class(0)
			for _, b := range values {
				class |= ClassOf(b)
			}
			if class != col.Class || values[len(values)-1] != '\n' {
				t.Errorf("%q: column %q has class %b, want %b", dict.Of(id), values, col.Class, class)
			}
			text = replaceHole(text, string(values[:slices.Index(values, '\n')]))
		}
		if len(dict.Columns(id)) != int(dict.Holes[id]) {
			t.Errorf("%q: %d columns", dict.Of(id), len(dict.Columns(id)))
		}
		if rows.IDs[first] == uint32(id) && text != string(l.Body(first)) {
			t.Errorf("first line is %q, want %q", text, l.Body(first))
		}
	}
}

func replaceHole(text, value string) string {
	k := slices.Index([]byte(text), Hole)
	return text[:k] + value + text[k+1:]
}
