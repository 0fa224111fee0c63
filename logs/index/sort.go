package index

// sorter parts the words of a block into Bleve terms and keys of its filter. It
// is used again and again by one goroutine.
type sorter struct {
	vocab *Vocabulary
	g     *gatherer
}

// sort returns the terms and the filter of a block with these texts.
func (s *sorter) sort(texts [][]byte) (terms []string, filter []byte) {
	g := s.g
	g.start()
	for _, t := range texts {
		g.add(t)
	}
	terms = make([]string, 0, len(g.words))
	keys := g.ids
	var helpers map[string]struct{}
	for _, w := range g.words {
		if s.vocab.Has(w) {
			terms = append(terms, w)
			continue
		}
		keys = append(keys, hash(w))
		if w[0] == idKey[0] {
			w = w[1:]
		}
		if len(w) >= helperSize {
			if helpers == nil {
				helpers = map[string]struct{}{}
			}
			helpers[w[:helperSize]] = struct{}{}
		}
	}
	if len(helpers) > maxHelpers {
		helpers = map[string]struct{}{anyHelper: {}}
	}
	for h := range helpers {
		terms = append(terms, helperKey+h)
	}
	filter = make([]byte, filterBytes(len(keys)))
	for _, h := range keys {
		filterAdd(filter, h)
	}
	return terms, filter
}
