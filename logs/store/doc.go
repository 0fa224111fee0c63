// Package store keeps the log lines of one machine.
//
//	Open(cfg, log, reg) → *Store; Run(ctx) maintains; Append makes durable;
//	View gives a consistent picture to read; Follow gives new lines.
//
// It joins the write-ahead log (durability), heads (lines not yet cut, one per
// stream), partitions of blocks (the truth for everything cut) and their
// indexes (derived). A line is in exactly one place: after a crash the blocks
// say up to where each stream was cut, and only later entries of the
// write-ahead log are put back into heads.
//
// Source positions (Position) are durable in the same fsync as the lines they
// were appended with. Append fails with ErrFull while the disk takes no more;
// nothing is dropped to make room except the oldest partition, by age or bytes.
//
// The checkpoint says what neither blocks nor the write-ahead log need to: positions,
// how far a stream was cut whose blocks are gone, and which blocks are durable. The one
// before is kept, with all of the write-ahead log that it needs, and used when the last
// is damaged: nothing is lost. Without both, no line is lost either, but files that
// were read to their end are read again: their lines may be there twice.
//
// Append, View, Follow and Position may be called from any goroutine and also
// before Run. Cutting happens in the caller when Run does not keep up.
//
// Closed partitions are sealed in the background: the blocks of a stream are
// merged and compressed better, the index becomes one segment, and blocks of
// namespaces with a shorter Retention are left out. New files are made beside
// the old ones; the index goes first, then the blocks are replaced by rename.
// When that fails, as on a full disk, the partition stays as it is and is tried
// again later. A damaged block is kept as it is.
//
// What is told of blocks is in memory. When there are so many small ones that it takes
// more than a part of what blocks may take on disk, that of closed partitions is let go
// of, and read again by who asks.
//
// Start reading at Append in append.go, cut in cut.go, Open in open.go, rewrite
// in seal.go, checkpoint in checkpoint.go, blocks in known.go.
package store
