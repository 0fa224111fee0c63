// Package block packs lines of one stream into compressed blocks and keeps
// blocks in append-only files.
//
// It owns the columns in memory (Lines), their written form and the file. It
// never decides when to cut a block, and knows nothing of words or queries.
//
// A block is a header (stream, line numbers, times, counts by level) and frames:
// times with levels, text, and sender's fields if there are any. In the place of
// the text, lines of few statements have three frames: templates, in which each
// word with a digit is a Hole, with how many lines of each level they have; the
// template of each line; and the variables. Templates that differ in words only
// have the same shape, and variables are kept in a column for each shape and
// hole, one equal to that of the line before left empty. Of each column the
// templates tell where it is, of which bytes its values are and how long they may
// be, and if there are few the values, so that one can be found, or left out,
// without the others.
//
// Header and frames have their own crc32c, and each frame its packing: times and
// levels are packed by bits, templates by s2 because nearly every query reads
// them, the rest by zstd. A histogram reads only the first frame. Parts decides
// on a few templates and columns what else would be decided on every line, and
// puts single lines together; File.Read puts all of a block together and sets
// their IDs. A file is nothing but blocks; everything else can be derived from it.
// Small blocks of several streams are packed together, in a Bundle. It is unpacked as a
// whole, and remembered for a while: who reads several blocks reads those of a record
// one after the other.
//
// Start reading at Lines in lines.go; the written form is in codec.go, pack.go,
// times.go and template.go, lines are split in split.go, blocks read by parts in
// parts.go, bundles are in bundle.go.
package block
