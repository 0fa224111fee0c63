package record

import "strconv"

// Cut returns body, or its first MaxBody bytes followed by a marker that says
// how many bytes are missing. dropped counts bytes that were left out before.
func Cut(body []byte, dropped int64) []byte {
	if len(body) > MaxBody {
		dropped += int64(len(body) - MaxBody)
		body = body[:MaxBody:MaxBody]
	}
	return Marked(body, dropped)
}

// Marked returns b, followed by a marker that says how many bytes are missing.
func Marked(b []byte, missing int64) []byte {
	if missing == 0 {
		return b
	}
	b = append(b, " …[cut: "...)
	b = strconv.AppendInt(b, missing, 10)
	return append(b, " bytes more]"...)
}

// CutFields returns fields of which the values have no more than MaxFields bytes
// together, markers of what is missing aside. The first ones stay whole, and so
// do names of a sensible length.
func CutFields(fields []Field) []Field {
	const name = 1 << 10
	out, left := make([]Field, len(fields)), MaxFields
	for i, f := range fields {
		out[i] = Field{Key: cutText(f.Key, name), Value: cutText(f.Value, left)}
		left = max(0, left-len(f.Value))
	}
	return out
}

func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + " …[cut: " + strconv.Itoa(len(s)-most) + " bytes more]"
}
