// Package chunk remembers which chunks of lines are stored, so that one which
// is sent again because its acknowledgement was lost is not stored twice, also
// after a crash between the two. What comes without a name is a chunk too: its
// content names it, for as long as the sender waits for the answer (Unsure).
//
// It owns a ring of ids. The newest Durable of them are written down as
// positions, in the same fsync as the chunk's lines; more are held in memory.
// Older ones would be stored again.
//
// Methods may be called from any goroutine. Start reading at Store in chunk.go.
package chunk
