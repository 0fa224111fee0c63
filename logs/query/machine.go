package query

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"perch/logs/block"
)

// machine tells whether an expression matches, in one look-up for each byte. It
// is a deterministic automaton whose states are made when they are first
// reached. It decides exactly as package regexp, which takes 10 to 50 times as
// long, and its state can be kept between the parts of a line. One goroutine
// uses it.
//
// A state stands for the instructions of the program that may come next, for
// those bytes of a rune that is not whole yet, and for the kind of the rune
// before when an instruction still asks for it.
type machine struct {
	prog   *syntax.Prog
	class  [256]uint8
	stride state
	trans  []state // by state plus class; unknown until made
	states []moment
	ends   []answer // by number: whether a line may end there
	ids    map[string]state
	begin  state
	work   int                // spent on making states
	reach  map[uint64][]state // by state and class

	now, next, more instructions
	key             []byte
}

// state is the number of a state times the machine's stride.
type state uint32

// Numbers of the states that are always there.
const (
	unknownState = iota // not a state
	stuckState          // the machine is too large to go on
	matchedState        // whatever follows
	failedState         // whatever follows
	firstState
)

// moment is what a state stands for.
type moment struct {
	set     []uint32 // sorted; instructions that take a rune, or ask what the next one is
	before  runeKind
	pending [utf8.UTFMax]byte
	bytes   int // of pending
}

// Limits of one machine. Beyond them the caller uses package regexp.
const (
	maxStates = 2000
	maxWork   = 2 << 20 // instructions looked at to make states
)

// runeKind is what assertions ask of the rune before or after.
type runeKind uint8

const (
	otherRune  runeKind = iota
	noRune              // begin or end of the line
	newline             // \n
	wordRune            // of \w, and a word byte
	letterRune          // a word byte only
)

func kindOf(r rune) runeKind {
	switch {
	case r == '\n':
		return newline
	case syntax.IsWordChar(r):
		return wordRune
	case r >= 0x80:
		return letterRune
	}
	return otherRune
}

func (k runeKind) ofWord() bool { return k == wordRune || k == letterRune }

// Assertions of the query language, beside those of expressions: the text does
// not begin, or end, within a word.
const (
	wordBegins syntax.EmptyOp = 1 << 6
	wordEnds   syntax.EmptyOp = 1 << 7
)

// holds tells of the assertions asked for which depend on the rune before.
func (k runeKind) holds(ask syntax.EmptyOp) bool {
	return (ask&syntax.EmptyBeginText == 0 || k == noRune) &&
		(ask&syntax.EmptyBeginLine == 0 || k == noRune || k == newline) &&
		(ask&wordBegins == 0 || !k.ofWord())
}

const asksBefore = syntax.EmptyBeginText | syntax.EmptyBeginLine | wordBegins

func between(before, after runeKind, ask syntax.EmptyOp) bool {
	return before.holds(ask) &&
		(ask&syntax.EmptyEndText == 0 || after == noRune) &&
		(ask&syntax.EmptyEndLine == 0 || after == noRune || after == newline) &&
		(ask&syntax.EmptyWordBoundary == 0 || (before == wordRune) != (after == wordRune)) &&
		(ask&syntax.EmptyNoWordBoundary == 0 || (before == wordRune) == (after == wordRune)) &&
		(ask&wordEnds == 0 || !after.ofWord())
}

// instructions is a set of them that is emptied in no time.
type instructions struct {
	list []uint32
	at   []uint32
}

func (s *instructions) add(pc uint32) bool {
	if k := s.at[pc]; int(k) < len(s.list) && s.list[k] == pc {
		return false
	}
	s.at[pc] = uint32(len(s.list))
	s.list = append(s.list, pc)
	return true
}

func newMachine(prog *syntax.Prog) *machine {
	m := &machine{prog: prog, ids: map[string]state{}, reach: map[uint64][]state{}}
	m.classes()
	for _, s := range []*instructions{&m.now, &m.next, &m.more} {
		s.at = make([]uint32, len(prog.Inst))
	}
	for range firstState {
		m.grow(moment{})
	}
	m.ends[matchedState], m.ends[failedState] = yes, no
	for s := state(stuckState); s < firstState; s++ {
		for c := range m.stride {
			m.trans[s*m.stride+c] = s * m.stride
		}
	}
	m.next.list = m.next.list[:0]
	if m.follow(&m.next, uint32(prog.Start), noRune) {
		m.begin = m.matched()
	} else {
		m.begin = m.of(&m.next, noRune, nil)
	}
	return m
}

func (m *machine) stuck() state   { return stuckState * m.stride }
func (m *machine) matched() state { return matchedState * m.stride }
func (m *machine) failed() state  { return failedState * m.stride }

// classes puts bytes together that no instruction tells apart. Those of runes
// beyond ASCII stay apart.
func (m *machine) classes() {
	var edge [0x81]bool // a class begins here
	mark := func(lo, hi rune) {
		if lo < 0x80 {
			edge[lo] = true
			edge[min(hi+1, 0x80)] = true
		}
	}
	for _, r := range []rune{'\n', '_'} {
		mark(r, r)
	}
	mark('0', '9')
	for _, r := range []rune{'A', 'a'} { // also where the classes of words part
		mark(r, r+5)
		mark(r+6, r+25)
	}
	for i := range m.prog.Inst {
		switch in := &m.prog.Inst[i]; in.Op {
		case syntax.InstRune1, syntax.InstRune:
			if len(in.Rune) == 1 { // may fold its case
				for r := rune(0); r < 0x80; r++ {
					if in.MatchRune(r) {
						mark(r, r)
					}
				}
				continue
			}
			for k := 0; k+1 < len(in.Rune); k += 2 {
				mark(in.Rune[k], in.Rune[k+1])
			}
		}
	}
	class := uint8(0)
	for b := range m.class {
		if b > 0 && (b >= 0x80 || edge[b]) {
			class++
		}
		m.class[b] = class
	}
	m.stride = state(class) + 1
}

func (m *machine) grow(x moment) state {
	s := state(len(m.states)) * m.stride
	m.states = append(m.states, x)
	m.ends = append(m.ends, maybe)
	m.trans = append(m.trans, make([]state, m.stride)...)
	return s
}

// follow adds what comes next at pc, given the rune before. It returns true when
// that is a match.
func (m *machine) follow(set *instructions, pc uint32, before runeKind) bool {
	m.work++
	if !set.add(pc) {
		return false
	}
	switch in := &m.prog.Inst[pc]; in.Op {
	case syntax.InstMatch:
		return true
	case syntax.InstAlt, syntax.InstAltMatch:
		return m.follow(set, in.Out, before) || m.follow(set, in.Arg, before)
	case syntax.InstCapture, syntax.InstNop:
		return m.follow(set, in.Out, before)
	case syntax.InstEmptyWidth:
		if ask := syntax.EmptyOp(in.Arg); ask&^asksBefore == 0 && before.holds(ask) {
			return m.follow(set, in.Out, before)
		}
	}
	return false
}

// of is the state of a set.
func (m *machine) of(set *instructions, before runeKind, pending []byte) state {
	var x moment
	x.bytes = copy(x.pending[:], pending)
	asks := false
	for _, pc := range set.list {
		switch in := &m.prog.Inst[pc]; in.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			x.set = append(x.set, pc)
		case syntax.InstEmptyWidth:
			if ask := syntax.EmptyOp(in.Arg); ask&^asksBefore != 0 && before.holds(ask) {
				x.set = append(x.set, pc)
				asks = true
			}
		}
	}
	if len(x.set) == 0 && m.anchored() {
		return m.failed()
	}
	if asks {
		x.before = before
	}
	slices.Sort(x.set)
	m.key = append(m.key[:0], byte(x.before), byte(x.bytes))
	m.key = append(m.key, x.pending[:]...)
	for _, pc := range x.set {
		m.key = binary.LittleEndian.AppendUint32(m.key, pc)
	}
	if s, ok := m.ids[string(m.key)]; ok {
		return s
	}
	if len(m.states) >= maxStates {
		return m.stuck()
	}
	s := m.grow(x)
	m.ids[string(m.key)] = s
	return s
}

// anchored tells whether a match begins where the line does, if anywhere: a
// state without instructions has failed then.
func (m *machine) anchored() bool {
	return m.prog.StartCond()&syntax.EmptyBeginText != 0
}

// take moves on by one rune: from m.now, which follows a rune of kind before, to
// m.next. It returns true when there is a match before the rune.
func (m *machine) take(before runeKind, r rune, kind runeKind) bool {
	if m.ask(before, kind) {
		return true
	}
	m.work += len(m.now.list)
	m.next.list = m.next.list[:0]
	for _, pc := range m.now.list {
		in := &m.prog.Inst[pc]
		hit := false
		switch in.Op {
		case syntax.InstRune, syntax.InstRune1:
			hit = in.MatchRune(r)
		case syntax.InstRuneAny:
			hit = true
		case syntax.InstRuneAnyNotNL:
			hit = r != '\n'
		}
		if hit && m.follow(&m.next, in.Out, kind) {
			return true
		}
	}
	return m.follow(&m.next, uint32(m.prog.Start), kind) // a match may begin after any rune
}

// ask answers the assertions of m.now, between runes of the kinds, and adds what
// follows. It returns true when that is a match.
func (m *machine) ask(before, after runeKind) bool {
	for i := 0; i < len(m.now.list); i++ { // grows
		pc := m.now.list[i]
		in := &m.prog.Inst[pc]
		if in.Op != syntax.InstEmptyWidth || !between(before, after, syntax.EmptyOp(in.Arg)) {
			continue
		}
		m.more.list = m.more.list[:0]
		if m.follow(&m.more, in.Out, before) {
			return true
		}
		for _, next := range m.more.list {
			m.now.add(next)
		}
	}
	return false
}

// load puts a state's instructions into m.now.
func (m *machine) load(x *moment) {
	m.now.list = m.now.list[:0]
	for _, pc := range x.set {
		m.now.add(pc)
	}
}

// step makes the transition of a state at a byte.
func (m *machine) step(s state, b byte) state {
	if m.work > maxWork {
		return m.stuck()
	}
	x := m.states[s/m.stride]
	m.load(&x)
	q := append(x.pending[:x.bytes:x.bytes], b)
	before := x.before
	to := state(0)
	for len(q) > 0 && utf8.FullRune(q) {
		r, size := utf8.DecodeRune(q)
		kind := kindOf(r)
		if m.take(before, r, kind) {
			to = m.matched()
			break
		}
		m.now, m.next = m.next, m.now
		before = kind
		q = q[size:]
	}
	if to == 0 {
		to = m.of(&m.now, before, q)
	}
	m.trans[s+state(m.class[b])] = to
	return to
}

// run reads bytes. It ends early at a state that nothing changes.
func (m *machine) run(s state, text []byte) state {
	if s <= m.failed() {
		return s
	}
	last, trans, class := m.failed(), m.trans, &m.class
	for _, b := range text {
		to := trans[s+state(class[b])]
		if to <= last {
			if to != unknownState {
				return to
			}
			if to = m.step(s, b); to <= last {
				return to
			}
			trans = m.trans
		}
		s = to
	}
	return s
}

// end tells whether a line that ends in the state matches. The state is not
// stuck.
func (m *machine) end(s state) bool {
	n := s / m.stride
	if m.ends[n] == maybe {
		m.ends[n] = known(m.atEnd(&m.states[n]))
	}
	return m.ends[n] == yes
}

func (m *machine) atEnd(x *moment) bool {
	m.load(x)
	before := x.before
	for range x.bytes { // not a rune
		if m.take(before, utf8.RuneError, letterRune) {
			return true
		}
		m.now, m.next = m.next, m.now
		before = letterRune
	}
	return m.ask(before, noRune)
}

// match tells whether a text matches. It is not ok when the machine is stuck.
func (m *machine) match(text []byte) (match, ok bool) {
	s := m.run(m.begin, text)
	if s == m.stuck() {
		return false, false
	}
	return m.end(s), true
}

// textProgram matches texts as the query language finds words and phrases: not
// within words. It is nil for a text that is not runes, and for one with the
// rune that stands for any other byte.
func textProgram(text string, exact, prefix bool) *syntax.Prog {
	if !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) {
		return nil
	}
	p := &syntax.Prog{Inst: []syntax.Inst{{Op: syntax.InstFail}}, Start: 1}
	add := func(in syntax.Inst) {
		in.Out = uint32(len(p.Inst)) + 1
		p.Inst = append(p.Inst, in)
	}
	if text != "" && wordByte(text[0]) {
		add(syntax.Inst{Op: syntax.InstEmptyWidth, Arg: uint32(wordBegins)})
	}
	for _, r := range text {
		in := syntax.Inst{Op: syntax.InstRune, Rune: []rune{r, r}}
		if !exact && r >= 'a' && r <= 'z' {
			in.Rune = []rune{r - 0x20, r - 0x20, r, r}
		}
		add(in)
	}
	if text != "" && !prefix && wordByte(text[len(text)-1]) {
		add(syntax.Inst{Op: syntax.InstEmptyWidth, Arg: uint32(wordEnds)})
	}
	p.Inst = append(p.Inst, syntax.Inst{Op: syntax.InstMatch})
	return p
}

// maxReach is the most states that are told apart after a variable.
const maxReach = 24

// word returns the states in which the machine may be after a word of bytes of
// the class; nil when there are too many.
func (m *machine) word(from state, class block.Class) []state {
	k := uint64(from)<<8 | uint64(class)
	if found, ok := m.reach[k]; ok {
		return found
	}
	var found []state
	if class&block.High == 0 {
		found = m.walk(from, class)
	}
	m.reach[k] = found
	return found
}

func (m *machine) walk(from state, class block.Class) []state {
	var letters [0x80]byte // one of each class
	n := 0
	for b := byte(0); b < 0x80; b++ {
		if block.ClassOf(b)&class != 0 && (n == 0 || m.class[b] != m.class[letters[n-1]]) {
			letters[n] = b
			n++
		}
	}
	var found []state
	open := []state{from}
	for len(open) > 0 {
		s := open[len(open)-1]
		open = open[:len(open)-1]
		for _, b := range letters[:n] {
			to := m.run(s, []byte{b})
			if to == m.stuck() {
				return nil
			}
			if !slices.Contains(found, to) {
				if len(found) == maxReach {
					return nil
				}
				found = append(found, to)
				open = append(open, to)
			}
		}
	}
	return found
}
