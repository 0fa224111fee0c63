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
// Start reading at Append in append.go, cut in cut.go, Open in open.go, rewrite
// in seal.go.
package store
