// Package block packs lines of one stream into compressed blocks and keeps
// blocks in append-only files.
//
// It owns the columns in memory (Lines), their written form and the file. It
// never decides when to cut a block, and knows nothing of words or queries.
//
// A block is a header (stream, line numbers, times, counts by level) and three
// frames: times with levels, text, and sender's fields if there are any. Header
// and frames have their own crc32c, so that a histogram reads only the first
// frame. A file is nothing but blocks; everything else can be derived from it.
//
// Start reading at Lines in lines.go; the written form is in codec.go.
package block
