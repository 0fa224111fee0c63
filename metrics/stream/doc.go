// Package stream carries samples, native histograms and exemplars between processes
// so that an outage leaves no gap: agent → telemetry over a unix socket, telemetry
// of a worker → telemetry of a server over HTTPS.
//
// A Client sends one batch as one POST and waits for the answer, which comes
// after the batch is committed. Series are described once per session, then
// named by number; values travel as differences. A receiver that does not know
// the session (it restarted) says so, and the client begins a new one with the
// same batch. A batch that arrives twice is answered, not stored again.
//
// A Forwarder feeds a Client from the WAL of the worker's own store. What was
// acknowledged is a position in the WAL, kept in a file; so the buffer for an
// outage is the WAL itself, three hours by default (ForwardConfig.HoldMax), and
// survives restarts.
//
// Wiring:
//
//	local:  c := stream.NewClient("server", cfg, httpOverUnixSocket, reg); stats sink = c.Send
//	server: r := stream.NewReceiver("nodes", cfg, store, log, reg); mux.Handle("POST /perch/v1/samples", r)
//	worker: f, err := stream.NewForwarder(cfg, store.Dir(), c, log, reg); g.Go("stream", f.Run)
//
// Start reading at Send in client.go, then ServeHTTP in receiver.go.
package stream
