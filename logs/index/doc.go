// Package index says which blocks can hold a word.
//
// It owns, per partition, a Bleve (scorch) index with one document per block, a
// bloom filter per block, and the vocabulary that decides between them: words
// of the frozen vocabulary are Bleve terms; all other words and every token
// with a digit go into the block's bloom filter. Without that limit the word
// index explodes on text with a large vocabulary.
//
// The index is derived data. It is never waited for and never the only copy:
// what is not indexed is scanned, and an index that is missing or broken is
// built again from the blocks. It never says no to a block that has the word.
//
// Words are made by Tokens in words.go, the same for text and for queries.
// Start reading at Index.Add and Index.Candidates in index.go.
package index
