package index

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func corpus(seed uint64, blocks int) []string {
	rnd := rand.New(rand.NewPCG(seed, 1))
	common := strings.Fields("GET POST request served failed Connection connect timeout user cart payment info warn error conn2 x1")
	var out []string
	for b := range blocks {
		var s strings.Builder
		for range 50 {
			for range 6 {
				s.WriteString(common[rnd.IntN(len(common))])
				s.WriteByte(" =:/\n"[rnd.IntN(5)])
			}
			fmt.Fprintf(&s, "req%d id-%x rare%s Ünï %d\n", rnd.IntN(1e6), rnd.Uint64(), string(rune('a'+b%26))+string(rune('a'+rnd.IntN(26))), rnd.IntN(50))
		}
		if b%9 == 3 { // one block in nine is of random words
			for range 3000 {
				s.WriteByte(' ')
				for range 8 {
					s.WriteByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+"[rnd.IntN(63)])
				}
			}
		}
		out = append(out, s.String())
	}
	return out
}

func build(t *testing.T, dir string, texts []string) *Index {
	t.Helper()
	l := NewLearner()
	for _, s := range texts[:len(texts)/2] {
		l.Add([]byte(s), nil)
	}
	x, err := Create(dir, l.Vocabulary())
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range texts {
		if err := x.Add(i, []byte(s), nil); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// check asks for words and prefixes that are in the text: no block that has
// them may be left out.
func check(t *testing.T, x *Index, texts []string) (asked, passed int) {
	t.Helper()
	var words []string
	Words(texts[3], func(w string) { words = append(words, w) })
	words = append(words[:400:400], "absent", "absent77", "zz")
	for i, w := range words {
		for _, need := range []Need{{Op: Word, Text: w}, {Op: Prefix, Text: w[:min(len(w), 1+i%6)]}} {
			have, n, err := x.Candidates(t.Context(), need)
			if err != nil {
				t.Fatal(err)
			}
			for b := range n {
				match := false
				Words(texts[b], func(v string) {
					match = match || need.Op == Word && v == need.Text || need.Op == Prefix && strings.HasPrefix(v, need.Text)
				})
				if match && !have.Has(b) {
					t.Fatalf("%+v: block %d left out", need, b)
				}
				asked++
				if have.Has(b) && !match {
					passed++
				}
			}
		}
	}
	return asked, passed
}

func TestNoBlockWithTheWordIsLeftOut(t *testing.T) {
	texts := corpus(1, 70)
	dir := filepath.Join(t.TempDir(), "idx")
	x := build(t, dir, texts)
	if x.Upto() != 64 || x.Added() != 70 {
		t.Fatalf("upto %d, added %d", x.Upto(), x.Added())
	}
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	asked, passed := check(t, x, texts)
	if passed*3 > asked {
		t.Errorf("index is of little use: %d of %d blocks pass without need", passed, asked)
	}
	x.Settle(5 * time.Second)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x, err := Open(dir, 70)
	if err != nil {
		t.Fatal(err)
	}
	if x.Upto() != 70 {
		t.Fatalf("upto %d after reopen", x.Upto())
	}
	check(t, x, texts)
	_ = x.Close()

	// The last ten blocks were lost: they are added anew with other words.
	if x, err = Open(dir, 60); err != nil {
		t.Fatal(err)
	}
	if x.Upto() != 60 {
		t.Fatalf("upto %d", x.Upto())
	}
	texts = append(texts[:60:60], corpus(9, 10)...)
	for i := 60; i < 70; i++ {
		if err := x.Add(i, []byte(texts[i]), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	check(t, x, texts)
	_ = x.Close()
}

// Empty filters had a sum of 0 once. What follows them is added again.
func TestFiltersFromBeforeAreCompleted(t *testing.T) {
	texts := corpus(1, 70)
	texts[20], texts[40] = "", ""
	l := NewLearner()
	for _, s := range texts {
		l.Add([]byte(s), nil)
	}
	dir := filepath.Join(t.TempDir(), "idx")
	b, err := Build(dir, l.Vocabulary())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range texts {
		if err := b.Add([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "filters")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	empty := []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}
	if n := bytes.Count(file, empty); n != 2 {
		t.Fatalf("%d empty filters", n)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(file, empty, make([]byte, 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := Open(dir, len(texts))
	if err != nil || x.Upto() != 20 {
		t.Fatal(x.Upto(), err)
	}
	check(t, x, texts)
	for i := x.Added(); i < len(texts); i++ {
		if err := x.Add(i, []byte(texts[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if x, err = Open(dir, len(texts)); err != nil || x.Upto() != len(texts) {
		t.Fatal(x.Upto(), err)
	}
	check(t, x, texts)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestBrokenIndexIsAnErrorNotAPanic(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "idx")
	x := build(t, dir, corpus(1, 70))
	x.Settle(5 * time.Second)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vocabulary", "bleve/root.bolt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
		if x, err := Open(dir, 70); err == nil {
			t.Fatalf("%s: opened up to %d", name, x.Upto())
		}
	}
}

func TestWordsKeptWhileLearningAreIndexed(t *testing.T) {
	texts := corpus(4, 40)
	l := NewFirstLearner(20 << 10)
	for i, s := range texts {
		if more := l.Add([]byte(s)); !more {
			texts = texts[:i+1]
			break
		}
	}
	if n := len(texts); n != l.Blocks() || n < 2 || n == 40 {
		t.Fatalf("%d blocks kept, %d seen", n, l.Blocks())
	}
	x, err := Create(filepath.Join(t.TempDir(), "idx"), l.Vocabulary())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := errors.Join(x.Take(l), x.Flush()); err != nil {
		t.Fatal(err)
	}
	if x.Upto() != len(texts) {
		t.Fatalf("upto %d", x.Upto())
	}
	check(t, x, texts)
}

func TestALargeVocabularyIsNotOfTerms(t *testing.T) {
	l := NewLearner()
	for range 20 {
		var b []byte
		for i := range 3000 {
			b = fmt.Appendf(b, "w%s ", strings.Map(func(r rune) rune { return r + 'a' - '0' }, fmt.Sprint(i)))
		}
		b = append(b, "GET POST"...)
		l.Add(b)
	}
	if n := l.Vocabulary().Len(); n == 0 || n > maxTerms {
		t.Errorf("%d words are terms, want at most %d", n, maxTerms)
	}
}

func TestHashesOfShortWordsDiffer(t *testing.T) {
	seen := map[uint64]string{}
	word := []byte{}
	for n := range 70 {
		for _, c := range []byte("ab0") {
			for at := range n {
				word = append(word[:0], strings.Repeat("a", n)...)
				word[at] = c
				h := hashBytes(word)
				if was, ok := seen[h]; ok && was != string(word) {
					t.Fatalf("%q and %q", was, word)
				}
				seen[h] = string(word)
			}
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	text := []byte(strings.Join(corpus(1, 80), "\n"))[:256<<10]
	l := NewLearner()
	l.Add(text, nil)
	l.Add(text, nil)
	x, err := Create(filepath.Join(b.TempDir(), "idx"), l.Vocabulary())
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close() // a benchmark
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := x.Add(x.Added(), text, nil); err != nil {
			b.Fatal(err)
		}
	}
}
