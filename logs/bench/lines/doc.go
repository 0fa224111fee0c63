// Package lines makes log lines for measuring: the same lines for the same seed,
// of a hundred streams, some much faster than others.
//
// Three sets: services that look real, with a few dozen statements each, ids,
// paths and JSON; the same with words that vary without end; and random base64,
// 90 bytes a line. It imports nothing of logs but the record.
//
// Start reading at Generator.Next in lines.go.
package lines
