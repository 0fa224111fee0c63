// Package onward sends all lines of this node's store on to an external Fluentd or
// Fluent Bit over Fluent Forward: PackedForward chunks with acknowledgement.
//
// The store is the buffer: nothing is copied. How far each stream is sent is a
// position in the store, durable once a chunk is acknowledged; one that was not is
// sent again as it was, also when there are more lines by then. While the other
// side is away nothing is lost until the store's retention removes lines, which
// perch_onward_lost_lines_total counts. A chunk is named by its stream and number,
// so that a receiver that remembers names takes it once. A kill may repeat the
// chunk that was on its way, under another name.
//
// What is to be sent is looked at anew each ten seconds, and then another stream's turn
// comes first: one with a long backlog, or whose lines the receiver does not take, does
// not hold up the others.
//
// A receiver that sends back to this cluster would make lines go round for ever:
// this node's own port is refused, and Gate leaves out what carries the cluster's
// mark.
//
// One goroutine (Run). Start reading at Run in onward.go; the wire is in wire.go.
package onward
