package block

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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
			if told := valuesOf(&col); !sameValues(&col, told, values) {
				t.Errorf("%q: column %q tells %q of %d to %d bytes", dict.Of(id), values, told, col.Least, col.Most)
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

func valuesOf(c *Column) (out []string) {
	c.Each(func(v []byte) bool {
		out = append(out, string(v))
		return true
	})
	return out
}

// sameValues tells whether a column that says these are its values has this text.
func sameValues(c *Column, told []string, text []byte) bool {
	var all []string
	for v := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		if v != "" && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	size := func(a, b string) int { return len(a) - len(b) }
	shortest, longest := slices.MinFunc(all, size), slices.MaxFunc(all, size)
	if len(all) > fewValues || len(longest) > copyBytes {
		all = nil
	}
	return slices.Equal(told, all) && int(c.Least) == len(shortest) && int(c.Most) == len(longest)
}

func TestColumnsTellTheirValuesWhenTheyHaveFew(t *testing.T) {
	for _, x := range []struct {
		name  string
		value func(i int) string
		few   bool
	}{
		{"one", func(int) string { return "7" }, true},
		{"sixteen", func(i int) string { return fmt.Sprint(200 + i%16) }, true},
		{"seventeen", func(i int) string { return fmt.Sprint(200 + i%17) }, false},
		{"each of sixteen bytes", func(i int) string { return fmt.Sprintf("%016d", i%3) }, true},
		{"one of seventeen bytes", func(i int) string { return strings.Repeat("1", 1+16*(i/39)) }, false},
		{"of eight and nine", func(i int) string { return strings.Repeat("1", 8+i%2) }, true},
		{"at the end of the text only", func(i int) string { return fmt.Sprint(1 + i/39) }, true},
	} {
		l := &Lines{}
		for i := range 40 {
			l.Add(&record.Record{Time: int64(i), Body: []byte("took " + x.value(i))})
		}
		var s splitter
		if !s.split(l) {
			t.Fatal(x.name, "has no templates")
		}
		text := s.appendColumns(nil, l)
		dict, err := parseTemplates(appendTemplates(nil, &s.dict), 40, form{shaped: true, told: true})
		if err != nil {
			t.Fatal(x.name, err)
		}
		col := &dict.columns[0]
		if told := valuesOf(col); len(told) > 0 != x.few || !sameValues(col, told, text) {
			t.Errorf("%s: %q, %d to %d bytes", x.name, told, col.Least, col.Most)
		}
	}
}
