package promapi

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxDecoded bounds what a request that writes takes once it is decoded, beside its
// own bytes: as many again.
const maxDecoded = maxBatch

// errHeavy is 413: a sender that repeats the request gets the same answer.
var errHeavy = fmt.Errorf("the request has too many parts: they would take more than %d bytes when decoded; send it in several", maxDecoded)

// message tells what one of protobuf takes once it is decoded. Two bytes on the way,
// an empty one, may become a struct of some hundred, so they are counted before.
type message struct {
	bytes   int                          // of its struct, about
	in      map[protowire.Number]message // its lists of messages and texts
	numbers map[protowire.Number]bool    // its lists of numbers of variable length
	deep    bool                         // it is a value of OTLP, which may hold others
}

// left is how many of so many bytes a message leaves; less than none when it is too
// heavy. What is malformed is told by who decodes it; until there it counts.
func (m message) left(b []byte, bytes int) int {
	for bytes >= 0 && len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return bytes
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return bytes
		}
		field := b[:n]
		b = b[n:]
		if m.numbers[number] {
			bytes -= 8 * n
			continue
		}
		within, known := m.in[number]
		if m.deep {
			within, known = otlpWithin(number)
		}
		if !known || kind != protowire.BytesType {
			continue
		}
		inner, _ := protowire.ConsumeBytes(field) // ConsumeFieldValue has looked
		bytes = within.left(inner, bytes-within.bytes)
	}
	return bytes
}

// The messages of remote write. Both versions are told by one table: they have no
// number of a field in common.
func writeRequest() message {
	text := message{bytes: 16}
	label := message{bytes: 48}
	sample := message{bytes: 32}
	histogram := message{bytes: 320, in: map[protowire.Number]message{8: {bytes: 16}, 11: {bytes: 16}}, numbers: map[protowire.Number]bool{9: true, 12: true}}
	refs := map[protowire.Number]bool{1: true}
	return message{in: map[protowire.Number]message{
		1: {bytes: 128, in: map[protowire.Number]message{1: label, 2: sample, 3: {bytes: 64, in: map[protowire.Number]message{1: label}}, 4: histogram}},
		3: {bytes: 96},
		4: text,
		5: {bytes: 224, numbers: refs, in: map[protowire.Number]message{2: sample, 3: histogram, 4: {bytes: 64, numbers: refs}}},
	}}
}

// The messages of remote read.
func readRequest() message {
	return message{numbers: map[protowire.Number]bool{2: true}, in: map[protowire.Number]message{
		1: {bytes: 96, in: map[protowire.Number]message{3: {bytes: 64}, 4: {in: map[protowire.Number]message{4: {bytes: 16}}}}}}}
}

// The messages of OTLP's metrics.
func otlpRequest() message {
	pair := otlpPair()
	exemplars := message{bytes: 128, in: map[protowire.Number]message{7: pair}}
	numbers := message{bytes: 160, in: map[protowire.Number]message{1: {bytes: 160, in: map[protowire.Number]message{5: exemplars, 7: pair}}}}
	buckets := message{numbers: map[protowire.Number]bool{2: true}}
	metric := message{bytes: 160, in: map[protowire.Number]message{
		5: numbers, 7: numbers,
		9:  {bytes: 160, in: map[protowire.Number]message{1: {bytes: 320, in: map[protowire.Number]message{8: exemplars, 9: pair}}}},
		10: {bytes: 160, in: map[protowire.Number]message{1: {bytes: 400, in: map[protowire.Number]message{1: pair, 8: buckets, 9: buckets, 11: exemplars}}}},
		11: {bytes: 160, in: map[protowire.Number]message{1: {bytes: 160, in: map[protowire.Number]message{6: {bytes: 32}, 7: pair}}}},
		12: pair,
	}}
	entity := message{bytes: 96, in: map[protowire.Number]message{3: {bytes: 16}, 4: {bytes: 16}}}
	resource := message{in: map[protowire.Number]message{1: pair, 3: entity}}
	scope := message{in: map[protowire.Number]message{3: pair}}
	return message{in: map[protowire.Number]message{1: {bytes: 192, in: map[protowire.Number]message{
		1: resource, 2: {bytes: 192, in: map[protowire.Number]message{1: scope, 2: metric}}}}}}
}

// otlpPair is a key and its value.
func otlpPair() message {
	return message{bytes: 64, in: map[protowire.Number]message{2: {bytes: 48, deep: true}}}
}

// otlpWithin is what a value holds: a list of values, or one of pairs.
func otlpWithin(number protowire.Number) (message, bool) {
	switch number {
	case 5:
		return message{bytes: 32, in: map[protowire.Number]message{1: {bytes: 48, deep: true}}}, true
	case 6:
		return message{bytes: 32, in: map[protowire.Number]message{1: otlpPair()}}, true
	}
	return message{}, false
}

// partJSON is what one value of JSON takes when decoded, about: the longest that may be
// as short as {} is an empty message.
const partJSON = 40

// leftJSON counts as left does.
func leftJSON(b []byte, bytes int) int {
	for i, text := 0, false; bytes >= 0 && i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[' || c == ',':
			bytes -= partJSON
		}
	}
	return bytes
}
