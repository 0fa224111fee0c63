package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/blevesearch/bleve/v2/index/scorch"
	bleve "github.com/blevesearch/bleve_index_api"
)

var errDamaged = errors.New("a segment is damaged")

// sound tells whether the segments on disk are as they were written. The library
// does not look: a flipped bit would leave out blocks that have a word.
func sound(r bleve.IndexReader) error {
	snapshot, ok := r.(*scorch.IndexSnapshot)
	if !ok {
		return nil // there is no other
	}
	for _, s := range snapshot.Segments() {
		file, ok := s.Segment().(interface{ Path() string })
		if !ok {
			continue // in memory
		}
		if err := soundFile(file.Path()); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file.Path()), err)
		}
	}
	return nil
}

// soundFile compares a file with the sum at its end.
func soundFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return err
	}
	have, want := crc32.NewIEEE(), [4]byte{}
	end := info.Size() - int64(len(want))
	if end < 0 {
		return errDamaged
	}
	if _, err := io.CopyN(have, f, end); err != nil {
		return err
	}
	if _, err := f.ReadAt(want[:], end); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(want[:]) != have.Sum32() {
		return errDamaged
	}
	return nil
}
