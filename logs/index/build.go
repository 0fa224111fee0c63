package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/blevesearch/bleve/v2/index/scorch"
)

// Builder makes the index of blocks that are all there already: one segment,
// half the size of one that grew. One goroutine uses it; Close makes the index
// ready to be opened.
type Builder struct {
	sorter
	dir      string
	scorch   *scorch.Builder
	internal map[string][]byte
	filters  *filters
	added    int
}

// Build begins an index in dir, removing what was there.
func Build(dir string, vocab *Vocabulary) (*Builder, error) {
	b := &Builder{sorter: sorter{vocab: vocab, g: newGatherer()}, dir: dir, internal: map[string][]byte{}}
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = writeVocabulary(filepath.Join(dir, "vocabulary"), vocab)
	}
	if err == nil {
		b.filters, err = openFilters(filepath.Join(dir, "filters"), 0, false)
	}
	if err != nil {
		return nil, fmt.Errorf("build index: %w", err)
	}
	// The library makes a directory of its own beside the segment.
	b.scorch, err = scorch.NewBuilder(map[string]any{
		"path": filepath.Join(dir, "bleve"), "buildPathPrefix": dir, "batchSize": batchBlocks, "internal": b.internal,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build index: %w", err), b.filters.close())
	}
	return b, nil
}

// Add indexes the next block: the words of the texts.
func (b *Builder) Add(texts ...[]byte) error {
	terms, f := b.sort(texts)
	if err := b.filters.append(f); err != nil {
		return err
	}
	if err := b.scorch.Index(newDocument(b.added, terms)); err != nil {
		return fmt.Errorf("build index: block %d: %w", b.added, err)
	}
	b.added++
	return nil
}

// Close writes what is left. At least one block must have been added.
func (b *Builder) Close() error {
	b.internal[string(uptoKey)] = binary.BigEndian.AppendUint32(nil, uint32(b.added))
	err := b.scorch.Close()
	if err == nil {
		err = b.filters.f.Sync()
	}
	if err = errors.Join(err, b.filters.close()); err != nil {
		return fmt.Errorf("build index: %w", err)
	}
	return nil
}

// Abandon gives up and removes what was made.
func (b *Builder) Abandon() error {
	return errors.Join(b.filters.close(), os.RemoveAll(b.dir))
}
