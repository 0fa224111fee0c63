package push

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxValueDepth of lists and maps within each other are taken. The protocol's
// decoder goes as deep as it is led, until the process has no stack left.
const maxValueDepth = 100

var errDeep = fmt.Errorf("%w: values are more than %d deep", errFormat, maxValueDepth)

// path follows the field of a number into what is within.
type path map[protowire.Number]func([]byte, int) error

func (p path) walk(b []byte, depth int) error {
	return fields(b, func(n protowire.Number, v value) error {
		if into := p[n]; into != nil {
			return into(v.bytes, depth)
		}
		return nil
	})
}

// shallowLogs tells whether no value of an ExportLogsServiceRequest is too deep.
func shallowLogs(b []byte) error {
	pair := path{2: shallowValue}.walk
	resource, scope := path{1: pair}.walk, path{3: pair}.walk
	line := path{5: shallowValue, 6: pair}.walk
	lines := path{1: scope, 2: line}.walk
	return path{1: path{1: resource, 2: lines}.walk}.walk(b, 0)
}

// shallowValue looks into an AnyValue: a list of values, or one of keys and
// values.
func shallowValue(b []byte, depth int) error {
	if depth > maxValueDepth {
		return errDeep
	}
	return fields(b, func(n protowire.Number, v value) error {
		if n != 5 && n != 6 {
			return nil
		}
		return fields(v.bytes, func(k protowire.Number, one value) error {
			switch {
			case k != 1:
				return nil
			case n == 5:
				return shallowValue(one.bytes, depth+1)
			}
			return path{2: shallowValue}.walk(one.bytes, depth+1)
		})
	})
}

// shallowJSON tells whether objects and arrays are not too deep in each other. A
// value has up to five of them a level, the way to it seven.
func shallowJSON(b []byte) error {
	depth, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > 5*maxValueDepth+7 {
				return errDeep
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
