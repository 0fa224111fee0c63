// Package ingest receives lines that are pushed to perch over Fluent Forward.
//
//	Forward  TCP: Message, Forward, PackedForward, CompressedPackedForward,
//	         shared keys, TLS on the same port, UDP heartbeat; acknowledged when durable
//	Event    a Kubernetes event as a record
//
// Other doors are below: push (Loki, Elasticsearch, OTLP, JSON lines over HTTP)
// and syslog; onward sends lines on to an external Fluentd. What they share is
// entry (an object becomes a record), source (how much a sender may push) and
// chunk (what was stored before).
//
// It owns the door's parsing and limits. It never decides who a sender is: the
// injected Identify tells by source address, and what the sender says of itself
// only becomes fields. It never acknowledges what the sink has not taken; chunks
// seen before are acknowledged again without storing them twice. An entry that
// is not [time, map] is left out and counted, the others of its chunk are stored.
// No line is lost for what stands beside it: keys that are no text become their
// JSON, values more than 32 deep a marker, and what is longer than a record may have
// is cut with one before it is written (json.go).
//
// A sender that begins with TLS gets it. In the Forward protocol the server speaks
// first where a key must be shown, so a stranger that is silent for helloWait is
// taken for one that speaks clearly.
//
// Each connection has one goroutine within Run. When the sink refuses or the
// sender is over its limits, the connection waits, so that the sender feels the
// pressure; so it does while large messages of others take the memory there is
// (budget.go). Start reading at Forward.Run in forward.go; decoding is in decode.go.
package ingest
