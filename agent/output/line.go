package output

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// Line is one record of a log file. A long line of output is several records,
// all but the last one partial.
type Line struct {
	Time    time.Time
	Stream  string // stdout or stderr
	Partial bool
	Text    []byte // without the newline; of the caller's buffer
}

var errFormat = errors.New("not a CRI log record")

// Parse reads a record: time, stream, tag and text, divided by single spaces.
func Parse(record []byte) (Line, error) {
	record = bytes.TrimSuffix(record, []byte("\n"))
	stamp, rest, ok := bytes.Cut(record, []byte(" "))
	if !ok {
		return Line{}, errFormat
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Line{}, fmt.Errorf("%w: %w", errFormat, err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || string(stream) != "stdout" && string(stream) != "stderr" {
		return Line{}, errFormat
	}
	tags, text, _ := bytes.Cut(rest, []byte(" ")) // an empty line may lack the last space
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	switch string(tag) {
	case "P":
		return Line{at, string(stream), true, text}, nil
	case "F":
		return Line{at, string(stream), false, text}, nil
	}
	return Line{}, errFormat
}
