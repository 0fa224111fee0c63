package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"perch/metrics/target"
)

// mostGroups bounds what a list of empty groups costs to read.
const mostGroups = 10_000

// keptLeast is what a group costs beside its text, about.
const keptLeast = 100

// read takes a list of groups, [{"targets": ["host:port"], "labels": {"name":
// "value"}}], and gives all of them the labels more. Of more than most targets the
// first count. A list with anything else in it is no answer.
func read(body []byte, more map[string]string, most int) (answer, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return answer{}, errors.New("the answer is no JSON list of {targets, labels}")
	}
	var out answer
	count := 0
	for i := 0; d.More(); i++ {
		if i == mostGroups {
			return answer{}, fmt.Errorf("the answer has more than %d groups", mostGroups)
		}
		var g *struct {
			Targets []*string          `json:"targets"`
			Labels  map[string]*string `json:"labels"`
		}
		if err := d.Decode(&g); err != nil {
			return answer{}, fmt.Errorf("the answer's group %d: %w", i, told(err))
		}
		if g == nil {
			return answer{}, fmt.Errorf("the answer's group %d is null", i)
		}
		group := target.Group{Labels: make(map[string]string, len(g.Labels)+len(more))}
		size := int64(keptLeast)
		for k, v := range g.Labels {
			if k == "" || v == nil {
				return answer{}, fmt.Errorf("the answer's group %d has a label without name or value", i)
			}
			group.Labels[k] = *v
			size += int64(len(k) + len(*v) + keptLeast)
		}
		for k, v := range more {
			group.Labels[k] = v // whatever the answer says
		}
		for _, t := range g.Targets {
			if t == nil {
				return answer{}, fmt.Errorf("the answer's group %d has a target that is null", i)
			}
			if count++; count <= most {
				group.Targets = append(group.Targets, *t)
				size += int64(len(*t) + keptLeast/4)
			}
		}
		if len(group.Targets) > 0 {
			out.groups = append(out.groups, group)
			out.bytes += size
		}
	}
	if _, err := d.Token(); err != nil { // the list's end
		return answer{}, errors.New("the answer is not complete")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return answer{}, errors.New("the answer goes on after the list")
	}
	switch {
	case count > most:
		out.note = fmt.Sprintf("the first %d of %d targets count", most, count)
	case count == 0:
		out.note = "the answer names no target"
	}
	return out, nil
}

// told says what is wrong without the words of the answer.
func told(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("%s is a %s, want %s", wrong.Field, kindOf(wrong.Value), wrong.Type)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is not complete")
	}
	return errors.New("it is no JSON")
}

// kindOf is the first word: after it a number is quoted.
func kindOf(value string) string {
	for _, k := range []string{"number", "string", "array", "object", "bool"} {
		if len(value) >= len(k) && value[:len(k)] == k {
			return k
		}
	}
	return "value"
}
