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
