package syslog

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

// Parse fills a record from one message without its framing. What is no syslog
// is a line as it stands. now gives RFC 3164's times their year and zone. left
// counts fields beyond the cap and those whose id or name is longer than 256 bytes.
func Parse(r *record.Record, b []byte, now time.Time) (left int) {
	b = bytes.TrimRight(b, "\r\n\x00")
	r.Time, r.Body = now.UnixNano(), b
	pri, rest, ok := priority(b)
	if !ok {
		return 0
	}
	m := message{r: r, rest: rest}
	r.Level = level(pri & 7)
	m.add("facility", facility(pri>>3))
	if after, ok := bytes.CutPrefix(rest, []byte("1 ")); ok {
		if !m.modern(after) {
			m.plain(rest, now)
		}
	} else {
		m.plain(rest, now)
	}
	entry.Cut(r)
	return m.left
}

// priority reads <0> to <191>.
func priority(b []byte) (pri int, rest []byte, ok bool) {
	if len(b) < 3 || b[0] != '<' {
		return 0, nil, false
	}
	end := bytes.IndexByte(b[:min(len(b), 5)], '>')
	if end < 2 {
		return 0, nil, false
	}
	pri, err := strconv.Atoi(string(b[1:end]))
	if err != nil || pri < 0 || pri > 191 {
		return 0, nil, false
	}
	return pri, b[end+1:], true
}

func level(severity int) record.Level {
	return [...]record.Level{record.Fatal, record.Fatal, record.Fatal, record.Error, record.Warn, record.Info, record.Info, record.Debug}[severity]
}

func facility(n int) string {
	names := [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock"}
	if n < len(names) {
		return names[n]
	}
	return "local" + strconv.Itoa(n-16)
}

type message struct {
	r    *record.Record
	rest []byte
	left int
}

func (m *message) add(key, value string) {
	if value != "" && value != "-" {
		m.left += entry.Add(m.r, key, value)
	}
}

// word takes what stands before the next space.
func (m *message) word() (string, bool) {
	w, rest, ok := bytes.Cut(m.rest, []byte{' '})
	if !ok || len(w) == 0 {
		return "", false
	}
	m.rest = rest
	return string(w), true
}

// modern reads RFC 5424 after its version: time host app process id [data] text.
func (m *message) modern(b []byte) bool {
	m.rest = b
	var head [5]string
	for i := range head {
		var ok bool
		if head[i], ok = m.word(); !ok {
			return false
		}
	}
	at := int64(0)
	if head[0] != "-" {
		t, err := time.Parse(time.RFC3339Nano, head[0])
		if err != nil || t.Year() < 1970 || t.Year() > 2255 {
			return false
		}
		at = t.UnixNano()
	}
	rest, ok := structured(m.rest, nil)
	if !ok {
		return false
	}
	if at != 0 {
		m.r.Time = at
	}
	for i, key := range []string{"host", "app", "procid", "msgid"} {
		m.add(key, head[i+1])
	}
	structured(m.rest, m.pair)
	m.r.Body = bytes.TrimPrefix(bytes.TrimPrefix(rest, []byte{' '}), []byte("\xef\xbb\xbf"))
	return true
}

// structured reads - or [id name="value" …][…] and gives the pairs to fn, values as
// they are written. fn may be nil.
func structured(b []byte, fn func(id, name, value []byte)) (rest []byte, ok bool) {
	if len(b) > 0 && b[0] == '-' {
		return b[1:], true
	}
	if len(b) == 0 || b[0] != '[' {
		return nil, false
	}
	for len(b) > 0 && b[0] == '[' {
		n := bytes.IndexAny(b, " ]")
		if n < 2 {
			return nil, false
		}
		id := b[1:n]
		for b = b[n:]; len(b) > 0 && b[0] == ' '; {
			b = bytes.TrimLeft(b, " ")
			name, after, ok := bytes.Cut(b, []byte(`="`))
			if !ok || len(name) == 0 || bytes.ContainsAny(name, " ]\"") {
				return nil, false
			}
			i := 0
			for ; i < len(after) && after[i] != '"'; i++ {
				if escape(after[i:]) {
					i++
				}
			}
			if i == len(after) {
				return nil, false
			}
			if fn != nil {
				fn(id, name, after[:i])
			}
			b = after[i+1:]
		}
		if len(b) == 0 || b[0] != ']' {
			return nil, false
		}
		b = b[1:]
	}
	return b, true
}

// escape tells whether the first byte only says that the second is not the value's end.
func escape(b []byte) bool {
	return b[0] == '\\' && len(b) > 1 && (b[1] == '"' || b[1] == '\\' || b[1] == ']')
}

// pair makes a field of a pair: its name has the id before it. Those with longer
// names than any sensible sender has, or beyond the cap, are counted and left out.
func (m *message) pair(id, name, value []byte) {
	switch {
	case len(value) == 0 || string(value) == "-":
		return
	case len(m.r.Fields) >= entry.MaxFields || len(id) > maxName || len(name) > maxName:
		m.left++
		return
	}
	plain := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if escape(value[i:]) {
			i++
		}
		plain = append(plain, value[i])
	}
	m.add(string(id)+"."+string(name), string(plain))
}

// plain reads RFC 3164 after its priority: time host program[process]: text.
// Many senders leave out a part; what is not there is not made up.
func (m *message) plain(b []byte, now time.Time) {
	m.rest = b
	m.r.Body = b
	at, n, ok := shortTime(b, now)
	if !ok {
		m.program(b)
		return
	}
	m.r.Time = at
	m.rest = bytes.TrimPrefix(b[n:], []byte{' '})
	m.r.Body = m.rest
	before := m.rest
	host, ok := m.word()
	if !ok {
		return
	}
	if strings.HasSuffix(host, ":") { // there is no host
		m.program(before)
		return
	}
	m.add("host", host)
	m.program(m.rest)
}

const (
	maxTag  = 64  // bytes of a program's name
	maxName = 256 // of an id or a name in structured data: RFC 5424 allows 32
)

// program reads "name[process]: text" or "name: text".
func (m *message) program(b []byte) {
	m.r.Body = b
	head, text, ok := bytes.Cut(b, []byte(": "))
	if !ok {
		if head, ok = bytes.CutSuffix(b, []byte{':'}); !ok {
			return
		}
		text = nil
	}
	if len(head) == 0 || len(head) > maxTag || bytes.ContainsAny(head, " \t\"{") {
		return
	}
	name, process, inside := bytes.Cut(head, []byte{'['})
	if inside {
		if process, inside = bytes.CutSuffix(process, []byte{']'}); !inside {
			return
		}
	}
	m.add("app", string(name))
	m.add("procid", string(process))
	m.r.Body = text
}

// shortTime reads "Jan _2 15:04:05" with the year nearest to now, or RFC 3339.
func shortTime(b []byte, now time.Time) (at int64, n int, ok bool) {
	const short = "Jan _2 15:04:05"
	if len(b) >= len(short) {
		if t, err := time.Parse(short, string(b[:len(short)])); err == nil {
			near := time.Date(now.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			switch {
			case near.Sub(now) > 180*24*time.Hour: // December's lines in January
				near = near.AddDate(-1, 0, 0)
			case now.Sub(near) > 180*24*time.Hour:
				near = near.AddDate(1, 0, 0)
			}
			return near.UnixNano(), len(short), true
		}
	}
	if end := bytes.IndexByte(b[:min(len(b), 40)], ' '); end > 0 {
		if t, err := time.Parse(time.RFC3339Nano, string(b[:end])); err == nil && t.Year() >= 1970 && t.Year() <= 2255 {
			return t.UnixNano(), end, true
		}
	}
	return 0, 0, false
}
