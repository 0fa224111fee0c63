package entry

import (
	"math"
	"time"

	"perch/logs/record"
)

// MaxFields of one entry are kept; doors count those left out.
const MaxFields = 128

// BodyKeys are the names of the value that is the line, best first.
func BodyKeys() []string { return []string{"log", "message", "msg", "line", "MESSAGE"} }

func timeKey(k string) bool {
	return k == "time" || k == "timestamp" || k == "@timestamp" || k == "ts"
}

func levelKey(k string) bool {
	return k == "level" || k == "severity" || k == "log.level" || k == "lvl" || k == "detected_level"
}

// Add puts a field at the end unless there are MaxFields. It returns how many
// were left out: 0 or 1.
func Add(r *record.Record, key, value string) int {
	if len(r.Fields) >= MaxFields {
		return 1
	}
	Level(r, key, value)
	r.Fields = append(r.Fields, record.Field{Key: key, Value: value})
	return 0
}

// Level takes the level from a field that tells it, unless r has one.
func Level(r *record.Record, key, value string) {
	if r.Level == record.Unknown && levelKey(key) {
		r.Level = record.SentLevel(key, value)
	}
}

// Cut shortens a line that is too long; the line says so.
func Cut(r *record.Record) {
	if len(r.Body) > record.MaxBody {
		r.Body = record.Cut(r.Body, 0)
	}
}

// unit is what a number of a time counts, by its size: seconds, milli-, micro-
// or nanoseconds. 0 is none.
func unit(n float64) int64 {
	switch {
	case math.IsNaN(n) || n <= 0:
		return 0
	case n < 9e9:
		return 1e9
	case n < 9e12:
		return 1e6
	case n < 9e15:
		return 1e3
	case n < 9e18:
		return 1
	}
	return 0
}

// Clock reads a time as text: RFC 3339 with or without zone.
func Clock(s string) (ns int64, ok bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999Z0700"} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 1970 && t.Year() < 2262 {
			return t.UnixNano(), true
		}
	}
	return 0, false
}
