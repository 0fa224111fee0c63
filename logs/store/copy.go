package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/block"
	"perch/logs/record"
	"perch/logs/wal"
)

// File is a file of the store of which Size bytes are durable. As long as
// Version is the same these bytes do not change, and more may follow.
type File struct {
	Path    string // relative to the store's directory, with slashes
	Version string
	Size    int64
	Inode   uint64 `json:"-"` // what has another one under this path is another file
}

// Part is a partition: its blocks, and when it is sealed its index.
type Part struct {
	Name  string // orders partitions by age
	Files []File
}

// Files is what a store that died now would be opened from. Every line that was
// acknowledged before it was taken is in Parts or Segments.
type Files struct {
	Checkpoint []byte // belongs to Parts; must not come without them
	Parts      []Part // oldest first
	Segments   []File // of the write-ahead log, oldest first
}

// CheckpointName is the file in the store's directory that holds
// Files.Checkpoint.
const CheckpointName = checkpointName

// PartStart is when the partition of that name was opened.
func PartStart(name string) (time.Time, error) { return time.Parse(partitionName, name) }

// Files lists what a copy of the store is made of. Files may be removed or
// replaced right after; what is left is then in other files.
func (s *Store) Files() (Files, error) {
	s.maintaining.Lock() // no checkpoint, no truncation meanwhile
	defer s.maintaining.Unlock()
	var out Files
	var err error
	if out.Checkpoint, err = os.ReadFile(filepath.Join(s.cfg.Dir, checkpointName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Files{}, fmt.Errorf("list files of log store: %w", err)
	}
	s.mu.RLock()
	closed, parts := s.closed, s.parts
	s.mu.RUnlock()
	if closed {
		return Files{}, errClosed
	}
	for i, p := range parts {
		files, err := p.files(s.count(p), i == len(parts)-1)
		if err != nil {
			return Files{}, fmt.Errorf("list files of partition %s: %w", p.name, err)
		}
		out.Parts = append(out.Parts, Part{p.name, files})
	}
	for _, seg := range s.wal.Segments() {
		info, err := os.Stat(filepath.Join(walDir(s.cfg.Dir), seg.Name))
		if err != nil {
			return Files{}, fmt.Errorf("list files of log store: %w", err)
		}
		out.Segments = append(out.Segments, File{Path: path.Join("wal", seg.Name), Size: seg.Size, Inode: inode(info)})
	}
	return out, nil
}

// files lists the blocks and, once it does not change any more, the index.
func (p *partition) files(blocks int, writing bool) ([]File, error) {
	within := path.Join("parts", p.name)
	main := File{Path: path.Join(within, "blocks.dat"), Size: p.file.Size()}
	if writing {
		main.Size = p.file.Synced()
	}
	info, err := p.file.Stat()
	if err != nil {
		return nil, err
	}
	main.Inode = inode(info)
	if !p.isSealed() {
		return []File{main}, nil
	}
	mark, err := os.Stat(p.sealMark())
	if errors.Is(err, fs.ErrNotExist) { // it could not be sealed
		return []File{main}, nil
	}
	if err != nil {
		return nil, err
	}
	main.Version = strconv.FormatInt(mark.ModTime().UnixNano(), 36)
	out := []File{main}
	x := p.index()
	if x == nil || x.Upto() < blocks {
		return out, nil
	}
	err = filepath.WalkDir(p.indexDir(), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(p.dir, name)
		if err == nil {
			out = append(out, File{Path: path.Join(within, filepath.ToSlash(rel)), Version: main.Version, Size: info.Size(), Inode: inode(info)})
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) { // it is being replaced
		return out[:1], nil
	}
	return out, err
}

func inode(i fs.FileInfo) uint64 {
	if s, ok := i.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

// OpenCopy opens, to be read only, a copy of another store's Files in the
// directory from, which may grow meanwhile and is not changed. Lines that do not
// fit into cfg.HeadBytes are cut into cfg.Dir, which is emptied first and is the
// caller's to remove after Close.
func OpenCopy(from string, cfg Config, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(cfg.Dir), os.MkdirAll(partitionsDir(cfg.Dir), 0o700)); err != nil {
		return nil, fmt.Errorf("open copy of a log store: %w", err)
	}
	s := newStore(cfg, log, prometheus.NewRegistry())
	err := s.loadCopy(from)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open copy of a log store %s: %w", from, err), s.closeFiles())
	}
	return s, nil
}

func (s *Store) loadCopy(from string) (err error) {
	if s.codec, err = block.NewCodec(); err != nil {
		return err
	}
	cp, damaged, err := readCheckpoint(from)
	if err != nil {
		return err
	}
	if damaged != nil {
		s.log.Warn("checkpoint of a copy was damaged", "err", damaged)
	}
	if err := s.loadPartitions(from, cp, lend); err != nil {
		return err
	}
	if err := wal.Read(walDir(from), s.replay); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	clear(s.byPointer)
	s.positions = map[fileKey]record.Position{} // of sources on another machine
	return nil
}
