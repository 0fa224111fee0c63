package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

// partition is a directory of blocks that arrived within one stretch of time.
type partition struct {
	dir    string
	name   string
	start  time.Time
	file   *block.File
	lent   bool      // of another store's copy: only read
	opened time.Time // by this process

	// Guarded by Store.mu:
	count int                // of blocks
	metas []*block.Meta      // append-only; nil when they were let go of
	ends  map[uint64]uint64  // number after the last line of each stream
	sums  []end              // the same, once metas were let go of
	parts map[string]partUse // of metas, once they were let go of

	asked   atomic.Int64 // when blocks were asked for last, Unix ns; never: when it was opened
	reading sync.Mutex   // held while they are read again
	damaged atomic.Bool  // some were, the last time

	tidy    sync.Mutex   // held while the index is completed, and the partition removed or replaced
	claimed atomic.Int32 // by those who wait to remove or replace it

	mu     sync.RWMutex // guards what follows
	idx    *index.Index // nil while there is none
	sealed bool
	stale  bool      // other blocks have taken the place of its file, which is still read
	retry  time.Time // not written anew before, because that failed
	used   int       // views that read it
	gone   bool      // closed as soon as nobody reads it
}

const partitionName = "20060102T150405.000Z"

func partitionsDir(dir string) string { return filepath.Join(dir, "parts") }

// openPartition opens or makes a partition. Blocks from offset verified on are
// checked. It returns the bytes that were cut off.
func openPartition(dir, name string, codec *block.Codec, verified int64) (*partition, int64, error) {
	start, err := time.Parse(partitionName, name)
	if err != nil {
		return nil, 0, fmt.Errorf("open partition %s: %w", name, err)
	}
	p := &partition{dir: filepath.Join(partitionsDir(dir), name), name: name, start: start, opened: time.Now()}
	p.asked.Store(time.Now().UnixNano())
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, 0, fmt.Errorf("open partition %s: %w", name, err)
	}
	// What a sealing that was cut short left.
	if err := errors.Join(os.RemoveAll(p.newBlocks()), os.RemoveAll(p.newIndex())); err != nil {
		return nil, 0, fmt.Errorf("open partition %s: %w", name, err)
	}
	_, err = os.Stat(p.sealMark())
	if p.sealed = err == nil; p.sealed { // it has been durable as a whole since, and the write-ahead log is past it
		verified = 1 << 62
	}
	file, metas, lost, err := block.Open(p.blocksFile(), codec, verified)
	if err != nil {
		return nil, 0, fmt.Errorf("open partition %s: %w", name, err)
	}
	p.file = file
	p.know(metas...)
	ahead := false // the index knows blocks that are not there: others will have their numbers
	if verified < 1<<62 && index.Exists(p.indexDir()) {
		known, err := index.Known(p.indexDir())
		ahead = err != nil || known > p.count
	}
	if ahead || lost.Skipped > 0 { // or blocks have other numbers than it knows
		if err := errors.Join(os.RemoveAll(p.indexDir()), syncDirs(p.dir)); err != nil {
			return nil, 0, errors.Join(fmt.Errorf("open partition %s: %w", name, err), file.Close())
		}
	}
	return p, lost.Skipped + lost.Cut, nil
}

// lend opens a partition of a copy, of which nothing is changed. It is nil while
// its blocks are on their way: they take their name when they can be read.
func lend(dir, name string, codec *block.Codec, verified int64) (*partition, int64, error) {
	start, err := time.Parse(partitionName, name)
	if err != nil {
		return nil, 0, fmt.Errorf("open partition %s: %w", name, err)
	}
	p := &partition{dir: filepath.Join(partitionsDir(dir), name), name: name, start: start, opened: time.Now(), lent: true}
	p.asked.Store(time.Now().UnixNano())
	file, metas, lost, err := block.OpenRead(p.blocksFile(), codec, verified)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open partition %s: %w", name, err)
	}
	p.file = file
	p.know(metas...)
	if lost.Skipped == 0 && index.Exists(p.indexDir()) {
		if x, err := index.OpenRead(p.indexDir(), len(metas)); err == nil { // else blocks are scanned
			p.idx = x
		}
	}
	return p, 0, nil // blocks that are not there yet are not damage
}

// know takes blocks that are in the file. Called with Store.mu held, or before
// others have the partition.
func (p *partition) know(metas ...*block.Meta) {
	if p.ends == nil {
		p.ends = map[uint64]uint64{}
	}
	p.metas = append(p.metas, metas...)
	p.count += len(metas)
	for _, m := range metas {
		p.ends[m.Hash] = max(p.ends[m.Hash], m.First+uint64(m.Lines))
	}
}

// share takes the labels of blocks that are known already, for there are many more
// blocks than streams. Called before others have the partition.
func (p *partition) share(known []*block.Meta) {
	streams := make(map[uint64]*record.Stream, len(p.ends))
	for _, m := range known {
		streams[m.Hash] = m.Stream
	}
	for _, m := range p.metas {
		if st, ok := streams[m.Hash]; ok {
			m.Stream = st
		}
	}
}

func (p *partition) blocksFile() string { return filepath.Join(p.dir, "blocks.dat") }
func (p *partition) newBlocks() string  { return filepath.Join(p.dir, "blocks.new") }
func (p *partition) indexDir() string   { return filepath.Join(p.dir, "index") }
func (p *partition) newIndex() string   { return filepath.Join(p.dir, "index.new") }
func (p *partition) sealMark() string   { return filepath.Join(p.dir, "sealed") }

// bytes is what the partition takes on disk, with what is being made to replace it.
func (p *partition) bytes() int64 {
	total := p.file.Size()
	_ = filepath.WalkDir(p.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // merged away meanwhile
		}
		if i, err := d.Info(); err == nil && !d.IsDir() && name != p.blocksFile() {
			total += i.Size()
		}
		return nil
	})
	return total
}

// written is when its blocks were written last; zero if that is not known.
func (p *partition) written() time.Time {
	info, err := p.file.Stat()
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// take keeps the partition open until drop.
func (p *partition) take() {
	p.mu.Lock()
	p.used++
	p.mu.Unlock()
}

func (p *partition) drop() error {
	p.mu.Lock()
	p.used--
	last := p.gone && p.used == 0
	p.mu.Unlock()
	if last {
		return p.closeFiles()
	}
	return nil
}

// claim ends the completing of the index, for the partition is removed or replaced.
func (p *partition) claim() (free func()) {
	p.claimed.Add(1)
	p.tidy.Lock()
	return func() {
		p.claimed.Add(-1)
		p.tidy.Unlock()
	}
}

// close closes the partition now or when the last reader is done.
func (p *partition) close() error {
	p.mu.Lock()
	was := p.gone
	p.gone = true
	busy := p.used > 0
	p.mu.Unlock()
	if was || busy {
		return nil
	}
	return p.closeFiles()
}

func (p *partition) closeFiles() error {
	var err error
	if x := p.index(); x != nil {
		err = x.Close()
	}
	return errors.Join(err, p.file.Close())
}

func (p *partition) index() *index.Index {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.idx
}

// dropIndex closes the index; blocks are searched by scanning until
// completeIndex makes another.
func (p *partition) dropIndex() error {
	x := p.index()
	p.setIndex(nil)
	if x == nil {
		return nil
	}
	return x.Close()
}

func (p *partition) setIndex(x *index.Index) {
	p.mu.Lock()
	p.idx = x
	p.mu.Unlock()
}

func (p *partition) isSealed() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.sealed
}

func (p *partition) isStale() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.stale
}

func (p *partition) setStale() {
	p.mu.Lock()
	p.stale = true
	p.mu.Unlock()
}

// waits is the time before which the partition is not written anew.
func (p *partition) waits() time.Time {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.retry
}

func (p *partition) wait(until time.Time) {
	p.mu.Lock()
	p.retry = until
	p.mu.Unlock()
}
