package index

// sorter parts the words of a block into Bleve terms and keys of its filter. It
// is used again and again by one goroutine.
type sorter struct {
	vocab *Vocabulary
	g     *gatherer
	keys  []uint64
	made  []byte // the filter made last
	terms int    // in the block before

	helpers []uint32 // beginnings of words of the block
	slots   []uint32 // the same by hash, open addressing; 0 is free
}

// sort returns the terms and the filter of a block with these texts. The filter
// is valid until the next.
func (s *sorter) sort(texts [][]byte) (terms []string, filter []byte) {
	s.g.start()
	for _, t := range texts {
		s.g.add(t)
	}
	return s.part(&s.g.gathered)
}

func (s *sorter) part(g *gathered) (terms []string, filter []byte) {
	keys := append(s.keys[:0], g.ids...)
	terms = make([]string, 0, s.terms+s.terms/8)
	clear(s.slots)
	s.helpers = s.helpers[:0]
	for i := range g.len() {
		w := g.word(i)
		if term, ok := s.vocab.find(w, g.hashes[i]); ok {
			terms = append(terms, term)
			continue
		}
		keys = append(keys, g.hashes[i])
		if w[0] == idKey[0] {
			w = w[1:]
		}
		if len(w) >= helperSize && len(s.helpers) <= maxHelpers {
			s.help(w)
		}
	}
	if len(s.helpers) > maxHelpers {
		keys = append(keys, hash(helperKey+anyHelper))
	} else {
		key := [len(helperKey) + helperSize]byte{helperKey[0]}
		for _, h := range s.helpers {
			key[1], key[2], key[3] = byte(h), byte(h>>8), byte(h>>16)
			keys = append(keys, hashBytes(key[:]))
		}
	}
	s.keys, s.terms = keys, len(terms)
	n := filterBytes(len(keys))
	if cap(s.made) < n {
		s.made = make([]byte, n)
	}
	filter = s.made[:n]
	clear(filter)
	for _, h := range keys {
		filterAdd(filter, h)
	}
	return terms, filter
}

// help keeps the beginning of a word, once.
func (s *sorter) help(w []byte) {
	const size = 4 * maxHelpers // so that it never gets full
	if s.slots == nil {
		s.slots = make([]uint32, size)
	}
	h := uint32(w[0]) | uint32(w[1])<<8 | uint32(w[2])<<16 // no byte of a word is 0
	for i := h * 0x9E3779B1 >> 20; ; i++ {
		switch s.slots[i%size] {
		case h:
			return
		case 0:
			s.slots[i%size] = h
			s.helpers = append(s.helpers, h)
			return
		}
	}
}
