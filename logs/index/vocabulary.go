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

// Vocabulary is the frozen list of words that are Bleve terms in a partition.
type Vocabulary struct {
	words []string // sorted
	known map[string]struct{}
}

// Has tells whether word is a Bleve term.
func (v *Vocabulary) Has(word string) bool {
	_, ok := v.known[word]
	return ok
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
	return v.words[at:end]
}

func newVocabulary(words []string) *Vocabulary {
	slices.Sort(words)
	v := &Vocabulary{words: words, known: make(map[string]struct{}, len(words))}
	for _, w := range words {
		v.known[w] = struct{}{}
	}
	return v
}

// Learner counts in how many sample blocks words appear.
type Learner struct {
	g      *gatherer
	blocks int
	count  map[string]int
}

// NewLearner makes a learner that has seen nothing.
func NewLearner() *Learner {
	return &Learner{g: newGatherer(), count: map[string]int{}}
}

// maxLearned bounds the words counted while learning; those met later than
// that are rare.
const maxLearned = 1 << 20

// Add counts the words of one block's texts.
func (l *Learner) Add(texts ...[]byte) {
	l.g.start()
	for _, t := range texts {
		l.g.add(t)
	}
	l.blocks++
	for _, w := range l.g.words {
		if n, ok := l.count[w]; ok {
			l.count[w] = n + 1
		} else if len(l.count) < maxLearned {
			l.count[strings.Clone(w)] = 1
		}
	}
}

// Vocabulary is the list of words that appear in at least one of sixteen
// blocks, and in two at least, most frequent first until the limit.
func (l *Learner) Vocabulary() *Vocabulary {
	least := max(2, l.blocks/16)
	var words []string
	for w, n := range l.count {
		if n >= least {
			words = append(words, w)
		}
	}
	if len(words) > MaxVocabulary {
		slices.SortFunc(words, func(a, b string) int {
			if d := l.count[b] - l.count[a]; d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
		words = words[:MaxVocabulary]
	}
	return newVocabulary(words)
}

var errVocabulary = errors.New("vocabulary is broken")

// The file is a crc32c in hexadecimal, then one word per line.
func readVocabulary(path string) (*Vocabulary, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) < 9 || fmt.Sprintf("%08x\n", crc32.Checksum(b[9:], crc32.MakeTable(crc32.Castagnoli))) != string(b[:9]) {
		return nil, errVocabulary
	}
	if len(b) == 9 {
		return newVocabulary(nil), nil
	}
	return newVocabulary(strings.Split(string(b[9:]), "\n")), nil
}

func writeVocabulary(path string, v *Vocabulary) error {
	body := []byte(strings.Join(v.words, "\n"))
	var b bytes.Buffer
	fmt.Fprintf(&b, "%08x\n", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	b.Write(body)
	if err := os.WriteFile(path+".new", b.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
