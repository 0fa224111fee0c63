package push

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"perch/logs/record"
)

// A byte that came may be six of JSON: what will be cut is not written first.
func TestValuesWithinAreCutBeforeTheyAreWritten(t *testing.T) {
	long := strings.Repeat("\x01", 16<<20)
	fill := map[string]func(pcommon.Map){
		"a text":       func(m pcommon.Map) { m.PutStr("k", long) },
		"a name":       func(m pcommon.Map) { m.PutStr(long, "v") },
		"bytes":        func(m pcommon.Map) { m.PutEmptyBytes("k").FromRaw([]byte(long)) },
		"many members": func(m pcommon.Map) { many(m, long) },
		"a list":       func(m pcommon.Map) { m.PutEmptySlice("k").AppendEmpty().SetStr(long) },
	}
	for what, put := range fill {
		logs := plog.NewLogs()
		rl := logs.ResourceLogs().AppendEmpty()
		lr := rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
		put(lr.Body().SetEmptyMap())
		put(lr.Attributes().PutEmptyMap("a"))
		put(rl.Resource().Attributes().PutEmptyMap("r"))
		rl.Resource().Attributes().PutStr("service.name", "shop")
		b := &batch{limit: 96 << 20}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := b.otlp(logs)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err != nil || used > 160<<20 {
			t.Errorf("%s: %d bytes were taken (%v)", what, used, err)
		}
		if err != nil {
			continue
		}
		r := b.records[0]
		if len(r.Body) > record.MaxBody+64 || len(r.Fields) != 3 || r.Fields[2].Value != "shop" || !strings.Contains(string(r.Body)+r.Fields[0].Value, "cut: ") {
			t.Errorf("%s: a line of %d bytes, %d fields", what, len(r.Body), len(r.Fields))
		}
	}
}

func many(m pcommon.Map, long string) {
	for i := range 512 {
		m.PutStr(fmt.Sprint(i), long[:32<<10])
	}
}

func TestValuesWithinStayAsTheyAre(t *testing.T) {
	logs := plog.NewLogs()
	lr := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	m := lr.Body().SetEmptyMap()
	m.PutStr("a", "x")
	m.PutEmptyBytes("b").FromRaw([]byte("y"))
	l := m.PutEmptySlice("c")
	l.AppendEmpty().SetInt(5)
	l.AppendEmpty()
	m.CopyTo(lr.Attributes().PutEmptyMap("k"))
	b := &batch{limit: 1 << 20}
	if err := b.otlp(logs); err != nil {
		t.Fatal(err)
	}
	const want = `{"a":"x","b":"eQ==","c":[5,null]}`
	if r := b.records[0]; string(r.Body) != want || r.Fields[0].Value != want {
		t.Errorf("%s, %+v", r.Body, r.Fields)
	}
}

// The answer to a bulk names index and id of each item: it may not be much larger than
// what came.
func TestAnswersOfABulkHaveALimit(t *testing.T) {
	index := strings.Repeat("<", 500<<10)
	b := &batch{stream: &record.Stream{}, limit: 96 << 20}
	if _, err := decodeBulk([]byte(strings.Repeat("{\"delete\":{}}\n", 1000)), index, b); !errors.Is(err, errLarge) {
		t.Errorf("a thousand items of an index of %d bytes: %v", len(index), err)
	}
	b = &batch{stream: &record.Stream{}, limit: 96 << 20}
	items, err := decodeBulk([]byte(strings.Repeat("{\"delete\":{\"_id\":\"1\"}}\n", 1000)), "shop", b)
	if err != nil || len(items) != 1000 {
		t.Errorf("%d items (%v)", len(items), err)
	}
	answer := 0
	for _, it := range items {
		answer += len(it.append(nil))
	}
	if int64(answer) > b.size {
		t.Errorf("an answer of %d bytes counts as %d", answer, b.size)
	}
}

func TestLabelsOfAStreamHaveALimitInBothForms(t *testing.T) {
	labels := "{" + strings.Repeat(`"a":"b",`, maxPairs) + `"c":"d"}`
	for what, body := range map[string]string{
		"a stream": `{"streams":[{"stream":` + labels + `,"values":[["1","x"]]}]}`,
		"a line":   `{"streams":[{"stream":{},"values":[["1","x",` + labels + `]]}]}`,
	} {
		b := &batch{stream: &record.Stream{}, now: 1, limit: 1 << 20, parts: 1 << 30}
		if err := lokiJSON([]byte(body), b); !errors.Is(err, errLarge) {
			t.Errorf("%s with more than %d labels: %v", what, maxPairs, err)
		}
	}
}
