package tail

import (
	"bytes"
	"hash/fnv"
	"strings"
	"time"

	"perch/logs/record"
)

// criLine is one line of a CRI log file.
type criLine struct {
	time   int64
	stderr bool
	part   bool // more of the line follows
	body   []byte
}

// parse reads "<RFC3339nano> stdout|stderr F|P[:tags] text" without the
// newline. ok is false when the line does not look like that.
func parse(b []byte) (l criLine, ok bool) {
	stamp, rest, ok := bytes.Cut(b, []byte{' '})
	if !ok {
		return l, false
	}
	output, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return l, false
	}
	switch string(output) {
	case record.Stdout:
	case record.Stderr:
		l.stderr = true
	default:
		return l, false
	}
	tag, body, _ := bytes.Cut(rest, []byte{' '})
	if len(tag) == 0 {
		return l, false
	}
	switch tag[0] {
	case 'F':
	case 'P':
		l.part = true
	default:
		return l, false
	}
	if len(tag) > 1 && tag[1] != ':' {
		return l, false
	}
	if l.time, ok = parseTime(stamp); !ok {
		return l, false
	}
	l.body = body
	return l, true
}

// parseTime reads RFC3339 with up to nine digits of fraction. UTC stamps, which
// runtimes write, take the short way.
func parseTime(b []byte) (int64, bool) {
	if n := len(b); n >= 20 && b[n-1] == 'Z' && b[4] == '-' && b[7] == '-' && b[10] == 'T' && b[13] == ':' && b[16] == ':' {
		year, ok1 := digits(b[0:4])
		month, ok2 := digits(b[5:7])
		day, ok3 := digits(b[8:10])
		hour, ok4 := digits(b[11:13])
		minute, ok5 := digits(b[14:16])
		second, ok6 := digits(b[17:19])
		nano, ok7 := 0, true
		if n > 20 {
			frac := b[20 : n-1]
			if ok7 = b[19] == '.' && len(frac) > 0 && len(frac) <= 9; ok7 {
				nano, ok7 = digits(frac)
				for range 9 - len(frac) {
					nano *= 10
				}
			}
		}
		if ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7 && month >= 1 && month <= 12 && day >= 1 && day <= 31 && hour < 24 && minute < 60 && second < 61 {
			return time.Date(year, time.Month(month), day, hour, minute, second, nano, time.UTC).UnixNano(), true
		}
		return 0, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	return t.UnixNano(), err == nil
}

func digits(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// pod is what the name of a directory says.
type pod struct{ namespace, name, uid string }

// parsePod reads "<namespace>_<pod>_<uid>"; none of the three has an underscore.
func parsePod(dir string) (pod, bool) {
	f := strings.Split(dir, "_")
	if len(f) != 3 || f[0] == "" || f[1] == "" || f[2] == "" {
		return pod{}, false
	}
	return pod{f[0], f[1], f[2]}, true
}

// isAttempt tells whether the name of a position is an attempt's.
func isAttempt(file string) bool {
	parts := strings.Split(file, "/")
	if len(parts) != 3 {
		return false
	}
	_, isPod := parsePod(parts[0])
	_, isNumber := digits([]byte(parts[2]))
	return isPod && isNumber
}

// parseFile reads "<attempt>.log" and "<attempt>.log.<anything>". rotated is
// empty for the file that is being written. Compressed and half-made copies are
// not log files.
func parseFile(name string) (attempt, rotated string, ok bool) {
	attempt, rotated, ok = strings.Cut(name, ".log")
	if !ok || attempt == "" || rotated != "" && (rotated[0] != '.' || len(rotated) == 1) ||
		strings.HasSuffix(rotated, ".gz") || strings.HasSuffix(rotated, ".tmp") {
		return "", "", false
	}
	if _, ok := digits([]byte(attempt)); !ok {
		return "", "", false
	}
	return attempt, rotated, true
}

const printBytes = 64 // at most, of a file's first line, are its fingerprint

// fingerprint tells files apart that had the same inode one after the other:
// the first line begins with a time stamp. It does not change as files grow.
func fingerprint(head []byte) uint64 {
	head = head[:min(len(head), printBytes)]
	if n := bytes.IndexByte(head, '\n'); n >= 0 {
		head = head[:n+1]
	}
	h := fnv.New64a()
	_, _ = h.Write(head) // a hash never fails
	return h.Sum64()
}
