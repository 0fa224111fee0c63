package push

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// nested is an ExportLogsServiceRequest with a value that is lists, or maps,
// within each other. The last step of way is the field that holds the value.
func nested(depth int, maps bool, way ...protowire.Number) []byte {
	room := make([]byte, 24*depth+64) // is filled from its end: each level stands around the one before
	at := len(room)
	around := func(n protowire.Number) {
		head := protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.BytesType), uint64(len(room)-at))
		at -= len(head)
		copy(room[at:], head)
	}
	for range depth {
		if maps {
			around(2) // KeyValue.value
			around(1) // KeyValueList.values
			around(6) // AnyValue.kvlist_value
			continue
		}
		around(1) // ArrayValue.values
		around(5) // AnyValue.array_value
	}
	for i := range way {
		around(way[len(way)-1-i])
	}
	return room[at:]
}

func TestValuesThatAreTooDeepAreRefused(t *testing.T) {
	const more = 1 << 20 // would take all of the stack, and the process with it
	json := func(depth int) []byte {
		return []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":` + strings.Repeat(`{"arrayValue":{"values":[`, depth) +
			`{"stringValue":"in"}` + strings.Repeat(`]}}`, depth) + `}]}]}]}`)
	}
	for _, test := range []struct {
		what string
		kind string
		make func(depth int) []byte
	}{
		{"a body of lists", typeProto, func(n int) []byte { return nested(n, false, 1, 2, 2, 5) }},
		{"a body of maps", typeProto, func(n int) []byte { return nested(n, true, 1, 2, 2, 5) }},
		{"an attribute of a record", typeProto, func(n int) []byte { return nested(n, false, 1, 2, 2, 6, 2) }},
		{"an attribute of a scope", typeProto, func(n int) []byte { return nested(n, true, 1, 2, 1, 3, 2) }},
		{"an attribute of a resource", typeProto, func(n int) []byte { return nested(n, false, 1, 1, 1, 2) }},
		{"a body as JSON", typeJSON, json},
	} {
		t.Run(test.what, func(t *testing.T) {
			b := &batch{limit: 1 << 20, parts: 1 << 30}
			if err := decodeOTLP(test.kind, test.make(maxValueDepth), b); err != nil {
				t.Errorf("%d deep: %v", maxValueDepth, err)
			}
			if err := decodeOTLP(test.kind, test.make(more), b); !errors.Is(err, errDeep) {
				t.Errorf("%d deep: %v", more, err)
			}
		})
	}
	left := weight(1 << 20)
	if err := left.shallowJSON([]byte(`{"a":"` + strings.Repeat(`\"[{`, 2000) + `"}`)); err != nil {
		t.Errorf("brackets in a text: %v", err)
	}
	if err := left.shallowLogs(bytes.Repeat([]byte{0xff}, 20)); !errors.Is(err, errFormat) {
		t.Errorf("what is no message: %v", err)
	}
}

// TestEmptyPartsDoNotBecomeAGigabyte: two bytes each, which pack well.
func TestEmptyPartsDoNotBecomeAGigabyte(t *testing.T) {
	many := func(n int, field protowire.Number, way ...protowire.Number) []byte {
		b := bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), nil), n)
		for i := range way {
			b = protowire.AppendBytes(protowire.AppendTag(nil, way[len(way)-1-i], protowire.BytesType), b)
		}
		return b
	}
	const n = 4 << 20
	otlp := func(kind string) func([]byte, *batch) error {
		return func(body []byte, b *batch) error { return decodeOTLP(kind, body, b) }
	}
	for _, tc := range []struct {
		about  string
		decode func([]byte, *batch) error
		body   []byte
	}{
		{"resources", otlp(typeProto), many(n, 1)},
		{"scopes", otlp(typeProto), many(n, 2, 1)},
		{"records", otlp(typeProto), many(n, 2, 1, 2)},
		{"attributes", otlp(typeProto), many(n, 6, 1, 2, 2)},
		{"values in a list", otlp(typeProto), many(n, 1, 1, 2, 2, 5, 5)},
		{"pairs in a value", otlp(typeProto), many(n, 1, 1, 2, 2, 5, 6)},
		{"resources as JSON", otlp(typeJSON), []byte(`{"resourceLogs":[` + strings.Repeat("{},", n) + `{}]}`)},
		{"entries of Loki", lokiProto, many(n, 2, 1)},
		{"metadata of a line of Loki", lokiProto, many(n, 3, 1, 2)},
		{"labels of Loki", lokiProto, protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "{"+strings.Repeat(`a="",`, n)+"}"))},
		{"streams of Loki as JSON", lokiJSON, []byte(`{"streams":[` + strings.Repeat("{},", n) + `{}]}`)},
		{"actions of Elasticsearch", func(body []byte, b *batch) error { _, err := decodeBulk(body, "", b); return err }, []byte(`{` + strings.Repeat(`"a":{},`, 1<<20) + `"b":{}}`)},
		{"parts of a value of Loki as JSON", lokiJSON, []byte(`{"streams":[{"values":[[` + strings.Repeat("0,", n) + `0]]}]}`)},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := tc.decode(tc.body, &batch{limit: 1 << 20, parts: weight(Default().MaxUnpacked)})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, errLarge) {
			t.Errorf("%s: %v", tc.about, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
			t.Errorf("%s: takes %d MiB, %v", tc.about, took>>20, err)
		}
	}
}
