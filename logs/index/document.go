package index

import (
	"encoding/binary"
	"unsafe"

	bleve "github.com/blevesearch/bleve_index_api"
)

const (
	termField = "t"
	idField   = "_id"
)

// document is a Bleve document whose terms are known already, so that no
// analysis runs.
type document struct {
	id      string
	fields  []*field
	indexed bool
}

func blockID(n int) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return string(b[:])
}

func blockNumber(id string) (int, bool) {
	if len(id) != 4 {
		return 0, false
	}
	return int(binary.BigEndian.Uint32([]byte(id))), true
}

func newDocument(n int, terms []string) *document {
	freq := make(bleve.TokenFrequencies, len(terms))
	slab := make([]bleve.TokenFreq, len(terms))
	for i, w := range terms {
		slab[i].Term = unsafe.Slice(unsafe.StringData(w), len(w))
		slab[i].SetFrequency(1)
		freq[w] = &slab[i]
	}
	return &document{id: blockID(n), fields: []*field{{name: termField, freq: freq, count: len(terms), options: bleve.IndexField | bleve.SkipFreqNorm}}}
}

func (d *document) ID() string { return d.id }
func (d *document) Size() int  { return 64 * d.fields[0].count }
func (d *document) VisitFields(visit bleve.FieldVisitor) {
	for _, f := range d.fields {
		visit(f)
	}
}
func (d *document) VisitComposite(bleve.CompositeFieldVisitor) {}
func (d *document) HasComposite() bool                         { return false }
func (d *document) NumPlainTextBytes() uint64                  { return 0 }
func (d *document) StoredFieldsBytes() uint64                  { return 0 }
func (d *document) Indexed() bool                              { return d.indexed }
func (d *document) SetIndexed()                                { d.indexed = true }

func (d *document) AddIDField() {
	t := &bleve.TokenFreq{Term: []byte(d.id)}
	t.SetFrequency(1)
	d.fields = append(d.fields, &field{name: idField, freq: bleve.TokenFrequencies{d.id: t}, count: 1, value: []byte(d.id),
		options: bleve.IndexField | bleve.StoreField | bleve.SkipFreqNorm})
}

type field struct {
	name    string
	freq    bleve.TokenFrequencies
	count   int
	value   []byte
	options bleve.FieldIndexingOptions
}

func (f *field) Name() string                                     { return f.name }
func (f *field) Value() []byte                                    { return f.value }
func (f *field) ArrayPositions() []uint64                         { return nil }
func (f *field) EncodedFieldType() byte                           { return 't' }
func (f *field) Analyze()                                         {}
func (f *field) Options() bleve.FieldIndexingOptions              { return f.options }
func (f *field) AnalyzedLength() int                              { return f.count }
func (f *field) AnalyzedTokenFrequencies() bleve.TokenFrequencies { return f.freq }
func (f *field) NumPlainTextBytes() uint64                        { return 0 }
