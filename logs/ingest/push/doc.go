// Package push receives lines over HTTP in the words of tools that exist.
//
//	Loki     POST /loki/api/v1/push: protobuf with snappy, or JSON
//	Elastic  POST _bulk, _doc, _create, and what shippers ask before: /,
//	         _license, _cluster/health
//	OTLP     POST /v1/logs: protobuf or JSON
//	Lines    POST: one JSON object or plain line per line of the body
//
// It owns the parsing, and how each protocol says stored, refused and come back
// later. It never decides who a sender is: the injected Identify tells, and what
// the sender says of itself (labels, index, resource) only becomes fields. It
// never answers "stored" before the sink has taken the lines.
//
// Every request has a limit of bytes, as sent and unpacked; lists and maps of OTLP are
// cut, with markers within, before they are written as JSON. Few are under way at
// once, others wait briefly and are then told to come back (503). A sender over
// its limits is told when to come back (429).
//
// A push that comes again because its answer was lost is not stored twice. It is
// known by its Idempotency-Key, else by its content: at any time within the memory
// of package chunk when it has times finer than a millisecond or ids of all
// documents; else only while its sender, by address, has not been told, or, with
// coarse times, from before a restart. So equal lines that are sent on purpose
// are all stored.
//
// Methods may be called from any goroutine. Start reading at Push.receive in
// push.go; each protocol has its file.
package push
