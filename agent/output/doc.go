// Package output reads, rotates and removes the files that runtimes write
// container output to: D/podlogs/<ns>_<name>_<uid>/<container>/<attempt>.log in
// CRI's format, with older parts beside it as <attempt>.log.<time>.
//
// It owns nothing but the names of rotated parts: the runtime writes, the
// telemetry role reads for storage, and only Rotate and Remove delete, after
// asking whether a file's lines are stored. Memory is bounded: lines are read
// one at a time, records longer than 1 MiB are cut.
//
//	output.Read(ctx, path, output.Options{…}, alive, w)  // kubectl logs
//	output.Last(path, lines, bytes)                      // last words of a container
//	output.Rotate(…), output.Remove(…)
//
// Start reading at Read in read.go, then Parse in line.go.
package output
