package index

// A word is a run of ASCII letters, digits, '_' and bytes from 0x80. ASCII
// letters fold case; everything else separates.

// Fold returns the folded byte, or 0 for a separator.
func Fold(c byte) byte {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c >= 0x80:
		return c
	case c >= 'A' && c <= 'Z':
		return c + ('a' - 'A')
	}
	return 0
}

// FoldEight makes the ASCII letters among eight bytes small.
func FoldEight(x uint64) uint64 {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	low := x &^ high
	// the high bit of a byte is set where it is A to Z
	upper := (low + (0x80-'A')*ones) &^ (low + (0x7f-'Z')*ones) &^ x & high
	return x | upper>>2
}

// Words calls fn for each word of text in order, folded.
func Words(text string, fn func(word string)) {
	var word []byte
	for i := 0; i <= len(text); i++ {
		c := byte(0)
		if i < len(text) {
			c = Fold(text[i])
		}
		if c != 0 {
			word = append(word, c)
		} else if len(word) > 0 {
			fn(string(word))
			word = word[:0]
		}
	}
}

const (
	maxWord    = 64     // longer words are known by their first bytes
	helperKey  = "\x04" // + first 3 bytes of a word that is not a Bleve term
	idKey      = "\x02" // + letters before the first digit of a token
	helperSize = 3
	// Of a block of random words nearly every helper would be there; it has this
	// one instead, and is read for any prefix.
	maxHelpers = 1024
	anyHelper  = "*"
)

// isID tells whether a word is kept in filters rather than as a term.
func isID(word string) bool {
	if len(word) < 3 {
		return false
	}
	for i := 0; i < len(word); i++ {
		if word[i] >= '0' && word[i] <= '9' {
			return true
		}
	}
	return false
}

func alphaPrefix(word string) string {
	for i := 0; i < len(word); i++ {
		if word[i] >= '0' && word[i] <= '9' {
			return word[:i]
		}
	}
	return word
}

func clip(word string) string {
	if len(word) > maxWord {
		return word[:maxWord]
	}
	return word
}
