package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"syscall"
)

// filters is the append-only file of bloom filters: one record per block, in
// the order of blocks. Records: lines u32, sum u32, lines × 64 bytes.
type filters struct {
	f *os.File

	mu     sync.RWMutex // guards what follows
	size   int64
	starts []int64 // of each filter's bytes
	lens   []int
	room   []byte // to write a filter
	mapped []byte // covers the file at least up to some earlier size
}

func openFilters(path string, keep int, readOnly bool) (*filters, error) {
	mode := os.O_CREATE | os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	h, err := os.OpenFile(path, mode, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open filters: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read filters: %w", err), h.Close())
	}
	t := &filters{f: h}
	for len(t.starts) < keep && int64(len(b))-t.size >= 8 {
		e := b[t.size:]
		n := int64(binary.LittleEndian.Uint32(e)) * filterLine
		if int64(len(e))-8 < n || filterSum(e[8:8+n]) != binary.LittleEndian.Uint32(e[4:]) {
			break
		}
		t.starts = append(t.starts, t.size+8)
		t.lens = append(t.lens, int(n))
		t.size += 8 + n
	}
	if readOnly {
		return t, nil
	}
	if err := h.Truncate(t.size); err != nil {
		return nil, errors.Join(fmt.Errorf("cut filters: %w", err), h.Close())
	}
	return t, nil
}

// filterSum is the crc32c of a filter. That of none would be 0: a file whose end was
// not written before the power was lost is zeros there, which must be no filters.
func filterSum(f []byte) uint32 {
	if len(f) == 0 {
		return noFilter
	}
	return crc32.Checksum(f, crc32.MakeTable(crc32.Castagnoli))
}

const noFilter = 1<<32 - 1

func (t *filters) append(f []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := binary.LittleEndian.AppendUint32(t.room[:0], uint32(len(f)/filterLine))
	b = binary.LittleEndian.AppendUint32(b, filterSum(f))
	b = append(b, f...)
	t.room = b
	if _, err := t.f.WriteAt(b, t.size); err != nil {
		return fmt.Errorf("write filter: %w", err)
	}
	t.starts = append(t.starts, t.size+8)
	t.lens = append(t.lens, len(f))
	t.size += int64(len(b))
	return nil
}

func (t *filters) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.starts)
}

const mapStep = 4 << 20

// mark sets have[i] for every block i of among whose filter has h.
func (t *filters) mark(h uint64, among, have Set) error {
	if err := t.remap(); err != nil {
		return err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := range t.starts {
		if among.Has(i) && filterHas(t.mapped[t.starts[i]:t.starts[i]+int64(t.lens[i])], h) {
			have.Add(i)
		}
	}
	return nil
}

func (t *filters) remap() error {
	t.mu.RLock()
	enough := int64(len(t.mapped)) >= t.size
	t.mu.RUnlock()
	if enough {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if int64(len(t.mapped)) >= t.size {
		return nil
	}
	// The mapping reaches past the end of the file; only written bytes are touched.
	m, err := syscall.Mmap(int(t.f.Fd()), 0, int(t.size+mapStep), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map filters: %w", err)
	}
	old := t.mapped
	t.mapped = m
	if old != nil {
		return syscall.Munmap(old)
	}
	return nil
}

func (t *filters) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.mapped != nil {
		err = syscall.Munmap(t.mapped)
		t.mapped = nil
	}
	t.starts = nil
	return errors.Join(err, t.f.Close())
}
