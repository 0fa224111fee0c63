// Package index says which blocks can hold a word.
//
// It owns, per partition, a Bleve (scorch) index with one document per block, a
// bloom filter per block, and the vocabulary that decides between them: words
// of the frozen vocabulary are Bleve terms; all other words, every word with a
// digit and helpers for prefixes are keys of the block's bloom filter. Without
// that limit the word index explodes on text with a large vocabulary. The first
// vocabulary is learned while the first blocks are cut, later ones from samples
// of the partition before.
//
// The index is derived data. It is never waited for and never the only copy:
// what is not indexed is scanned, and an index that is missing or broken is
// built again from the blocks. It never says no to a block that has the word.
//
// What a word is says Words in words.go, for text and for queries; gatherer in
// gather.go finds the distinct ones of a block.
// Start reading at Index.Add and Index.Candidates in index.go.
package index
