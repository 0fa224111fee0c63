package block

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// A Bundle is several small blocks in one record of a file, packed together: each
// for itself would take twice the space. Each is read like any other block.
type Bundle struct {
	metas []*Meta
	heads []byte // mark, length and header of each block
	body  []byte // frames of all blocks
}

// Bytes is what the blocks take before they are packed.
func (b *Bundle) Bytes() int { return len(b.heads) + len(b.body) }

// Metas are the blocks, in the order they were added.
func (b *Bundle) Metas() []*Meta { return b.metas }

// Reset empties the bundle and keeps its memory.
func (b *Bundle) Reset() { *b = Bundle{heads: b.heads[:0], body: b.body[:0]} }

// Record returns the blocks of metas that are in the same record as m, itself
// included, in the order they have there.
func (m *Meta) Record(metas []*Meta) (out []*Meta) {
	if m.in == nil {
		return []*Meta{m}
	}
	for _, x := range metas {
		if x.in == m.in {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *Meta) int { return cmp.Compare(a.offset, b.offset) })
	return out
}

// Beside tells whether two blocks are in the same record: to read one makes the
// other cheap to read next.
func (m *Meta) Beside(o *Meta) bool { return m == o || m.in != nil && m.in == o.in }

// Copy appends the record of blocks as it was written in another file, damaged or
// not, and returns what they are here. They are all blocks of the record, else
// nothing is copied.
func (f *File) Copy(from *File, record []*Meta) ([]*Meta, error) {
	in := record[0].in
	offset, size := record[0].offset, record[0].Size()
	if in != nil {
		if in.blocks != len(record) {
			return nil, nil
		}
		offset, size = in.offset, in.size()
	}
	raw := make([]byte, size)
	if _, err := from.f.ReadAt(raw, offset); err != nil {
		return nil, fmt.Errorf("read record at %d: %w", offset, err)
	}
	at, err := f.write(raw)
	if err != nil {
		return nil, err
	}
	var here *bundle
	if in != nil {
		here = &bundle{offset: at, blocks: in.blocks, heads: in.heads, body: in.body}
	}
	out := make([]*Meta, len(record))
	for i, m := range record {
		x := *m
		if out[i] = &x; in == nil {
			x.offset = at
		} else {
			x.in = here
		}
	}
	return out, nil
}

// bundle is where a bundle lies in its file.
type bundle struct {
	offset      int64
	blocks      int
	heads, body frame
	unpacking   sync.Mutex // held by the one that unpacks it, while others wait for that
}

// bundleHead is the length of a bundle's header: it tells of the two frames.
const bundleHead = 2 * frameBytes

func (b *bundle) size() int64 {
	return prefixBytes + bundleHead + int64(b.heads.bytes) + int64(b.body.bytes)
}

// Add puts a block into a bundle and completes m like Encode. Words tells of this
// block then.
func (c *Codec) Add(b *Bundle, m *Meta, l *Lines) {
	c.loose = true
	mark := c.frames(m, l)
	c.loose = false
	head := appendMeta(nil, m)
	b.heads = binary.AppendUvarint(append(b.heads, mark...), uint64(len(head)))
	b.heads = append(b.heads, head...)
	m.offset, m.head = int64(len(b.body)), 0
	b.body = append(b.body, c.body...)
	b.metas = append(b.metas, m)
}

// EncodeBundle appends the written form of a bundle to dst.
func (c *Codec) EncodeBundle(dst []byte, b *Bundle) []byte {
	in := &bundle{blocks: len(b.metas)}
	c.body, in.heads = c.frame(c.body[:0], b.heads, packedZstd)
	c.body, in.body = c.frame(c.body, b.body, packedZstd)
	for _, m := range b.metas {
		m.in = in
	}
	dst = c.appendHead(dst, magic6, appendFrame(appendFrame(nil, in.heads), in.body))
	return append(dst, c.body...)
}

// AppendBundle writes an encoded bundle and tells its blocks where they lie. When
// it fails the file is as before.
func (f *File) AppendBundle(b *Bundle, encoded []byte) error {
	at, err := f.write(encoded)
	if err == nil {
		b.metas[0].in.offset = at // it is that of all
	}
	return err
}

// bundled reads the blocks of the bundle at this place of the file, and its size.
func (f *File) bundled(head []byte, at int64) (out []*Meta, size int64, err error) {
	if len(head) != bundleHead {
		return nil, 0, ErrDamaged
	}
	in := &bundle{offset: at}
	var ok [2]bool
	in.heads, ok[0] = parseFrame(head[:frameBytes])
	in.body, ok[1] = parseFrame(head[frameBytes:])
	if !ok[0] || !ok[1] {
		return nil, 0, ErrDamaged
	}
	z := make([]byte, in.heads.bytes)
	if _, err := f.f.ReadAt(z, at+prefixBytes+bundleHead); err != nil {
		return nil, 0, err
	}
	b, err := f.codec.unframe(nil, z, in.heads)
	if err != nil {
		return nil, 0, err
	}
	end := int64(0) // of the blocks so far
	for len(b) > 0 {
		if len(b) < len(magic) {
			return nil, 0, ErrDamaged
		}
		form, ok := formOf(string(b[:len(magic)]))
		n, k := binary.Uvarint(b[len(magic):])
		b = b[len(magic)+max(0, k):]
		if !ok || k <= 0 || n > uint64(len(b)) {
			return nil, 0, ErrDamaged
		}
		m, err := parseMeta(b[:n], form)
		if err != nil {
			return nil, 0, err
		}
		b = b[n:]
		m.in, m.offset = in, end
		if end = m.start(frameKinds); end > int64(in.body.raw) {
			return nil, 0, ErrDamaged
		}
		out = append(out, m)
	}
	if end != int64(in.body.raw) || len(out) == 0 {
		return nil, 0, ErrDamaged
	}
	in.blocks = len(out)
	return out, in.size(), nil
}

// unpack returns the frames of all blocks of a bundle, which must not be changed.
func (f *File) unpack(in *bundle) ([]byte, error) {
	if raw := f.codec.near.get(in); raw != nil {
		return raw, nil
	}
	in.unpacking.Lock()
	defer in.unpacking.Unlock()
	if raw := f.codec.near.get(in); raw != nil { // by another one meanwhile
		return raw, nil
	}
	z := make([]byte, in.body.bytes)
	if _, err := f.f.ReadAt(z, in.offset+in.size()-int64(len(z))); err != nil {
		return nil, fmt.Errorf("read frames: %w", err)
	}
	raw, err := f.codec.unframe(nil, z, in.body)
	if err != nil {
		return nil, err
	}
	f.codec.near.put(in, raw)
	return raw, nil
}

// nearBundles remembers the bundles that were unpacked last: their blocks are read
// one after the other, by several goroutines at once.
type nearBundles struct {
	mu       sync.Mutex
	last     []near // the newest first
	unpacked int64  // all that were put
}

type near struct {
	of  *bundle
	raw []byte
}

// nearest bundles are remembered at least, two for each core: each reads its own.
const nearest = 8

func (n *nearBundles) get(in *bundle) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, x := range n.last {
		if x.of == in {
			copy(n.last[1:], n.last[:i])
			n.last[0] = x
			return x.raw
		}
	}
	return nil
}

func (n *nearBundles) put(in *bundle, raw []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.last) < max(nearest, 2*runtime.GOMAXPROCS(0)) {
		n.last = append(n.last, near{})
	}
	copy(n.last[1:], n.last)
	n.last[0] = near{in, raw}
	n.unpacked++
}
