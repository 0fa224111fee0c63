package record

import "bytes"

// Level is how grave a line is.
type Level uint8

// Levels from least to most grave. Unknown sorts before all of them.
const (
	Unknown Level = iota
	Trace
	Debug
	Info
	Warn
	Error
	Fatal
	levels
)

// LevelCount is the number of levels, Unknown included.
const LevelCount = int(levels)

// String returns the lower-case name, "unknown" for Unknown.
func (l Level) String() string {
	if l >= levels {
		return "unknown"
	}
	return [...]string{"unknown", "trace", "debug", "info", "warn", "error", "fatal"}[l]
}

// ParseLevel understands the names and common synonyms in any case.
func ParseLevel(s string) (Level, bool) {
	if len(s) > 12 {
		return Unknown, false
	}
	l := levelOf([]byte(s))
	return l, l != Unknown || foldEqual([]byte(s), "unknown")
}

// SentLevel is the level in a field of an entry: a name, or a number as pino and
// bunyan give it. Other numbers are Unknown, and so are all under "severity": syslog
// and OpenTelemetry count those in ways of their own.
func SentLevel(key, value string) Level {
	if l, _ := ParseLevel(value); l != Unknown || key == "severity" {
		return l
	}
	return numbered([]byte(value))
}

// numbered is the level of pino and bunyan: two digits, 10 for trace up to 60 for
// fatal, and what is between for levels of one's own.
func numbered(b []byte) Level {
	if len(b) != 2 || !digit(b[0]) || !digit(b[1]) {
		return Unknown
	}
	return [...]Level{Unknown, Trace, Debug, Info, Warn, Error, Fatal, Fatal, Fatal, Fatal}[b[0]-'0']
}

func foldEqual(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func levelOf(w []byte) Level {
	if len(w) < 3 || len(w) > 11 {
		return Unknown
	}
	switch w[0] | 0x20 {
	case 't':
		if foldEqual(w, "trace") {
			return Trace
		}
	case 'v':
		if foldEqual(w, "verbose") {
			return Trace
		}
	case 'd':
		if foldEqual(w, "debug") || foldEqual(w, "dbg") {
			return Debug
		}
	case 'i':
		if foldEqual(w, "info") || foldEqual(w, "information") || foldEqual(w, "inf") {
			return Info
		}
	case 'n':
		if foldEqual(w, "notice") {
			return Info
		}
	case 'w':
		if foldEqual(w, "warn") || foldEqual(w, "warning") || foldEqual(w, "wrn") {
			return Warn
		}
	case 'e':
		if foldEqual(w, "error") || foldEqual(w, "err") {
			return Error
		}
		if foldEqual(w, "emerg") || foldEqual(w, "emergency") {
			return Fatal
		}
	case 's':
		if foldEqual(w, "severe") {
			return Error
		}
	case 'c':
		if foldEqual(w, "critical") || foldEqual(w, "crit") {
			return Fatal
		}
	case 'a':
		if foldEqual(w, "alert") {
			return Fatal
		}
	case 'p':
		if foldEqual(w, "panic") {
			return Fatal
		}
	case 'f':
		if foldEqual(w, "fatal") {
			return Fatal
		}
	}
	return Unknown
}

const detectBytes = 160 // of the line are looked at outside JSON

// Detect finds the level in a line: a JSON or logfmt field, klog's letter, or
// the first upper-case or bracketed level word near the start.
func Detect(line []byte) Level {
	if len(line) == 0 {
		return Unknown
	}
	if line[0] == '{' {
		return detectJSON(line)
	}
	if len(line) > 6 && line[1] >= '0' && line[1] <= '9' && line[5] == ' ' {
		switch line[0] { // klog: I1120 10:11:12
		case 'I':
			return Info
		case 'W':
			return Warn
		case 'E':
			return Error
		case 'F':
			return Fatal
		}
	}
	b := line
	if len(b) > detectBytes {
		b = b[:detectBytes]
	}
	for i := 0; i < len(b); {
		c := b[i]
		if !letter(c) {
			i++
			continue
		}
		j := i + 1
		for j < len(b) && (letter(b[j]) || b[j] == '_') {
			j++
		}
		if n := j - i; n >= 3 && n <= 11 && (i == 0 || !digit(b[i-1])) && (j == len(b) || !digit(b[j])) {
			if j < len(b) && b[j] == '=' && levelKey(b[i:j]) {
				if l := levelOf(word(line[j+1:])); l != Unknown {
					return l
				}
			} else if upper(b[i:j]) || i > 0 && j < len(b) && bracketed(b[i-1], b[j]) || i == 0 && j < len(b) && b[j] == ':' {
				if l := levelOf(b[i:j]); l != Unknown {
					return l
				}
			}
		}
		i = j
	}
	return Unknown
}

func letter(c byte) bool { c |= 0x20; return c >= 'a' && c <= 'z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

func upper(w []byte) bool {
	for _, c := range w {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

func bracketed(before, after byte) bool {
	return before == '[' && after == ']' || before == '<' && after == '>' || before == '(' && after == ')'
}

func levelKey(k []byte) bool {
	switch len(k) {
	case 3:
		return foldEqual(k, "lvl")
	case 5:
		return foldEqual(k, "level")
	case 8:
		return foldEqual(k, "severity") || foldEqual(k, "loglevel")
	}
	return false
}

// word returns the letters at the start of b after an optional quote.
func word(b []byte) []byte {
	if len(b) > 0 && (b[0] == '"' || b[0] == '\'') {
		b = b[1:]
	}
	n := 0
	for n < len(b) && n < 12 && letter(b[n]) {
		n++
	}
	return b[:n]
}

func detectJSON(line []byte) Level {
	for _, key := range [...]string{`"level"`, `"severity"`, `"lvl"`, `"levelname"`, `"log.level"`} {
		i := bytes.Index(line, []byte(key))
		if i < 0 {
			continue
		}
		v := bytes.TrimLeft(line[i+len(key):], " \t")
		if len(v) == 0 || v[0] != ':' {
			continue
		}
		v = bytes.TrimLeft(v[1:], " \t")
		if len(v) == 0 {
			continue
		}
		if digit(v[0]) {
			n := 1
			for n < len(v) && digit(v[n]) {
				n++
			}
			return SentLevel(key[1:len(key)-1], string(v[:min(n, 3)]))
		}
		if l := levelOf(word(v)); l != Unknown {
			return l
		}
	}
	return Unknown
}
