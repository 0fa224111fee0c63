// Package reconcile is the one loop all controllers run: changed objects become
// keys, keys become calls of a function, failures come back later.
//
// It owns the queue, the retries and the numbers. It never reads or writes an
// object itself. The queue holds each key once, so it is as long as there are
// objects at most (perch_reconcile_queue_length); a failing key waits 50 ms,
// doubling up to 30 s. One key is never worked on by two workers at once.
//
// Start reading at Run in run.go.
package reconcile
