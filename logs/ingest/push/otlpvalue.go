package push

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"perch/logs/record"
)

// valueText is a plain value as it is, and a list or map as JSON. Of lists and maps no
// more than left bytes are written, and taken from left: a byte may be six of JSON.
func valueText(v pcommon.Value, left *int) string {
	if t := v.Type(); t == pcommon.ValueTypeMap || t == pcommon.ValueTypeSlice {
		shorten(v, left)
	}
	return v.AsString()
}

const leafBytes = 8 // a number, or what is empty, with what is around it

// shorten leaves left bytes in a value, with markers of what is missing.
func shorten(v pcommon.Value, left *int) {
	room := max(0, *left)
	switch v.Type() {
	case pcommon.ValueTypeStr:
		s := v.Str()
		if *left -= len(s); len(s) > room {
			v.SetStr(string(record.Marked([]byte(s[:room]), int64(len(s)-room))))
		}
	case pcommon.ValueTypeBytes:
		n := v.Bytes().Len()
		if *left -= n; n > room {
			v.SetStr(string(record.Marked(nil, int64(n))))
		}
	case pcommon.ValueTypeMap:
		cut := 0
		v.Map().RemoveIf(func(k string, x pcommon.Value) bool {
			if *left -= len(k) + leafBytes; *left < 0 {
				cut++
				return true
			}
			shorten(x, left)
			return false
		})
		if cut > 0 {
			v.Map().PutStr("…", fmt.Sprintf("[cut: %d members more]", cut))
		}
	case pcommon.ValueTypeSlice:
		cut := 0
		v.Slice().RemoveIf(func(x pcommon.Value) bool {
			if *left -= leafBytes; *left < 0 {
				cut++
				return true
			}
			shorten(x, left)
			return false
		})
		if cut > 0 {
			v.Slice().AppendEmpty().SetStr(fmt.Sprintf("…[cut: %d more]", cut))
		}
	}
}
