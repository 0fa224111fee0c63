package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"perch/logs/record"
	"perch/logs/wal"
)

// checkpoint is what the write-ahead log no longer needs to tell. Blocks cannot tell
// the positions, nor how far a stream was cut whose blocks are gone.
type checkpoint struct {
	Positions []record.Position `json:"positions"`
	Marks     []mark            `json:"marks"`
	Partition string            `json:"partition"` // later blocks are checked when opened
	Bytes     int64             `json:"bytes"`

	lost bool // there was one, which cannot be read
}

// mark says how far a stream was cut, in case its blocks are gone.
type mark struct {
	Hash uint64 `json:"hash,string"`
	Next uint64 `json:"next"`
	place
}

// The checkpoint before is kept too, with all of the write-ahead log that it needs.
const (
	checkpointName   = "checkpoint.json"
	checkpointBefore = checkpointName + ".before"
	checkpointAside  = checkpointName + ".damaged"
)

// checkpoint makes blocks durable, writes down what they and the write-ahead
// log need no longer say, and lets go of old segments.
func (s *Store) checkpoint() error {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	s.mu.Lock()
	if s.closed || !s.dirty || s.wal == nil {
		s.mu.Unlock()
		return nil
	}
	s.dirty = false
	keep := s.lastSeq + 1
	for _, src := range s.sources {
		if src.head != nil {
			keep = min(keep, src.head.oldest)
		}
	}
	uncut := map[uint64]uint64{} // number of the first line of each stream that waits to be cut
	for _, h := range s.sealed {
		keep = min(keep, h.oldest)
		if n, ok := uncut[h.hash]; !ok || h.first < n {
			uncut[h.hash] = h.first
		}
	}
	first, _ := s.wal.Oldest()
	var cp checkpoint
	for h, src := range s.sources {
		// The number of a stream's next line must be known even where its blocks
		// are gone, or not yet copied.
		if src.done.Seq >= first && src.done.Seq > 0 || src.head != nil && src.head.first > 0 {
			done := src.next
			if src.head != nil {
				done = src.head.first
			}
			if n, ok := uncut[h]; ok {
				done = min(done, n)
			}
			cp.Marks = append(cp.Marks, mark{Hash: h, Next: done, place: src.done})
		}
	}
	cp.Positions = make([]record.Position, 0, len(s.positions))
	for _, p := range s.positions {
		cp.Positions = append(cp.Positions, p)
	}
	var current *partition
	if n := len(s.parts); n > 0 {
		current = s.parts[n-1]
	}
	s.mu.Unlock()
	before := s.kept
	err := s.commit(current, &cp, keep)
	if err != nil || s.kept > before { // try again; or let go of what this one does not need
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return err
}

func (s *Store) commit(current *partition, cp *checkpoint, keep uint64) error {
	if current != nil {
		size, err := current.file.Sync()
		if err != nil {
			return err
		}
		cp.Partition, cp.Bytes = current.name, size
	}
	if err := writeCheckpoint(s.cfg.Dir, *cp); err != nil {
		return err
	}
	before := s.kept
	s.kept = keep
	return s.wal.Truncate(min(before, keep))
}

// A checkpoint is an object whose first field is the crc32c of what follows it.
const sumField = `{"sum":"%08x",`

func (cp checkpoint) encode() ([]byte, error) {
	b, err := json.Marshal(cp)
	if err != nil {
		return nil, err
	}
	b = b[1:] // after '{'
	return append(fmt.Appendf(nil, sumField, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), b...), nil
}

// parseCheckpoint reads what encode wrote, or an older one without a sum.
func parseCheckpoint(b []byte) (cp checkpoint, err error) {
	var sum uint32
	if n, _ := fmt.Sscanf(string(b[:min(len(b), 32)]), sumField, &sum); n == 1 {
		rest := b[bytes.IndexByte(b, ',')+1:]
		if crc32.Checksum(rest, crc32.MakeTable(crc32.Castagnoli)) != sum {
			return cp, errors.New("wrong sum")
		}
	}
	err = json.Unmarshal(b, &cp)
	return cp, err
}

func writeCheckpoint(dir string, cp checkpoint) error {
	b, err := cp.encode()
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	path := filepath.Join(dir, checkpointName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		if err = os.Rename(path, filepath.Join(dir, checkpointBefore)); errors.Is(err, fs.ErrNotExist) {
			err = nil // it is the first
		}
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDirs(dir)
	}
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// readCheckpoint reads the checkpoint of dir, or the one before when that cannot be
// used, which damaged tells the reason of. It is lost when there is none at all, but
// must have been.
func readCheckpoint(dir string) (cp checkpoint, damaged, err error) {
	for _, name := range []string{checkpointName, checkpointBefore} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return cp, nil, fmt.Errorf("read checkpoint: %w", err)
		}
		if cp, err = parseCheckpoint(b); err == nil {
			return cp, damaged, nil
		}
		damaged = errors.Join(damaged, fmt.Errorf("read %s: %w", name, err))
	}
	if damaged != nil {
		return checkpoint{lost: true}, damaged, nil
	}
	// Without one nothing was let go of: the write-ahead log tells all.
	first, err := wal.First(walDir(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cp, nil, err
	}
	if first == 1 {
		return checkpoint{}, nil, nil
	}
	parts, err := os.ReadDir(partitionsDir(dir))
	if len(parts) == 0 || err != nil {
		return checkpoint{}, nil, nil
	}
	return checkpoint{lost: true}, errors.New("there is none"), nil
}

// loadCheckpoint reads the checkpoint and puts a damaged one aside. The store goes on
// without: lines come from blocks and the write-ahead log.
func (s *Store) loadCheckpoint() (checkpoint, error) {
	cp, damaged, err := readCheckpoint(s.cfg.Dir)
	if err != nil || damaged == nil {
		return cp, err
	}
	used := "before"
	if cp.lost {
		used = "none"
		s.log.Error("checkpoint was lost: files that were read to their end are read again, and their lines may be stored twice", "err", damaged)
	} else {
		s.log.Error("checkpoint was damaged: the one before it is used, nothing is lost", "err", damaged)
	}
	s.m.checkpoints.WithLabelValues(used).Inc()
	s.dirty = true // write another
	err = os.Rename(filepath.Join(s.cfg.Dir, checkpointName), filepath.Join(s.cfg.Dir, checkpointAside))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cp, fmt.Errorf("put damaged checkpoint aside: %w", err)
	}
	return cp, nil
}
