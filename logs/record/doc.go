// Package record says what a log line is: its time, the stream it belongs to,
// its level and its bytes, and how a batch of lines is written down.
//
// It owns the shape and the codec. It never opens a file and knows nothing of
// indexes, queries or Kubernetes objects; every package that carries lines
// imports it, and it imports only the standard library.
//
// Bodies are verbatim: any bytes, also newlines and invalid UTF-8. A *Stream is
// read-only once a Record points to it, so that records can share it.
//
// Start reading at Record in record.go; the written form is in codec.go.
package record
