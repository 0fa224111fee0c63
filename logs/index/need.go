package index

// Set is a set of block numbers.
type Set []uint64

// NewSet makes an empty set for n blocks.
func NewSet(n int) Set { return make(Set, (n+63)/64) }

// FullSet makes a set of all n blocks.
func FullSet(n int) Set {
	s := NewSet(n)
	for i := range n {
		s.Add(i)
	}
	return s
}

// Has tells whether i is in the set.
func (s Set) Has(i int) bool { return i>>6 < len(s) && s[i>>6]&(1<<(i&63)) != 0 }

// Add puts i into the set; numbers out of range are left out.
func (s Set) Add(i int) {
	if i>>6 < len(s) {
		s[i>>6] |= 1 << (i & 63)
	}
}

func (s Set) union(t Set) {
	for i := range s {
		s[i] |= t[i]
	}
}

// Op is the kind of a Need.
type Op uint8

// A Need is one of these.
const (
	Any    Op = iota // every block may match
	Word             // the block has Text as a word (folded, at most one word)
	Prefix           // the block has a word that begins with Text (folded)
	And              // all of Kids
	Or               // one of Kids
)

// Need is what a block must have to be read. It is weaker than the query: it
// may let blocks pass that do not match, never the other way round.
type Need struct {
	Op   Op
	Text string
	Kids []Need
}

// All joins needs with And, leaving out those that do not restrict.
func All(kids ...Need) Need {
	var out []Need
	for _, k := range kids {
		switch k.Op {
		case Any:
		case And:
			out = append(out, k.Kids...)
		default:
			out = append(out, k)
		}
	}
	switch len(out) {
	case 0:
		return Need{}
	case 1:
		return out[0]
	}
	return Need{Op: And, Kids: out}
}

// One joins needs with Or; one that does not restrict makes the whole so.
func One(kids ...Need) Need {
	for _, k := range kids {
		if k.Op == Any {
			return Need{}
		}
	}
	if len(kids) == 1 {
		return kids[0]
	}
	return Need{Op: Or, Kids: kids}
}

// Phrase is the need for every word of text.
func Phrase(text string) Need {
	var kids []Need
	Words(text, func(w string) { kids = append(kids, Need{Op: Word, Text: w}) })
	return All(kids...)
}
