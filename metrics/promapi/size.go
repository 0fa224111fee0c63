package promapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// The parser's work and stack grow with the square of the nesting, before any
// limit of the engine counts, so a query that no person writes is refused
// unread.
const (
	maxForm    = 1 << 20  // bytes of a request's parameters
	maxBatch   = 32 << 20 // bytes of samples, as they travel
	maxRead    = 1 << 20  // bytes of a remote read's selectors, as they travel and unpacked
	maxReads   = 4        // queries of a remote read; Prometheus sends one
	maxQuery   = 32 << 10 // bytes of one query or selector
	maxNesting = 100      // parentheses, or signs in a row
	maxSigns   = 1000     // operators in all; comparisons do not count
)

// sized refuses queries that are too long or too deep to be parsed.
func sized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/otlp/v1/metrics": // no form
			if err := shallow(w, r); err != nil {
				answerError(w, statusOf(err), "bad_data", err.Error())
				return
			}
			next.ServeHTTP(w, r)
			return
		case "/api/v1/read": // see boundedRead
			next.ServeHTTP(w, r)
			return
		case "/api/v1/write":
			r.Body = http.MaxBytesReader(w, r.Body, maxBatch)
			next.ServeHTTP(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		_ = r.FormValue("query") // reads every kind of form; one that cannot be read is told below
		for _, values := range r.Form {
			for _, v := range values {
				if err := checkSize(v); err != nil {
					answerError(w, http.StatusBadRequest, "bad_data", err.Error())
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// boundedRead refuses remote reads that are too long to be decoded, before anybody looks
// at them.
func boundedRead(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/read" {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRead))
			if err == nil {
				err = checkRead(body)
			}
			if err != nil {
				answerError(w, statusOf(err), "bad_data", "read body: "+err.Error())
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
}

// checkRead lets pass what is malformed: the library's handler tells of it.
func checkRead(body []byte) error {
	if n, err := snappy.DecodedLen(body); err == nil && n > maxRead {
		return fmt.Errorf("%w: more than %d bytes when unpacked", errLarge, maxRead)
	}
	const queries = 1
	raw, most := unpacked(body), maxReads
	if (message{in: map[protowire.Number]message{queries: {bytes: 1}}}).left(raw, most) < 0 {
		return fmt.Errorf("%w: more than %d queries; send them apart", errLarge, most)
	}
	if readRequest().left(raw, maxRead) < 0 {
		return fmt.Errorf("%w: too many matchers", errLarge)
	}
	return nil
}

// errLarge is 413.
var errLarge = errors.New("the request is too large")

// statusOf is the HTTP status of a body that is not taken.
func statusOf(err error) int {
	var large *http.MaxBytesError
	if errors.Is(err, errHeavy) || errors.Is(err, errLarge) || errors.As(err, &large) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// checkSize knows just enough of PromQL to count: strings and comments are
// skipped.
func checkSize(query string) error {
	if len(query) > maxQuery {
		return fmt.Errorf("the query is %d bytes long; %d are allowed", len(query), maxQuery)
	}
	depth, signs, all := 0, 0, 0
	for i := 0; i < len(query); i++ {
		switch c := query[i]; c {
		case '(', '[', '{':
			depth++
			signs = 0
		case ')', ']', '}':
			depth--
			signs = 0
		case '+', '-', '*', '/', '%', '^':
			signs++
			all++
		case ' ', '\t', '\n', '\r':
		case '"', '\'', '`':
			for i++; i < len(query) && query[i] != c; i++ {
				if query[i] == '\\' && c != '`' {
					i++
				}
			}
			signs = 0
		case '#':
			for i < len(query) && query[i] != '\n' {
				i++
			}
		default:
			signs = 0
			if (i == 0 || !wordByte(query[i-1])) && joins(query[i:]) {
				all++
			}
		}
		if depth > maxNesting || signs > maxNesting {
			return fmt.Errorf("position %d: more than %d nested parentheses or signs", i+1, maxNesting)
		}
		if all > maxSigns {
			return fmt.Errorf("position %d: more than %d operators", i+1, maxSigns)
		}
	}
	return nil
}

func wordByte(c byte) bool {
	return c == '_' || c == ':' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// joins says that a set operator begins here.
func joins(rest string) bool {
	for _, w := range []string{"or", "and", "unless", "atan2"} {
		if len(rest) >= len(w) && strings.EqualFold(rest[:len(w)], w) && (len(rest) == len(w) || !wordByte(rest[len(w)])) {
			return true
		}
	}
	return false
}
