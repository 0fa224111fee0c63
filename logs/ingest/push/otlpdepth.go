package push

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxValueDepth of lists and maps within each other are taken. The protocol's
// decoder goes as deep as it is led, until the process has no stack left.
const maxValueDepth = 100

var errDeep = fmt.Errorf("%w: values are more than %d deep", errFormat, maxValueDepth)

// What parts of a request take once they are decoded, about. Two bytes on the way, an
// empty message, may become some hundred.
const (
	partBytes  = 192 // a resource, a scope or a record
	pairBytes  = 112 // a key and its value
	valueBytes = 48
	jsonBytes  = 40 // a value of JSON: the longest that may be as short as {} is a part
)

// weight is what of the bytes that a request may take when decoded is left.
type weight int64

func (w *weight) take(bytes int) error {
	if *w -= weight(bytes); *w < 0 {
		return fmt.Errorf("%w: it has too many parts, send it in several", errLarge)
	}
	return nil
}

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

// of counts what it walks into.
func (w *weight) of(bytes int, into func([]byte, int) error) func([]byte, int) error {
	return func(b []byte, depth int) error {
		if err := w.take(bytes); err != nil {
			return err
		}
		return into(b, depth)
	}
}

// shallowLogs tells whether no value of an ExportLogsServiceRequest is too deep, and
// whether all of it is not too many.
func (w *weight) shallowLogs(b []byte) error {
	pair := w.of(pairBytes, path{2: w.shallowValue}.walk)
	resource, scope := path{1: pair}.walk, path{3: pair}.walk
	line := w.of(partBytes, path{5: w.shallowValue, 6: pair}.walk)
	lines := w.of(partBytes, path{1: scope, 2: line}.walk)
	return path{1: w.of(partBytes, path{1: resource, 2: lines}.walk)}.walk(b, 0)
}

// shallowValue looks into an AnyValue: a list of values, or one of keys and
// values.
func (w *weight) shallowValue(b []byte, depth int) error {
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
				return w.of(valueBytes, w.shallowValue)(one.bytes, depth+1)
			}
			return w.of(pairBytes, path{2: w.shallowValue}.walk)(one.bytes, depth+1)
		})
	})
}

// shallowJSON tells whether objects and arrays are not too deep in each other, nor all
// values too many. A value of OTLP has up to five of them a level, the way to it seven.
func (w *weight) shallowJSON(b []byte) error {
	depth, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == ',':
			if err := w.take(jsonBytes); err != nil {
				return err
			}
		case c == '{' || c == '[':
			if err := w.take(jsonBytes); err != nil {
				return err
			}
			if depth++; depth > 5*maxValueDepth+7 {
				return errDeep
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
