package block

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"perch/logs/record"
)

func TestPartsGiveTheLinesAsked(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := codec(t)
	f, _, _, err := Open(filepath.Join(t.TempDir(), "blocks.dat"), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var p Parts
	for range 60 {
		l := &Lines{}
		kinds := 1 + rnd.IntN(6)
		for i := range 20 + rnd.IntN(300) {
			r := &record.Record{Time: int64(rnd.IntN(1e9)), Level: record.Level(rnd.IntN(record.LevelCount))}
			switch rnd.IntN(kinds) {
			case 0:
				r.Body = fmt.Appendf(nil, "%s id=%d of u%d", []string{"INFO", "WARN"}[i%2], i/8, rnd.IntN(3))
			case 1:
				r.Body = fmt.Appendf(nil, "a %d", i/50)
			case 2:
				r.Body = []byte("nothing")
			case 3:
				r.Body = fmt.Appendf(nil, "%d", rnd.IntN(2))
			case 4:
				r.Body = nil
			default:
				r.Body = fmt.Appendf(nil, "x1\ny%d\xff", rnd.Int())
			}
			if rnd.IntN(50) == 0 {
				r.Fields = []record.Field{{Key: "k", Value: fmt.Sprint(i)}}
			}
			l.Add(r)
		}
		m := &Meta{Stream: &record.Stream{Pod: "p"}}
		if err := f.Append(m, c.Encode(nil, m, l)); err != nil {
			t.Fatal(err)
		}
		if m.Templated() {
			samePart(t, rnd, &p, f, m, l)
		}
	}
}

func samePart(t *testing.T, rnd *rand.Rand, p *Parts, f *File, m *Meta, want *Lines) {
	t.Helper()
	p.Open(f, m)
	var text Lines
	for range 5 {
		var rows []uint32
		from, some := rnd.IntN(want.Len()), 1+rnd.IntN(20)
		for i := range want.Len() {
			if i >= from && rnd.IntN(some) == 0 {
				rows = append(rows, uint32(i))
			}
		}
		if err := p.Texts(rows, &text); err != nil {
			t.Fatal(err)
		}
		for k, row := range rows {
			if string(text.Body(k)) != string(want.Body(int(row))) {
				t.Fatalf("line %d of %v is %q, want %q", row, rows, text.Body(k), want.Body(int(row)))
			}
		}
	}
	times, levels, err := p.Times()
	if err != nil || !slices.Equal(times, want.Times) || !slices.Equal(levels, want.Levels) {
		t.Fatalf("times or levels differ: %v", err)
	}
	fields, err := p.Fields()
	if err != nil {
		t.Fatal(err)
	}
	for i := range want.Len() {
		if string(fields.FieldsOf(i)) != string(want.FieldsOf(i)) {
			t.Fatalf("fields of line %d are %s", i, fields.FieldsOf(i))
		}
	}
}

func TestPartsOfVersionsBeforeGiveTheLinesAsked(t *testing.T) {
	for name, path := range older(t) {
		f, metas, _, err := Open(path, codec(t), 0)
		if err != nil {
			t.Fatal(name, err)
		}
		defer f.Close()
		want, err := f.Read(metas[0], nil)
		if err != nil {
			t.Fatal(name, err)
		}
		samePart(t, rand.New(rand.NewPCG(1, 1)), &Parts{}, f, metas[0], want)
	}
}

func FuzzParts(f *testing.F) {
	l := someLines(rand.New(rand.NewPCG(1, 2)), 40, true, false)
	var s splitter
	if !s.split(l) {
		f.Fatal("lines of one statement have templates")
	}
	columns := s.appendColumns(nil, l)
	f.Add(appendTemplates(nil, &s.dict), appendIDs(nil, s.ids), columns, 40, 3)
	f.Fuzz(func(_ *testing.T, dict, ids, columns []byte, n, from int) {
		n = max(1, n&0xfff)
		for _, form := range []form{{}, {shaped: true}, {shaped: true, told: true}} {
			p := Parts{file: &File{}, meta: &Meta{Lines: n, form: form}}
			for _, kind := range []int{frameTemplates, frameIDs, frameColumns} {
				p.read[kind] = true
			}
			p.frames[frameColumns] = columns
			p.lines.IDs = make([]uint32, n)
			if p.templates.parse(dict, n, form) != nil || parseIDs(ids, p.lines.IDs, p.templates.Len()) != nil {
				continue
			}
			var rows []uint32
			for i := max(0, from); i < n; i++ {
				rows = append(rows, uint32(i))
			}
			var text Lines
			if p.Texts(rows, &text) == nil {
				for k := range rows {
					text.Body(k)
				}
			}
		}
	})
}
