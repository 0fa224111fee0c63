package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/blevesearch/bleve/v2/index/scorch"
	bleve "github.com/blevesearch/bleve_index_api"
)

// Index covers the blocks of one partition from the first up to Upto. One
// goroutine adds; any may ask.
type Index struct {
	sorter
	dir string

	mu      sync.RWMutex // guards what follows
	bleve   bleve.Index
	queue   *bleve.AnalysisQueue
	filters *filters
	batch   *bleve.Batch
	told    int // blocks that Bleve had when it was opened
	upto    int // blocks handed to Bleve
	added   int // blocks added, some still in batch
	closed  bool

	persisted chan struct{} // closed when all that was flushed is on disk
}

// batchBlocks are given to Bleve at once.
const batchBlocks = 64

// Exists tells whether dir holds an index with a readable vocabulary.
func Exists(dir string) bool {
	_, err := readVocabulary(filepath.Join(dir, "vocabulary"))
	return err == nil
}

// Lost tells whether a file that every open index has is missing in dir: what is open
// still answers, but will not be found again.
func Lost(dir string) bool {
	for _, name := range []string{"vocabulary", "filters", filepath.Join("bleve", "root.bolt")} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// Create makes an empty index in dir, removing what was there.
func Create(dir string, vocab *Vocabulary) (*Index, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("create index: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create index: %w", err)
	}
	if err := writeVocabulary(filepath.Join(dir, "vocabulary"), vocab); err != nil {
		return nil, fmt.Errorf("create index: %w", err)
	}
	return Open(dir, 1<<31-1)
}

var uptoKey = []byte("upto")

// Open opens the index in dir and reads all of it once, to see whether it is as it
// was written. blocks is the number of blocks that exist; entries for later ones
// are forgotten. Any error means: create it again.
func Open(dir string, blocks int) (*Index, error) { return open(dir, blocks, false) }

// OpenRead opens an index to be asked only. Its files are not changed.
func OpenRead(dir string, blocks int) (*Index, error) { return open(dir, blocks, true) }

func open(dir string, blocks int, readOnly bool) (x *Index, err error) {
	defer func() {
		if r := recover(); r != nil { // a damaged segment file can make the library panic
			x, err = nil, fmt.Errorf("open index %s: %v", dir, r)
		}
	}()
	vocab, err := readVocabulary(filepath.Join(dir, "vocabulary"))
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	queue := bleve.NewAnalysisQueue(1)
	defer func() {
		if err != nil {
			queue.Close()
		}
	}()
	b, err := scorch.NewScorch(scorch.Name, map[string]any{
		"path":         filepath.Join(dir, "bleve"),
		"read_only":    readOnly,
		"unsafe_batch": true, // durability is upto's business
		"scorchPersisterOptions": map[string]any{
			"PersisterNapTimeMSec": 1000, "PersisterNapUnderNumFiles": 200,
		},
		// The library's floor, 2000 documents, would have every batch of our few
		// documents merged with all before it.
		"scorchMergePlanOptions": map[string]any{"FloorSegmentSize": batchBlocks},
	}, queue)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if err := b.Open(); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x = &Index{dir: dir, sorter: sorter{vocab: vocab, g: newGatherer()}, bleve: b, queue: queue, batch: bleve.NewBatch()}
	r, err := b.Reader()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open index: %w", err), b.Close())
	}
	v, err := r.GetInternal(uptoKey)
	if !readOnly { // a copy is opened while somebody waits for it
		err = errors.Join(err, sound(r))
	}
	_ = r.Close() // read only
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open index: %w", err), b.Close())
	}
	if len(v) == 4 {
		x.told = int(binary.BigEndian.Uint32(v))
		x.upto = min(x.told, blocks)
	}
	if x.filters, err = openFilters(filepath.Join(dir, "filters"), x.upto, readOnly); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	x.upto = min(x.upto, x.filters.count())
	x.added = x.upto
	return x, nil
}

// Known is how many blocks the index in dir has entries for. It changes nothing, and
// does not look whether they are as they were written.
func Known(dir string) (blocks int, err error) {
	defer func() {
		if r := recover(); r != nil { // a damaged segment file can make the library panic
			err = fmt.Errorf("look at index %s: %v", dir, r)
		}
	}()
	x, err := OpenRead(dir, 1<<31-1)
	if err != nil {
		return 0, err
	}
	return x.told, x.Close()
}

// Vocabulary is the frozen word list.
func (x *Index) Vocabulary() *Vocabulary { return x.vocab }

// Added is the number of blocks added; the next to add has this number.
func (x *Index) Added() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.added
}

// Upto is the number of blocks that Candidates knows.
func (x *Index) Upto() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.upto
}

// Add indexes block n, which must be the next: the words of the texts.
func (x *Index) Add(n int, texts ...[]byte) error {
	if n != x.Added() {
		panic(fmt.Sprintf("BUG: block %d added to index at %d", n, x.Added()))
	}
	terms, f := x.sorter.sort(texts)
	return x.put(n, terms, f)
}

// Take indexes the blocks whose words l kept, the first of which must be the
// next.
func (x *Index) Take(l *Learner) error {
	for i := range l.kept {
		terms, f := x.sorter.part(&l.kept[i])
		if err := x.put(x.Added(), terms, f); err != nil {
			return err
		}
	}
	l.kept = nil
	return nil
}

func (x *Index) put(n int, terms []string, filter []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.filters.append(filter); err != nil {
		return err
	}
	x.batch.Update(newDocument(n, terms))
	x.added++
	if len(x.batch.IndexOps) >= batchBlocks {
		return x.flush()
	}
	return nil
}

// Flush makes added blocks known to Candidates.
func (x *Index) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flush()
}

func (x *Index) flush() error {
	if len(x.batch.IndexOps) == 0 || x.closed {
		return nil
	}
	var v [4]byte
	binary.BigEndian.PutUint32(v[:], uint32(x.added))
	x.batch.SetInternal(uptoKey, v[:])
	persisted := make(chan struct{})
	x.persisted = persisted
	tell := sync.OnceFunc(func() { close(persisted) })
	x.batch.SetPersistedCallback(func(err error) {
		if err == nil {
			tell()
		}
	})
	if err := x.bleve.Batch(x.batch); err != nil {
		return fmt.Errorf("index blocks up to %d: %w", x.added, err)
	}
	x.batch = bleve.NewBatch()
	x.upto = x.added
	return nil
}

// Candidates returns which of the first Upto blocks may satisfy need, and that
// number. Blocks from there on are not known and must be read.
func (x *Index) Candidates(ctx context.Context, need Need) (_ Set, _ int, err error) {
	defer func() {
		if r := recover(); r != nil { // a segment was damaged since it was opened
			err = fmt.Errorf("read index %s: %v", x.dir, r)
		}
	}()
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return nil, 0, nil
	}
	n := x.upto
	r, err := x.bleve.Reader()
	if err != nil {
		return nil, 0, fmt.Errorf("read index: %w", err)
	}
	defer r.Close() // read only
	q := question{x: x, ctx: ctx, r: r, n: n}
	s, err := q.ask(need, FullSet(n))
	return s, n, err
}

type question struct {
	x   *Index
	ctx context.Context
	r   bleve.IndexReader
	n   int
}

// ask returns a subset of among.
func (q *question) ask(need Need, among Set) (Set, error) {
	switch need.Op {
	case Word:
		return q.word(clip(need.Text), among)
	case Prefix:
		return q.prefix(need.Text, among)
	case And:
		var err error
		for _, k := range need.Kids {
			if among, err = q.ask(k, among); err != nil {
				return nil, err
			}
		}
		return among, nil
	case Or:
		out := NewSet(q.n)
		for _, k := range need.Kids {
			s, err := q.ask(k, among)
			if err != nil {
				return nil, err
			}
			out.union(s)
		}
		return out, nil
	}
	return among, nil
}

func (q *question) word(w string, among Set) (Set, error) {
	out := NewSet(q.n)
	if !isID(w) && q.x.vocab.Has(w) {
		return out, q.term(w, among, out)
	}
	return out, q.x.filters.mark(hash(w), among, out)
}

func (q *question) term(t string, among, out Set) error {
	tr, err := q.r.TermFieldReader(q.ctx, []byte(t), termField, false, false, false)
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	defer tr.Close() // read only
	var doc bleve.TermFieldDoc
	for {
		d, err := tr.Next(&doc)
		if err != nil {
			return fmt.Errorf("read index: %w", err)
		}
		if d == nil {
			return nil
		}
		id, err := q.r.ExternalID(d.ID)
		if err != nil {
			return fmt.Errorf("read index: %w", err)
		}
		if n, ok := blockNumber(id); ok && among.Has(n) {
			out.Add(n)
		}
	}
}

const maxPrefixTerms = 256

// prefix: a word that begins with p is a term of the vocabulary, or an id whose
// letters are known, or is announced by its first three bytes.
func (q *question) prefix(p string, among Set) (Set, error) {
	if len(p) > maxWord {
		return among, nil
	}
	a := alphaPrefix(p)
	if a != p { // only ids begin like that
		if len(a) < 2 || len(p) < 3 {
			return among, nil
		}
		return q.word(idKey+a, among)
	}
	if len(p) < helperSize {
		return among, nil
	}
	terms := append(q.x.vocab.withPrefix(p), q.x.vocab.withPrefix(idKey+p)...)
	if len(terms) > maxPrefixTerms {
		return among, nil
	}
	out := NewSet(q.n)
	for _, helper := range []string{p[:helperSize], anyHelper} {
		if err := q.x.filters.mark(hash(helperKey+helper), among, out); err != nil {
			return nil, err
		}
	}
	for _, t := range terms {
		if err := q.term(t, among, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Settle waits until everything flushed is on disk, or d has passed.
func (x *Index) Settle(d time.Duration) {
	x.mu.RLock()
	persisted := x.persisted
	x.mu.RUnlock()
	if persisted == nil { // nothing was flushed
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-persisted:
	case <-t.C:
	}
}

// Close flushes and closes. What Bleve has not yet written is indexed again
// after the next Open.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	err := x.flush()
	x.closed = true
	err = errors.Join(err, x.bleve.Close(), x.filters.close())
	x.queue.Close()
	return err
}
