// Package audit writes down who asked the Kubernetes API for what: one line of
// kind:audit for each request, in the log store, with its retention.
//
// It owns the choice of requests (decide.go), the words of a line (line.go) and
// the queue between the API and the log store, which are two processes
// (queue.go, receive.go). It never holds up a request and never reads the body
// of one.
//
// Config.Queue lines wait while the store is away. What comes when it is full is
// left out: perch_audit_left_out_total counts it, and a line says how much when
// the store is back. Batches are numbered, so that one sent twice is stored once;
// a kill of the server role may lose what waited, at most Config.Wait when the
// store answers.
//
// Start reading at Decide in decide.go.
package audit
