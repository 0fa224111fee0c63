// Package tail turns the log files of containers into records.
//
// It reads D/podlogs/<namespace>_<pod>_<uid>/<container>/<attempt>.log (CRI
// format) and hands lines with the position they came from to a sink, which
// makes both durable in one step. It never writes to or removes these files;
// who does asks Drained first, and says Leaving of what goes all the same: lines
// that nobody can read any more are counted (leave.go).
//
// The lines of a stack trace (Java, Python, Go, Node.js) are one record; a line
// that may begin one waits Config.Hold for the next. A last line without its end
// is taken once nobody has the file open for writing.
//
// Lines written in parts are joined, also across a rotation (rename of
// N.log to N.log.<anything>, then a new N.log). Lines beyond record.MaxBody are
// cut with a marker. While the sink refuses, reading waits: the files are the
// buffer. After a restart reading goes on at the stored positions.
//
// The ledger (ledger.go) counts source lines of the node and of each container:
// read = stored + dropped{reason}, a joined line counts each of its parts. It is
// durable in the same fsync as the positions, so no count goes back or is made
// twice when perch is restarted. The series of a container that is gone are let
// go after their last sample; the node's go on. At most Config.Ledgers
// containers are counted by themselves and Config.OpenFiles files are open
// (handle.go); beyond that only the node counts, and the file used longest ago
// is closed until something is written to it.
//
// One goroutine (Run) owns all files; Drained and Leaving may be called from any.
// Start reading at Run in run.go; a file's lines are taken in file.go.
package tail
