package index

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"perch/logs/bench/lines"
)

// gatherByWord says what a gatherer should find, a word after the other.
func gatherByWord(texts [][]byte) (words []string, ids []uint64) {
	kept, numbers := map[string]bool{}, map[uint64]bool{}
	for _, t := range texts {
		Words(string(t), func(w string) {
			w = clip(w)
			if !isID(w) {
				kept[w] = true
				return
			}
			numbers[hash(w)] = true
			if a := alphaPrefix(w); len(a) >= 2 {
				kept[idKey+a] = true
			}
		})
	}
	return slices.Sorted(maps.Keys(kept)), slices.Sorted(maps.Keys(numbers))
}

func TestEveryWordIsGatheredOnce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 9))
	alphabet := []byte("aabzAZ019_ ..-\n\x00\x80\xff{\x7f@[`")
	g := newGatherer()
	for range 300 {
		var texts [][]byte
		for range 1 + rnd.IntN(3) {
			text := make([]byte, rnd.IntN(400))
			separators := 1 + rnd.IntN(12)
			for i := range text {
				text[i] = alphabet[rnd.IntN(len(alphabet))]
				if rnd.IntN(separators) > 0 {
					text[i] = alphabet[rnd.IntN(10)]
				}
			}
			texts = append(texts, text)
		}
		checkGathered(t, g, texts)
	}
	var many []byte
	for range 30_000 { // the table grows
		many = append(many, strings.Repeat("x", rnd.IntN(3))...)
		many = append(many, byte('a'+rnd.IntN(26)), byte('a'+rnd.IntN(26)), byte('0'+rnd.IntN(10)), byte('A'+rnd.IntN(26)), ' ')
	}
	checkGathered(t, g, [][]byte{many})
}

func checkGathered(t *testing.T, g *gatherer, texts [][]byte) {
	t.Helper()
	g.start()
	for _, text := range texts {
		g.add(text)
	}
	var words []string
	for i := range g.len() {
		words = append(words, string(g.word(i)))
		if g.hashes[i] != hash(words[i]) {
			t.Fatalf("hash of %q", words[i])
		}
	}
	slices.Sort(words)
	ids := slices.Sorted(slices.Values(g.ids))
	if want, numbers := gatherByWord(texts); !slices.Equal(words, want) || !slices.Equal(ids, numbers) {
		t.Fatalf("%q has %q and %d ids, want %q and %d", texts, words, len(ids), want, len(numbers))
	}
}

func BenchmarkGather(b *testing.B) {
	for _, set := range []string{lines.Services, lines.Vocabulary, lines.Base64} {
		b.Run(set, func(b *testing.B) {
			of := map[int][]byte{} // by stream
			var text []byte
			for g := lines.New(set, 7); len(text) < 256<<10; {
				r, k := g.Next()
				of[k] = append(append(of[k], r.Body...), '\n')
				text = of[k]
			}
			g := newGatherer()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				g.start()
				g.add(text)
			}
		})
	}
}
