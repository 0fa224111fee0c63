package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// File is an append-only file of blocks. One goroutine appends, any read.
type File struct {
	f     *os.File
	codec *Codec
	flush func() error // fsync of f

	syncing sync.Mutex // held while it is synced; guards what follows
	doubt   bool       // the last time failed: what is read may not be what is on disk

	mu     sync.RWMutex // guards what follows
	size   int64
	synced int64
}

// Lost says how many bytes of a file could not be used.
type Lost struct {
	Cut     int64 // at the end, cut off
	Skipped int64 // before offset verified, left in place
}

// Unknown is the offset up to which a file is verified when that cannot be told: all
// blocks are read, and only what is damaged at the end of the file, after the last
// block that is not, is cut off.
const Unknown = -1

// Open reads the headers of all blocks in path, making the file when it does
// not exist. Blocks from offset verified on are read and checked whole; the
// file is cut before the first that is damaged. Before that offset a damaged
// header only costs its block.
func Open(path string, codec *Codec, verified int64) (*File, []*Meta, Lost, error) {
	f, metas, lost, err := open(path, os.O_CREATE|os.O_RDWR, codec, verified)
	if err == nil && lost.Cut > 0 {
		if err = f.f.Truncate(f.size); err != nil {
			err = errors.Join(err, f.f.Close())
		}
	}
	if err != nil {
		return nil, nil, Lost{}, fmt.Errorf("open blocks: %w", err)
	}
	return f, metas, lost, nil
}

// OpenRead opens a file to be read only, as far as it is good: others may append
// to it.
func OpenRead(path string, codec *Codec, verified int64) (*File, []*Meta, Lost, error) {
	f, metas, lost, err := open(path, os.O_RDONLY, codec, verified)
	if err != nil {
		return nil, nil, Lost{}, fmt.Errorf("open blocks: %w", err)
	}
	return f, metas, lost, nil
}

func open(path string, mode int, codec *Codec, verified int64) (f *File, metas []*Meta, lost Lost, err error) {
	h, err := os.OpenFile(path, mode, 0o600)
	if err != nil {
		return nil, nil, lost, err
	}
	f = &File{f: h, codec: codec, flush: h.Sync}
	info, err := h.Stat()
	if err != nil {
		return nil, nil, lost, errors.Join(err, h.Close())
	}
	streams := map[uint64]*Meta{}
	type state struct {
		size, skipped int64
		blocks        int
	}
	var good state // after the last record that was read whole
	for f.size < info.Size() {
		some, size, err := f.header(f.size)
		if err == nil && f.size+size > info.Size() {
			err = ErrDamaged
		}
		header := err
		if err == nil && f.size >= verified {
			for _, m := range some {
				if _, err = f.Read(m, nil); err != nil {
					break
				}
			}
		}
		damaged := errors.Is(err, ErrDamaged) || errors.Is(err, io.EOF)
		if damaged && f.size >= verified && verified != Unknown {
			break
		}
		if damaged && header != nil {
			next, err := f.resume(f.size+1, info.Size())
			if err != nil {
				return nil, nil, lost, errors.Join(err, h.Close())
			}
			lost.Skipped += next - f.size
			f.size = next
			continue
		}
		if err != nil && !damaged {
			return nil, nil, lost, errors.Join(err, h.Close())
		}
		share(streams, some)
		metas = append(metas, some...)
		f.size += size
		if !damaged {
			good = state{f.size, lost.Skipped, len(metas)}
		}
	}
	if verified == Unknown {
		f.size, lost.Skipped, metas = good.size, good.skipped, metas[:good.blocks]
	}
	f.synced = max(0, min(f.size, verified))
	lost.Cut = info.Size() - f.size
	return f, metas, lost, nil
}

// Metas reads again what Open told of the blocks. Damage since then makes them fewer:
// so many bytes are skipped.
func (f *File) Metas() (metas []*Meta, skipped int64, err error) {
	streams := map[uint64]*Meta{}
	for at, end := int64(0), f.Size(); at < end; {
		some, size, err := f.header(at)
		if errors.Is(err, ErrDamaged) || errors.Is(err, io.EOF) {
			next, err := f.resume(at+1, end)
			if err != nil {
				return nil, 0, err
			}
			skipped += next - at
			at = next
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		share(streams, some)
		metas = append(metas, some...)
		at += size
	}
	return metas, skipped, nil
}

// share makes one copy of the labels of each stream.
func share(streams map[uint64]*Meta, metas []*Meta) {
	for _, m := range metas {
		if known, ok := streams[m.Hash]; ok {
			m.Stream = known.Stream
		} else {
			streams[m.Hash] = m
		}
	}
}

// resume finds the next good header at or after offset at, or the end.
func (f *File) resume(at, end int64) (int64, error) {
	window := make([]byte, 256<<10)
	for at < end {
		n, err := f.f.ReadAt(window, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		b := window[:n]
		k := bytes.Index(b, []byte(magic[:3])) // all kinds begin alike
		if k < 0 {
			at += int64(max(1, n-len(magic[:3])+1))
			continue
		}
		at += int64(k)
		if _, _, err := f.header(at); err == nil {
			return at, nil
		}
		at++
	}
	return end, nil
}

const headerGuess = 512 // most headers fit

// header reads what a record of the file holds, and its size.
func (f *File) header(at int64) ([]*Meta, int64, error) {
	b := make([]byte, headerGuess)
	n, err := f.f.ReadAt(b, at)
	if err != nil && (!errors.Is(err, io.EOF) || n < prefixBytes) {
		return nil, 0, err
	}
	b = b[:n]
	mark := string(b[:4])
	form, ok := formOf(mark)
	if !ok && mark != magic6 {
		return nil, 0, ErrDamaged
	}
	size := int(binary.LittleEndian.Uint32(b[4:]))
	if size > maxHeader {
		return nil, 0, ErrDamaged
	}
	if prefixBytes+size > len(b) {
		b = make([]byte, prefixBytes+size)
		if _, err := f.f.ReadAt(b, at); err != nil {
			return nil, 0, err
		}
	}
	head := b[prefixBytes : prefixBytes+size]
	if crc32.Checksum(head, f.codec.table) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, 0, ErrDamaged
	}
	if mark == magic6 {
		return f.bundled(head, at)
	}
	m, err := parseMeta(head, form)
	if err != nil {
		return nil, 0, err
	}
	m.offset, m.head = at, uint32(prefixBytes+size)
	return []*Meta{m}, m.Size(), nil
}

// Append writes an encoded block and tells m where it lies. When it fails the
// file is as before.
func (f *File) Append(m *Meta, encoded []byte) error {
	at, err := f.write(encoded)
	if err == nil {
		m.offset = at
	}
	return err
}

// write puts a record at the end and says where that was.
func (f *File) write(encoded []byte) (at int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.f.WriteAt(encoded, f.size); err != nil {
		return 0, errors.Join(fmt.Errorf("write block: %w", err), f.f.Truncate(f.size))
	}
	at = f.size
	f.size += int64(len(encoded))
	return at, nil
}

// Sync makes all appended blocks durable and returns how many bytes that are. When it
// failed, the kernel may have let go of them and say yes the next time: so they are
// read, checked and written again then. It fails for good when they are damaged.
func (f *File) Sync() (int64, error) {
	f.syncing.Lock()
	defer f.syncing.Unlock()
	f.mu.RLock()
	size, synced := f.size, f.synced
	f.mu.RUnlock()
	if size == synced {
		return size, nil
	}
	if f.doubt {
		if err := f.again(synced, size); err != nil {
			return 0, fmt.Errorf("sync blocks: %w", err)
		}
	}
	if err := f.flush(); err != nil {
		f.doubt = true
		return 0, fmt.Errorf("sync blocks: %w", err)
	}
	f.doubt = false
	f.mu.Lock()
	f.synced = max(f.synced, size)
	f.mu.Unlock()
	return size, nil
}

// again writes the records between two offsets once more, if they are as they were.
func (f *File) again(at, end int64) error {
	for at < end {
		metas, size, err := f.header(at)
		for _, m := range metas {
			if _, err = f.Read(m, nil); err != nil {
				break
			}
		}
		if err != nil {
			return err
		}
		raw := make([]byte, size)
		if _, err := f.f.ReadAt(raw, at); err != nil {
			return err
		}
		if _, err := f.f.WriteAt(raw, at); err != nil {
			return err
		}
		at += size
	}
	return nil
}

// Synced is how many bytes are known to be durable: they never change.
func (f *File) Synced() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.synced
}

// Stat describes the open file, also when another has its name now.
func (f *File) Stat() (os.FileInfo, error) { return f.f.Stat() }

// Size is the number of bytes in the file.
func (f *File) Size() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.size
}

// ReadTimes reads times and levels of a block into l, which may be nil or used
// again.
func (f *File) ReadTimes(m *Meta, l *Lines) (*Lines, error) {
	if l == nil {
		l = &Lines{}
	}
	b, err := f.frame(m, frameTimes)
	if err == nil {
		err = m.parseTimes(b, l)
	}
	if err != nil {
		return nil, fmt.Errorf("read times of block at %d: %w", m.offset, err)
	}
	return l, nil
}

// ReadWords reads texts that together have the words of a block, each less often
// than its lines have them.
func (f *File) ReadWords(m *Meta) (texts [][]byte, err error) {
	for _, kind := range []int{frameText, frameTemplates, frameColumns, frameFields} {
		if m.frames[kind].bytes == 0 {
			continue
		}
		b, err := f.frame(m, kind)
		if err != nil {
			return nil, fmt.Errorf("read words of block at %d: %w", m.offset, err)
		}
		switch kind {
		case frameText:
			l := &Lines{}
			if err = parseText(b, l, m.Lines); err == nil {
				b = l.Text
			}
		case frameTemplates:
			var t *Templates
			if t, err = parseTemplates(b, m.Lines, m.form); err == nil {
				b = t.apart(nil)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("read words of block at %d: %w", m.offset, err)
		}
		texts = append(texts, b)
	}
	return texts, nil
}

// Read reads a whole block into l, which may be nil or used again. The text of
// an earlier use is overwritten.
func (f *File) Read(m *Meta, l *Lines) (*Lines, error) {
	if l == nil {
		l = &Lines{}
	}
	z, err := f.bytes(m, m.start(0), uint32(m.start(frameKinds)-m.start(0)))
	if err != nil {
		return nil, err
	}
	if err := f.codec.decode(m, l, z); err != nil {
		return nil, fmt.Errorf("read block at %d: %w", m.offset, err)
	}
	return l, nil
}

// decode reads the frames of a block, which lie one after the other in z.
func (c *Codec) decode(m *Meta, l *Lines, z []byte) error {
	var raw [frameKinds][]byte
	scratch := l.Text[:0]
	for kind, f := range m.frames {
		if f.bytes == 0 {
			continue
		}
		if uint64(len(z)) < uint64(f.bytes) {
			return ErrDamaged
		}
		var dst []byte
		if kind == frameText {
			dst = scratch
		}
		var err error
		if raw[kind], err = c.unframe(dst, z[:f.bytes], f); err != nil {
			return err
		}
		z = z[f.bytes:]
	}
	if len(z) > 0 {
		return ErrDamaged
	}
	if err := m.parseTimes(raw[frameTimes], l); err != nil {
		return err
	}
	l.IDs = l.IDs[:0]
	if m.Templated() {
		t, err := parseTemplates(raw[frameTemplates], m.Lines, m.form)
		if err != nil {
			return err
		}
		l.IDs = grow(l.IDs, m.Lines)
		if err := parseIDs(raw[frameIDs], l.IDs, t.Len()); err != nil {
			return err
		}
		if err := expand(scratch, t, raw[frameColumns], l); err != nil {
			return err
		}
	} else if err := parseText(raw[frameText], l, m.Lines); err != nil {
		return err
	}
	l.Fields, l.FEnds = l.Fields[:0], l.FEnds[:0]
	if m.frames[frameFields].bytes == 0 {
		return nil
	}
	l.Fields = raw[frameFields]
	l.FEnds = grow(l.FEnds, m.Lines)
	return splitLines(l.Fields, l.FEnds)
}

// frame reads one frame.
func (f *File) frame(m *Meta, kind int) ([]byte, error) {
	z, err := f.bytes(m, m.start(kind), m.frames[kind].bytes)
	if err != nil {
		return nil, err
	}
	return f.codec.unframe(nil, z, m.frames[kind])
}

// bytes are some of a block, not to be changed: those of a bundle are others' too.
func (f *File) bytes(m *Meta, at int64, n uint32) ([]byte, error) {
	if m.in != nil {
		raw, err := f.unpack(m.in)
		if err != nil {
			return nil, fmt.Errorf("read block of the bundle at %d: %w", m.in.offset, err)
		}
		return raw[at : at+int64(n)], nil // bundled saw that they are there
	}
	z := make([]byte, n)
	if _, err := f.f.ReadAt(z, at); err != nil {
		return nil, fmt.Errorf("read block at %d: %w", m.offset, err)
	}
	return z, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
