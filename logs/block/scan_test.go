package block

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// variablesByByte says what variables should, a byte after the other.
func variablesByByte(text []byte, base uint32) (out []span) {
	start, seen := 0, Class(0)
	for i := 0; i <= len(text); i++ {
		class := Class(0)
		if i < len(text) {
			class = ClassOf(text[i])
		}
		if class == 0 {
			if seen&Digits != 0 {
				out = append(out, span{base + uint32(start), base + uint32(i)})
			}
			start, seen = i+1, 0
		}
		seen |= class
	}
	return out
}

func TestEachByteIsOfAWordAsItsClassSays(t *testing.T) {
	for c := range 256 {
		for place := range 8 {
			in, digits := WordBits(uint64(c) << (8 * place))
			class := ClassOf(byte(c))
			if have, want := in == 1<<place, class != 0; have != want || in&^(1<<place) != 0 {
				t.Errorf("byte %x at %d: %b is of a word, want %v", c, place, in, want)
			}
			if have, want := digits == 1<<place, class == Digits; have != want || digits&^(1<<place) != 0 {
				t.Errorf("byte %x at %d: %b is a digit, want %v", c, place, digits, want)
			}
			if in, digits := WordBits(^uint64(0)&^(0xff<<(8*place)) | uint64(c)<<(8*place)); in|1<<place != 0xff || in>>place&1 == 1 != (class != 0) || digits&^(1<<place) != 0 {
				t.Errorf("byte %x at %d between others: %b, %b", c, place, in, digits)
			}
		}
	}
}

func FuzzVariables(f *testing.F) {
	f.Add([]byte("GET /a/17 took 3ms"), 0)
	f.Add([]byte(strings.Repeat("a", 63)+"1"+strings.Repeat("b", 200)+" 2"), 7)
	f.Add([]byte(strings.Repeat("1", 64)+" "+strings.Repeat("2", 63)+"x"), 1)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 50 { // long runs are what goes wrong at the ends of groups
		var b []byte
		for range rnd.IntN(12) {
			b = append(b, strings.Repeat([]string{"a", "7", " ", "é", "_", "x1"}[rnd.IntN(6)], rnd.IntN(70))...)
		}
		f.Add(b, rnd.IntN(99))
	}
	f.Fuzz(func(t *testing.T, text []byte, base int) {
		base &= 0xffff
		have, want := variables(nil, text, uint32(base)), variablesByByte(text, uint32(base))
		if !slices.Equal(have, want) {
			t.Fatal(fmt.Sprintf("%q: have %v, want %v", text, have, want))
		}
	})
}
