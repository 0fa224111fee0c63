// Package ingest receives lines that are pushed to perch.
//
//	Forward  the Fluent Forward protocol over TCP: Message, Forward,
//	         PackedForward and CompressedPackedForward, optional shared key,
//	         UDP heartbeat; acknowledged when the sink has made it durable
//	Lines    HTTP: one JSON object or plain line per line of the body
//	Event    a Kubernetes event as a record
//
// It owns the doors' parsing and limits. It never decides who a sender is: the
// injected Identify tells by source address, and what the sender says of itself
// only becomes fields. It never acknowledges what the sink has not taken; chunks
// seen before are acknowledged again without storing them twice.
//
// Each connection has one goroutine within Run. When the sink refuses, the
// connection waits and tries again, so that the sender feels the pressure.
// Start reading at Forward.Run in forward.go; decoding is in decode.go.
package ingest
