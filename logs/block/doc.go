// Package block packs lines of one stream into compressed blocks and keeps
// blocks in append-only files.
//
// It owns the columns in memory (Lines), their written form and the file. It
// never decides when to cut a block, and knows nothing of words or queries.
//
// A block is a header (stream, line numbers, times, counts by level) and frames:
// times with levels, text, and sender's fields if there are any. Lines of few
// statements are written as templates, in which each word with a digit is a
// Hole, the template of each line, and the variables in columns, in place of the
// text. Header and frames have their own crc32c, so that a histogram reads only
// the first frame, and Parts give templates, to decide on a few of them what
// else would be decided on every line, then the columns that are needed;
// File.Read puts lines together again and sets their IDs. A file is nothing but blocks; everything
// else can be derived from it.
//
// Start reading at Lines in lines.go; the written form is in codec.go and template.go, lines
// are split in split.go.
package block
