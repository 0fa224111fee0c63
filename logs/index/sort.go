package index

// sorter parts the words of a block into Bleve terms and keys of its filter. It
// is used again and again by one goroutine.
type sorter struct {
	vocab *Vocabulary
	g     *gatherer
	keys  []uint64
	made  []byte // the filter made last
	terms int    // in the block before
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
	var helpers map[[helperSize]byte]struct{}
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
		if len(w) < helperSize || len(helpers) > maxHelpers {
			continue
		}
		if helpers == nil {
			helpers = map[[helperSize]byte]struct{}{}
		}
		helpers[[helperSize]byte(w)] = struct{}{}
	}
	if len(helpers) > maxHelpers {
		keys = append(keys, hash(helperKey+anyHelper))
	} else {
		for h := range helpers {
			keys = append(keys, hash(helperKey+string(h[:])))
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
