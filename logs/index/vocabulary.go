package index

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
)

// MaxVocabulary limits the number of words that may be Bleve terms.
const MaxVocabulary = 16 << 10

// maxTerms limits how many terms a block of the sample has on average. A term
// costs a hundred times what a key of a filter does.
const maxTerms = 256

// Vocabulary is the frozen list of words that are Bleve terms in a partition.
type Vocabulary struct {
	words []string // sorted
	slots []uint32 // open addressing by hash: number in words, and 1
}

// Has tells whether word is a Bleve term.
func (v *Vocabulary) Has(word string) bool {
	_, ok := v.find([]byte(word), hash(word))
	return ok
}

// find returns the word of the vocabulary that is equal, given its hash.
func (v *Vocabulary) find(word []byte, h uint64) (string, bool) {
	mask := uint64(len(v.slots) - 1)
	for i := h & mask; v.slots[i] != 0; i = (i + 1) & mask {
		if w := v.words[v.slots[i]-1]; w == string(word) {
			return w, true
		}
	}
	return "", false
}

// Len is the number of words.
func (v *Vocabulary) Len() int { return len(v.words) }

// withPrefix returns the words that begin with p.
func (v *Vocabulary) withPrefix(p string) []string {
	at, _ := slices.BinarySearch(v.words, p)
	end := at
	for end < len(v.words) && strings.HasPrefix(v.words[end], p) {
		end++
	}
	return v.words[at:end:end]
}

func newVocabulary(words []string) *Vocabulary {
	slices.Sort(words)
	size := 16
	for size < 3*len(words) {
		size *= 2
	}
	v := &Vocabulary{words: words, slots: make([]uint32, size)}
	for n, w := range words {
		i := hash(w) & uint64(size-1)
		for v.slots[i] != 0 {
			i = (i + 1) & uint64(size-1)
		}
		v.slots[i] = uint32(n + 1)
	}
	return v
}

// Learner counts in how many sample blocks words appear.
type Learner struct {
	g      *gatherer
	blocks int
	count  map[string]int
	keep   int // bytes of words of blocks that may be kept
	kept   []gathered
}

// NewLearner makes a learner that has seen nothing.
func NewLearner() *Learner {
	return &Learner{g: newGatherer(), count: map[string]int{}}
}

// NewFirstLearner makes a learner that keeps the words of its blocks, up to so
// many bytes, for Index.Take.
func NewFirstLearner(keep int) *Learner {
	l := NewLearner()
	l.keep = keep
	return l
}

// maxLearned bounds the words counted while learning; those met later than
// that are rare.
const maxLearned = 1 << 18

// Add counts the words of one block's texts. It tells whether the learner may
// keep those of another.
func (l *Learner) Add(texts ...[]byte) bool {
	l.g.start()
	for _, t := range texts {
		l.g.add(t)
	}
	l.blocks++
	for i := range l.g.len() {
		w := l.g.word(i)
		if n, ok := l.count[string(w)]; ok {
			l.count[string(w)] = n + 1
		} else if len(l.count) < maxLearned {
			l.count[string(w)] = 1
		}
	}
	if l.keep > 0 {
		l.kept = append(l.kept, l.g.clone())
		l.keep -= l.g.bytes()
	}
	return l.keep > 0
}

// Blocks is the number of blocks seen.
func (l *Learner) Blocks() int { return l.blocks }

// Vocabulary is the list of words that appear in at least one of sixteen
// blocks, and in two at least, most frequent first until the limits.
func (l *Learner) Vocabulary() *Vocabulary {
	least := max(2, l.blocks/16)
	var words []string
	total := 0
	for w, n := range l.count {
		if n >= least {
			words = append(words, w)
			total += n
		}
	}
	most := maxTerms * l.blocks
	if len(words) <= MaxVocabulary && total <= most {
		return newVocabulary(words)
	}
	slices.SortFunc(words, func(a, b string) int {
		if d := l.count[b] - l.count[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for i, w := range words {
		if most -= l.count[w]; most < 0 || i == MaxVocabulary {
			words = words[:i]
			break
		}
	}
	return newVocabulary(words)
}

var errVocabulary = errors.New("vocabulary is broken")

// The file is a version, which stands for the format of filters too, a crc32c in
// hexadecimal, and then one word per line.
func readVocabulary(path string) (*Vocabulary, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	body := b[min(len(b), len(vocabularyHead(nil))):]
	if !bytes.HasPrefix(b, vocabularyHead(body)) {
		return nil, errVocabulary
	}
	if len(body) == 0 {
		return newVocabulary(nil), nil
	}
	return newVocabulary(strings.Split(string(body), "\n")), nil
}

func vocabularyHead(body []byte) []byte {
	return fmt.Appendf(nil, "v2 %08x\n", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

func writeVocabulary(path string, v *Vocabulary) error {
	body := []byte(strings.Join(v.words, "\n"))
	if err := os.WriteFile(path+".new", append(vocabularyHead(body), body...), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
