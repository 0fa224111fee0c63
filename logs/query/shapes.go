package query

import (
	"bytes"
	"strconv"
)

// derived tells whether a shape makes values of this field that do not stand in
// the line.
func derived(field string) bool { return field == "severity" || field == "facility" }

// shaped tells whether a shape finds this field without its name in the line.
func shaped(field string) bool {
	switch field {
	case "severity", "facility", "thread", "caller", "msg", "remote", "user", "method", "path", "protocol", "status", "bytes",
		"referer", "agent", "host", "app", "pid", "msgid", "connection":
		return true
	}
	return false
}

// appendShape adds the fields of the first well-known shape that b has, and
// returns what is left of b to look for other fields.
func appendShape(dst []pair, b []byte) ([]pair, []byte) {
	if len(b) < 8 {
		return dst, b
	}
	for _, shape := range [...]func([]pair, []byte) ([]pair, []byte, bool){appendKlog, appendAccess, appendNginxError, appendSyslog} {
		if out, rest, ok := shape(dst, b); ok {
			if len(out) > maxFields {
				out = out[:maxFields]
			}
			return out, rest
		}
	}
	return dst, b
}

// cutter takes pieces off the front of a line. Once a piece is missing, it
// takes nothing more and ok is false.
type cutter struct {
	b  []byte
	ok bool
}

func (c *cutter) fail() []byte {
	c.ok = false
	return nil
}

// to takes what stands before sep, which is taken too.
func (c *cutter) to(sep string) []byte {
	if !c.ok {
		return nil
	}
	i := bytes.Index(c.b, stringBytes(sep))
	if i < 0 {
		return c.fail()
	}
	v := c.b[:i]
	c.b = c.b[i+len(sep):]
	return v
}

// word takes what stands before the next space, not nothing.
func (c *cutter) word() []byte {
	v := c.to(" ")
	if len(v) == 0 {
		return c.fail()
	}
	return v
}

// digits takes a number of min to max digits.
func (c *cutter) digits(least, most int) []byte {
	if !c.ok {
		return nil
	}
	n := 0
	for n < len(c.b) && c.b[n] >= '0' && c.b[n] <= '9' {
		n++
	}
	if n < least || n > most {
		return c.fail()
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

// like takes bytes of a form: 0 is a digit, a is a letter, _ a digit or space,
// anything else itself.
func (c *cutter) like(form string) {
	if !c.ok || len(c.b) < len(form) {
		c.ok = false
		return
	}
	for i := range len(form) {
		d := c.b[i]
		digit := d >= '0' && d <= '9'
		switch form[i] {
		case '0':
			c.ok = c.ok && digit
		case '_':
			c.ok = c.ok && (digit || d == ' ')
		case 'a':
			c.ok = c.ok && d|0x20 >= 'a' && d|0x20 <= 'z'
		default:
			c.ok = c.ok && d == form[i]
		}
	}
	c.b = c.b[len(form):]
}

// quoted takes a text in double quotes with backslash escapes, as it is.
func (c *cutter) quoted() []byte {
	c.like(`"`)
	for i := 0; c.ok && i < len(c.b); i++ {
		switch c.b[i] {
		case '\\':
			i++
		case '"':
			v := c.b[:i]
			c.b = c.b[i+1:]
			return v
		}
	}
	return c.fail()
}

func put(dst []pair, key string, v []byte) []pair {
	if len(v) == 0 || len(v) == 1 && v[0] == '-' {
		return dst
	}
	return append(dst, pair{key, string(v)})
}

// firstLine is b up to its first newline.
func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i]
	}
	return b
}

// appendKlog: I1120 10:11:12.123456    1234 file.go:42] text, or "text" k="v"
func appendKlog(dst []pair, b []byte) ([]pair, []byte, bool) {
	var severity string
	switch b[0] {
	case 'I':
		severity = "info"
	case 'W':
		severity = "warning"
	case 'E':
		severity = "error"
	case 'F':
		severity = "fatal"
	default:
		return dst, b, false
	}
	c := cutter{b: b[1:], ok: true}
	c.like("0000 00:00:00.000000 ")
	c.b = bytes.TrimLeft(c.b, " ")
	thread := c.digits(1, 10)
	c.like(" ")
	caller := c.to("] ")
	if !c.ok || bytes.IndexByte(caller, ' ') >= 0 || bytes.IndexByte(caller, ':') < 1 {
		return dst, b, false
	}
	dst = append(dst, pair{"severity", severity})
	dst = put(dst, "thread", thread)
	dst = put(dst, "caller", caller)
	msg := firstLine(c.b)
	if len(msg) > 0 && msg[0] == '"' { // structured: the text, then pairs
		s := jsonScanner{b: c.b}
		if v, ok := s.text(); ok {
			return append(dst, pair{"msg", v}), c.b[s.at:], true
		}
	}
	return put(dst, "msg", msg), c.b, true
}

// access is a line of an access log:
// remote ident user [time] "METHOD path protocol" status bytes "referer" "agent"
type access struct {
	remote, user, at, request, status, size []byte
	tail                                    []byte
}

// Bytes that the time of an access log may have.
const (
	accessTimeLeast = 10
	accessTimeMost  = 40
)

func appendAccess(dst []pair, b []byte) ([]pair, []byte, bool) {
	a, ok := cutAccess(b)
	if !ok || len(a.at) < accessTimeLeast || len(a.at) > accessTimeMost {
		return dst, b, false
	}
	status := cutter{b: a.status, ok: true}
	if status.digits(3, 3); !status.ok || len(status.b) > 0 {
		return dst, b, false
	}
	if _, err := strconv.ParseUint(string(a.size), 10, 63); err != nil && string(a.size) != "-" {
		return dst, b, false
	}
	dst, rest := a.append(dst)
	return dst, rest, true
}

// cutAccess finds the parts of such a line. It does not look whether time, status
// and bytes are such.
func cutAccess(b []byte) (a access, ok bool) {
	c := cutter{b: b, ok: true}
	a.remote = c.word()
	_ = c.word() // nobody fills in the ident
	a.user = c.word()
	c.like("[")
	a.at = c.to("] ")
	a.request = c.quoted()
	c.like(" ")
	a.status = c.to(" ")
	a.size = c.b
	if i := bytes.IndexByte(a.size, ' '); i >= 0 {
		a.size = a.size[:i]
	}
	a.tail = c.b[len(a.size):]
	return a, c.ok
}

// append adds the fields, and returns what is left of the line.
func (a *access) append(dst []pair) ([]pair, []byte) {
	dst = put(dst, "remote", a.remote)
	dst = put(dst, "user", a.user)
	r := cutter{b: a.request, ok: true}
	if method := r.word(); r.ok {
		path, protocol, _ := bytes.Cut(r.b, []byte(" "))
		dst = put(dst, "method", method)
		dst = put(dst, "path", path)
		dst = put(dst, "protocol", protocol)
	}
	dst = put(dst, "status", a.status)
	dst = put(dst, "bytes", a.size)
	tail := cutter{b: a.tail, ok: true}
	tail.like(" ")
	referer := tail.quoted()
	tail.like(" ")
	if agent := tail.quoted(); tail.ok {
		dst = put(dst, "referer", referer)
		dst = put(dst, "agent", agent)
		return dst, tail.b
	}
	return dst, a.tail
}

// appendNginxError: 2026/11/20 10:00:00 [error] 12#13: *45 text, client: 10.0.0.1, server: x, request: "…"
func appendNginxError(dst []pair, b []byte) ([]pair, []byte, bool) {
	c := cutter{b: b, ok: true}
	c.like("0000/00/00 00:00:00 [")
	severity := c.to("] ")
	pid := c.digits(1, 10)
	c.like("#")
	thread := c.digits(1, 10)
	c.like(": ")
	if !c.ok || len(severity) == 0 || len(severity) > 8 {
		return dst, b, false
	}
	dst = put(dst, "severity", severity)
	dst = put(dst, "pid", pid)
	dst = put(dst, "thread", thread)
	if n := (cutter{b: c.b, ok: true}); len(c.b) > 0 && c.b[0] == '*' {
		n.like("*")
		connection := n.digits(1, 20)
		n.like(" ")
		if n.ok {
			dst = put(dst, "connection", connection)
			c.b = n.b
		}
	}
	msg := firstLine(c.b)
	if i := bytes.Index(msg, []byte(", client: ")); i >= 0 {
		rest := msg[i:]
		msg = msg[:i]
		dst = put(dst, "msg", msg)
		for len(rest) > 2 && len(dst) < maxFields {
			p := cutter{b: rest[2:], ok: true}
			key := p.to(": ")
			if !p.ok {
				break
			}
			var v []byte
			if len(p.b) > 0 && p.b[0] == '"' {
				v = p.quoted()
			} else if j := bytes.Index(p.b, []byte(", ")); j >= 0 {
				v, p.b = p.b[:j], p.b[j:]
			} else {
				v, p.b = p.b, nil
			}
			if p.ok {
				dst = put(dst, string(key), v)
			}
			rest = p.b
		}
		return dst, c.b[len(c.b):], true
	}
	return put(dst, "msg", msg), c.b, true
}

// appendSyslog: RFC 5424 <34>1 time host app pid msgid [id k="v"] text, or RFC
// 3164 <34>Oct 11 22:14:15 host app[pid]: text, the priority may be missing.
func appendSyslog(dst []pair, b []byte) ([]pair, []byte, bool) {
	c := cutter{b: b, ok: true}
	priority := -1
	if b[0] == '<' {
		c.like("<")
		n, err := strconv.Atoi(string(c.digits(1, 3)))
		c.like(">")
		if !c.ok || err != nil || n > 191 {
			return dst, b, false
		}
		priority = n
	}
	start := len(dst)
	if priority >= 0 {
		dst = append(dst, pair{"facility", facilityName(priority / 8)}, pair{"severity", severityName(priority % 8)})
	}
	if priority >= 0 && bytes.HasPrefix(c.b, []byte("1 ")) {
		c.like("1 ")
		_ = c.word() // the line has a time already
		for _, key := range [...]string{"host", "app", "pid", "msgid"} {
			dst = put(dst, key, c.word())
		}
		dst = c.structured(dst)
		if !c.ok {
			return dst[:start], b, false
		}
		c.b = bytes.TrimPrefix(c.b, []byte("\ufeff"))
		return put(dst, "msg", firstLine(c.b)), c.b, true
	}
	c.like("aaa _0 00:00:00 ")
	host := c.word()
	tag := c.to(": ")
	if !c.ok || len(tag) == 0 || len(tag) > 64 || bytes.IndexByte(tag, ' ') >= 0 {
		return dst[:start], b, false
	}
	dst = put(dst, "host", host)
	if i := bytes.IndexByte(tag, '['); i > 0 && tag[len(tag)-1] == ']' {
		dst = put(dst, "app", tag[:i])
		dst = put(dst, "pid", tag[i+1:len(tag)-1])
	} else {
		dst = put(dst, "app", tag)
	}
	return put(dst, "msg", firstLine(c.b)), c.b, true
}

// structured takes RFC 5424's structured data: - or [id k="v" …]….
func (c *cutter) structured(dst []pair) []pair {
	if bytes.HasPrefix(c.b, []byte("-")) {
		c.b = bytes.TrimPrefix(c.b[1:], []byte(" "))
		return dst
	}
	if !c.ok || len(c.b) == 0 || c.b[0] != '[' {
		c.ok = false
		return dst
	}
	for c.ok && len(c.b) > 0 && c.b[0] == '[' {
		end := bytes.IndexAny(c.b, " ]")
		if end < 0 {
			c.ok = false
			return dst
		}
		id := string(c.b[1:end])
		c.b = c.b[end:]
		for c.ok && len(c.b) > 0 && c.b[0] == ' ' {
			c.like(" ")
			key := c.to("=")
			s := jsonScanner{b: c.b}
			v, ok := s.text()
			if !ok {
				c.ok = false
				return dst
			}
			c.b = c.b[s.at:]
			if len(dst) < maxFields {
				dst = append(dst, pair{dotted(id, string(key)), v})
			}
		}
		c.like("]")
	}
	c.b = bytes.TrimPrefix(c.b, []byte(" "))
	return dst
}

func facilityName(n int) string {
	return [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}[n]
}

func severityName(n int) string {
	return [...]string{"emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"}[n]
}
