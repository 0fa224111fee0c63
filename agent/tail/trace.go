package tail

import (
	"bytes"
)

// trace is which stack trace a line may belong to.
type trace uint8

const (
	noTrace   trace = iota
	atTrace         // Java, Node.js: an exception, then indented lines
	pyTrace         // Python: "Traceback …", indented lines, the exception
	pyEnded         // after Python's exception: another may follow that it led to
	goroutine       // Go: a panic and the goroutines
)

// maxTraceLines of one trace are joined; what follows is lines of their own.
const maxTraceLines = 1000

// beginsTrace tells whether lines that belong to b may follow it.
func beginsTrace(b []byte) trace {
	switch {
	case bytes.HasPrefix(b, []byte("Traceback (most recent call last):")):
		return pyTrace
	case bytes.HasPrefix(b, []byte("panic: ")), bytes.HasPrefix(b, []byte("fatal error: ")), isGoroutine(b):
		return goroutine
	case bytes.HasPrefix(b, []byte("Exception in thread ")), bytes.HasPrefix(b, []byte("Uncaught ")), isException(b):
		return atTrace
	}
	return noTrace
}

// next tells whether b goes on with the trace, and as what.
func (t trace) next(b []byte) (trace, bool) {
	indented := len(b) > 0 && (b[0] == ' ' || b[0] == '\t')
	switch t {
	case atTrace:
		return t, indented || bytes.HasPrefix(b, []byte("Caused by: ")) || len(b) == 1 && b[0] == '}'
	case pyTrace:
		if indented {
			return t, true
		}
		return pyEnded, len(b) > 0
	case pyEnded:
		switch {
		case bytes.HasPrefix(b, []byte("Traceback (most recent call last):")):
			return pyTrace, true
		case len(b) == 0, bytes.HasPrefix(b, []byte("During handling of the above exception")), bytes.HasPrefix(b, []byte("The above exception was the direct cause")):
			return t, true
		}
	case goroutine:
		return t, indented || len(b) == 0 || isGoroutine(b) || isCall(b) || bytes.HasPrefix(b, []byte("created by ")) ||
			bytes.HasPrefix(b, []byte("[signal ")) || bytes.HasPrefix(b, []byte("panic: ")) || bytes.HasPrefix(b, []byte("runtime stack:")) ||
			bytes.HasPrefix(b, []byte("...additional frames elided..."))
	}
	return noTrace, false
}

// isGoroutine tells "goroutine 1 [running]:".
func isGoroutine(b []byte) bool {
	return bytes.HasPrefix(b, []byte("goroutine ")) && bytes.HasSuffix(b, []byte("]:")) && bytes.Contains(b, []byte(" ["))
}

// isCall tells "main.(*T).f(0x1, …)": a name with a dot, then arguments.
func isCall(b []byte) bool {
	open := bytes.LastIndexByte(b, '(')
	return open > 0 && b[len(b)-1] == ')' && bytes.IndexByte(b[:open], ' ') < 0 && bytes.IndexByte(b[:open], '.') > 0
}

// isException tells "java.lang.IllegalStateException: text", "TypeError: text"
// or the name alone.
func isException(b []byte) bool {
	name, _, _ := bytes.Cut(b[:min(len(b), 200)], []byte{':'})
	if !bytes.HasSuffix(name, []byte("Exception")) && !bytes.HasSuffix(name, []byte("Error")) {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '$' {
			return false
		}
	}
	return name[0] >= 'A' && name[0] <= 'Z' || bytes.IndexByte(name, '.') > 0
}
