package ingest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"perch/logs/record"
)

const maxPush = 64 << 20 // bytes of one request

// Lines serves pushes of lines: one per line of the body, JSON objects or plain
// text. identify gives the labels of the caller or an error that it may not
// push. The line of an object is its "line", "log", "message" or "msg"; "time"
// (RFC3339 or unix seconds) its time; the rest are fields. The answer is
// {"stored":N} once all are durable, or an error with nothing stored.
func Lines(identify func(*http.Request) (record.Stream, error), sink Sink) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := identify(r)
		if err != nil {
			problem(w, http.StatusForbidden, err)
			return
		}
		if r.Method != http.MethodPost {
			problem(w, http.StatusMethodNotAllowed, errors.New("method is not POST"))
			return
		}
		s.Output = record.Push
		if s.Kind == "" {
			s.Kind = record.KindLog
		}
		records, err := readLines(http.MaxBytesReader(w, r.Body, maxPush), &s, time.Now().UnixNano())
		if err != nil {
			problem(w, http.StatusBadRequest, err)
			return
		}
		if len(records) > 0 {
			if err := sink(r.Context(), records); err != nil {
				w.Header().Set("Retry-After", "1")
				problem(w, http.StatusServiceUnavailable, err)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, "{\"stored\":%d}\n", len(records)) // stored either way
	})
}

func problem(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client is gone if this fails
}

func readLines(body io.Reader, s *record.Stream, now int64) ([]record.Record, error) {
	var out []record.Record
	in := bufio.NewReaderSize(body, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			r := record.Record{Time: now, Stream: s, Body: line}
			if line[0] == '{' {
				fromJSON(&r, line)
			}
			if len(r.Body) > record.MaxBody {
				r.Body = record.Cut(r.Body, 0)
			}
			out = append(out, r)
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read line %d: %w", len(out)+1, err)
		}
	}
}

// fromJSON takes an object apart; what has no line is the line as it stands.
func fromJSON(r *record.Record, line []byte) {
	var doc map[string]json.RawMessage
	if json.Unmarshal(line, &doc) != nil {
		return
	}
	text := func(key string) (v string, ok bool) {
		ok = doc[key] != nil && json.Unmarshal(doc[key], &v) == nil
		return v, ok
	}
	for _, key := range []string{"time", "timestamp", "@timestamp", "ts"} {
		raw, ok := doc[key]
		if !ok {
			continue
		}
		var stamp time.Time
		var secs float64
		if json.Unmarshal(raw, &stamp) == nil {
			r.Time = stamp.UnixNano()
			break
		} else if json.Unmarshal(raw, &secs) == nil && secs > 0 && secs < 9e9 {
			r.Time = int64(secs * 1e9)
			break
		}
	}
	for _, key := range append([]string{"line"}, bodyKeys()...) {
		var v string
		if raw, ok := doc[key]; !ok || json.Unmarshal(raw, &v) != nil {
			continue
		}
		r.Body = []byte(v)
		if l, ok := text("level"); ok {
			r.Level, _ = record.ParseLevel(l)
		}
		for k, raw := range doc {
			if k == key || len(r.Fields) >= maxFields {
				continue
			}
			v, ok := text(k)
			if !ok {
				v = strings.TrimSpace(string(raw))
			}
			r.Fields = append(r.Fields, record.Field{Key: k, Value: v})
		}
		return
	}
}
