package push

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

// Lines serves pushes of lines: one per line of the body, JSON objects or plain
// text. The line of an object is its "log", "message", "msg" or "line"; "time"
// (RFC 3339 or a number) its time; the rest are fields. The answer is
// {"stored":N} once all are durable, or {"error":…} with nothing stored.
func (p *Push) Lines() http.Handler {
	return telling(func(w http.ResponseWriter, r *http.Request) {
		b, err := p.receive("lines", w, r, decodeLines)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(status(w, err))
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client is gone if this fails
			return
		}
		_, _ = fmt.Fprintf(w, "{\"stored\":%d}\n", len(b.records)) // stored either way
	})
}

func decodeLines(body []byte, b *batch) error {
	for line := range bytes.Lines(body) {
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			continue
		}
		r := record.Record{Body: line}
		have, _ := entry.FromJSON(&r, line)
		b.left += have.Left
		if err := b.add(r); err != nil {
			return err
		}
	}
	return nil
}
