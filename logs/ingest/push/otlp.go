package push

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"google.golang.org/protobuf/encoding/protowire"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

const (
	typeJSON  = "application/json"
	typeProto = "application/x-protobuf"
)

// OTLP serves ExportLogsServiceRequest over HTTP. Attributes of record, scope
// and resource become fields. The answer is an empty response once all lines are
// durable, else a google.rpc.Status in the form of the request.
func (p *Push) OTLP() http.Handler {
	return telling(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // "" is refused below
		_, err := p.receive("otlp", w, r, func(body []byte, b *batch) error {
			return decodeOTLP(kind, body, b)
		})
		if kind != typeJSON {
			kind = typeProto
		}
		w.Header().Set("Content-Type", kind)
		if err == nil {
			if kind == typeJSON {
				_, _ = w.Write([]byte("{}")) // stored either way
			}
			return
		}
		code := status(w, err)
		w.WriteHeader(code)
		rpc := map[int]int32{http.StatusTooManyRequests: 8, http.StatusServiceUnavailable: 14, http.StatusForbidden: 7}[code]
		if rpc == 0 {
			rpc = 3 // invalid argument
		}
		if kind == typeJSON {
			_ = json.NewEncoder(w).Encode(map[string]any{"code": rpc, "message": err.Error()}) // the client is gone if this fails
			return
		}
		out := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(rpc))
		_, _ = w.Write(protowire.AppendString(protowire.AppendTag(out, 2, protowire.BytesType), err.Error())) // as above
	})
}

// decodeOTLP reads a request in one of its two forms.
func decodeOTLP(kind string, body []byte, b *batch) error {
	var logs plog.Logs
	var err error
	left := b.parts
	switch kind {
	case typeJSON:
		if err = left.shallowJSON(body); err == nil {
			logs, err = (&plog.JSONUnmarshaler{}).UnmarshalLogs(body)
		}
	case typeProto:
		if err = left.shallowLogs(body); err == nil {
			logs, err = (&plog.ProtoUnmarshaler{}).UnmarshalLogs(body)
		}
	default:
		return fmt.Errorf("%w: content type %q is neither %s nor %s", errFormat, kind, typeProto, typeJSON)
	}
	if err != nil {
		return wrong(err)
	}
	return b.otlp(logs)
}

func (b *batch) otlp(logs plog.Logs) error {
	for _, rl := range logs.ResourceLogs().All() {
		resource := attributes(nil, rl.Resource().Attributes())
		for _, sl := range rl.ScopeLogs().All() {
			scope := resource[:len(resource):len(resource)]
			if name := sl.Scope().Name(); name != "" {
				scope = append(scope, record.Field{Key: "scope", Value: name})
			}
			scope = attributes(scope, sl.Scope().Attributes())
			for _, lr := range sl.LogRecords().All() {
				if err := b.otlpRecord(lr, scope); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *batch) otlpRecord(lr plog.LogRecord, scope []record.Field) error {
	r := record.Record{Time: int64(lr.Timestamp()), Level: level(lr.SeverityNumber())}
	if r.Time == 0 {
		r.Time = int64(lr.ObservedTimestamp())
	}
	switch body := lr.Body(); body.Type() {
	case pcommon.ValueTypeBytes:
		r.Body = body.Bytes().AsRaw()
	default:
		left := record.MaxBody
		r.Body = []byte(valueText(body, &left))
	}
	if r.Level == record.Unknown {
		r.Level, _ = record.ParseLevel(lr.SeverityText())
	}
	if id := lr.TraceID(); !id.IsEmpty() {
		b.left += entry.Add(&r, "trace_id", id.String())
	}
	if id := lr.SpanID(); !id.IsEmpty() {
		b.left += entry.Add(&r, "span_id", id.String())
	}
	if lr.EventName() != "" {
		b.left += entry.Add(&r, "event_name", lr.EventName())
	}
	for _, list := range [][]record.Field{attributes(nil, lr.Attributes()), scope} {
		for _, f := range list {
			b.left += entry.Add(&r, f.Key, f.Value)
		}
	}
	return b.add(r)
}

// attributes adds plain values as they are and others as JSON.
func attributes(dst []record.Field, m pcommon.Map) []record.Field {
	left := record.MaxFields
	for k, v := range m.All() {
		text := ""
		if v.Type() == pcommon.ValueTypeDouble {
			text = strconv.FormatFloat(v.Double(), 'g', -1, 64)
		} else {
			text = valueText(v, &left)
		}
		dst = append(dst, record.Field{Key: k, Value: text})
	}
	return dst
}

// level is by the ranges of the protocol: four numbers each.
func level(n plog.SeverityNumber) record.Level {
	if n < 1 || n > 24 {
		return record.Unknown
	}
	return record.Trace + record.Level(n-1)/4
}
