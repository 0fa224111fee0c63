// Package wal makes bytes durable in order. Append returns when the entry has
// been fsynced; concurrent appends share one fsync (group commit).
//
// It owns the segment files of its directory. It never looks into payloads and
// never drops an entry that was acknowledged: when the disk refuses, Append
// fails, the half-written entry is cut off, and the caller tries again.
//
// Entries carry ascending sequence numbers without gaps. apply callbacks run
// one after the other in that order. A segment starts with a header that says
// how much of its predecessor is valid, so that a segment whose tail could not
// be cut is still read correctly.
//
// No goroutine: the first of several concurrent callers leads, the others wait.
// Start reading at Log.Append in wal.go; the file format is in segment.go.
package wal
