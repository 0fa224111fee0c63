package record

import "strconv"

// Cut returns body, or its first MaxBody bytes followed by a marker that says
// how many bytes are missing. dropped counts bytes that were left out before.
func Cut(body []byte, dropped int64) []byte {
	if len(body) > MaxBody {
		dropped += int64(len(body) - MaxBody)
		body = body[:MaxBody:MaxBody]
	}
	if dropped == 0 {
		return body
	}
	body = append(body, " …[cut: "...)
	body = strconv.AppendInt(body, dropped, 10)
	return append(body, " bytes more]"...)
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
