package push

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

// Loki serves pushes in Loki's two forms. Labels and structured metadata become
// fields. The answer is 204 once all lines are durable.
func (p *Push) Loki() http.Handler {
	return telling(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // "" is not JSON
		_, err := p.receive("loki", w, r, func(body []byte, b *batch) error {
			if kind == "application/json" {
				return lokiJSON(body, b)
			}
			if r.Header.Get("Content-Encoding") == "" { // it is always packed, few say so
				raw, err := p.unpack(body, "snappy")
				if errors.Is(err, errFormat) && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
					return fmt.Errorf("%w: JSON needs the header Content-Type: application/json", errFormat)
				}
				if err != nil {
					return err
				}
				body = raw
			}
			return lokiProto(body, b)
		})
		if err != nil {
			http.Error(w, err.Error(), status(w, err))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// A stream's labels stand before the fields of each of its lines.
func (b *batch) lokiLine(at int64, line []byte, labels, meta []record.Field) error {
	r := record.Record{Time: at, Body: line}
	for _, list := range [][]record.Field{labels, meta} {
		for _, f := range list {
			b.left += entry.Add(&r, f.Key, f.Value)
		}
	}
	return b.add(r)
}

// lokiProto reads PushRequest{streams: 1 {labels: 1, entries: 2 {timestamp: 1
// {seconds: 1, nanos: 2}, line: 2, structuredMetadata: 3 {name: 1, value: 2}}}}.
func lokiProto(body []byte, b *batch) error {
	return fields(body, func(n protowire.Number, v value) error {
		if n != 1 {
			return nil
		}
		text := []byte("{}")
		if err := fields(v.bytes, func(n protowire.Number, v value) error {
			if n == 1 {
				text = v.bytes
			}
			return nil
		}); err != nil {
			return err
		}
		labels, err := parseLabels(string(text))
		if err != nil {
			return err
		}
		return fields(v.bytes, func(n protowire.Number, v value) error { // labels may stand behind
			if n == 2 {
				return b.lokiEntry(v.bytes, labels)
			}
			return nil
		})
	})
}

func (b *batch) lokiEntry(e []byte, labels []record.Field) error {
	var seconds, nanos int64
	var line []byte
	var meta []record.Field
	err := fields(e, func(n protowire.Number, v value) error {
		switch n {
		case 1:
			return fields(v.bytes, func(n protowire.Number, v value) error {
				switch n {
				case 1:
					seconds = int64(v.number)
				case 2:
					nanos = int64(v.number)
				}
				return nil
			})
		case 2:
			line = v.bytes
		case 3:
			var f record.Field
			err := fields(v.bytes, func(n protowire.Number, v value) error {
				switch n {
				case 1:
					f.Key = string(v.bytes)
				case 2:
					f.Value = string(v.bytes)
				}
				return nil
			})
			if meta = append(meta, f); len(meta) > maxPairs {
				return fmt.Errorf("%w: a line has more than %d fields", errLarge, maxPairs)
			}
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if seconds < 0 || seconds > maxSeconds || nanos < 0 || nanos >= 1e9 {
		seconds, nanos = 0, 0
	}
	return b.lokiLine(seconds*1e9+nanos, line, labels, meta)
}

// maxPairs of one line or stream are read; far fewer are kept, see entry.Add.
const maxPairs = 4096

const maxSeconds = 9e9 // the year 2255: later ones are no times

// A number between these is a time of our days in seconds, ms or µs: in nanoseconds it
// would be one of the years 1970 to 1973.
const (
	coarseLeast = 1e9
	coarseMost  = 1e17
)

// value of a protobuf field: number of varints and fixed ones, bytes of others.
type value struct {
	number uint64
	bytes  []byte
}

// fields calls fn for each field of a protobuf message.
func fields(b []byte, fn func(protowire.Number, value) error) error {
	for len(b) > 0 {
		n, kind, used := protowire.ConsumeTag(b)
		if used < 0 {
			return fmt.Errorf("%w: %w", errFormat, protowire.ParseError(used))
		}
		b = b[used:]
		var v value
		switch kind {
		case protowire.VarintType:
			v.number, used = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v.number, used = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, used = protowire.ConsumeBytes(b)
		default:
			used = protowire.ConsumeFieldValue(n, kind, b)
		}
		if used < 0 {
			return fmt.Errorf("%w: %w", errFormat, protowire.ParseError(used))
		}
		b = b[used:]
		if err := fn(n, v); err != nil {
			return err
		}
	}
	return nil
}

// parseLabels reads {a="b", c="d"}.
func parseLabels(s string) ([]record.Field, error) {
	bad := func() ([]record.Field, error) {
		return nil, fmt.Errorf("%w: labels %.100q are not {name=\"value\", …}", errFormat, s)
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), "{")
	if !ok {
		return bad()
	}
	var out []record.Field
	for {
		rest = strings.TrimLeft(rest, " ,")
		if rest == "}" {
			return out, nil
		}
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return bad()
		}
		quoted, err := strconv.QuotedPrefix(strings.TrimLeft(after, " "))
		if err != nil {
			return bad()
		}
		v, err := strconv.Unquote(quoted)
		if err != nil {
			return bad()
		}
		if out = append(out, record.Field{Key: strings.TrimSpace(name), Value: v}); len(out) > maxPairs {
			return nil, fmt.Errorf("%w: a stream has more than %d labels", errLarge, maxPairs)
		}
		rest = strings.TrimLeft(after, " ")[len(quoted):]
	}
}

// lokiJSON reads {"streams":[{"stream":{…},"values":[["ns","line",{…}],…]}]}
// and the older form with labels and entries.
func lokiJSON(body []byte, b *batch) error {
	var doc struct {
		Streams []struct {
			Stream  object              `json:"stream"`
			Values  [][]json.RawMessage `json:"values"`
			Labels  string              `json:"labels"`
			Entries []struct{ TS, Line string }
		} `json:"streams"`
	}
	left := b.parts
	if err := left.shallowJSON(body); err != nil {
		return wrong(err)
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return wrong(err)
	}
	for _, s := range doc.Streams {
		labels := []record.Field(s.Stream)
		if s.Labels != "" {
			var err error
			if labels, err = parseLabels(s.Labels); err != nil {
				return err
			}
		}
		if len(labels) > maxPairs {
			return fmt.Errorf("%w: a stream has more than %d labels", errLarge, maxPairs)
		}
		for _, e := range s.Entries {
			at, _ := entry.Clock(e.TS) // 0 is now
			if err := b.lokiLine(at, []byte(e.Line), labels, nil); err != nil {
				return err
			}
		}
		for _, v := range s.Values {
			var stamp, line string
			var meta object
			if len(v) < 2 || json.Unmarshal(v[0], &stamp) != nil || json.Unmarshal(v[1], &line) != nil || len(v) > 2 && json.Unmarshal(v[2], &meta) != nil {
				return fmt.Errorf("%w: a value is not [\"ns\", \"line\"]", errFormat)
			}
			if len(meta) > maxPairs {
				return fmt.Errorf("%w: a line has more than %d fields", errLarge, maxPairs)
			}
			at, err := strconv.ParseInt(stamp, 10, 64)
			if err != nil || at < 0 || at >= coarseLeast && at < coarseMost {
				return fmt.Errorf("%w: time %.40q is not in nanoseconds", errFormat, stamp)
			}
			if err := b.lokiLine(at, []byte(line), labels, meta); err != nil {
				return err
			}
		}
	}
	return nil
}

// object is a JSON object of plain values in its own order.
type object []record.Field

func (o *object) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	list, ok := entry.Pairs(b)
	if !ok {
		return errors.New("labels are not an object")
	}
	*o = list
	return nil
}
