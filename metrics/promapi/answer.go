package promapi

import (
	"bytes"
	"net/http"
)

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// send answers with it; w has its header already.
func (a *answer) send(w http.ResponseWriter) {
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body.Bytes()) // the client is gone otherwise
}
