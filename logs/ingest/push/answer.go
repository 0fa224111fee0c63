package push

import (
	"context"
	"net/http"
)

// answer is what a request is told. told, if set, must hear whether it was.
type answer struct {
	http.ResponseWriter
	told   func(bool)
	failed bool
}

type answerKey struct{}

func (a *answer) Write(b []byte) (int, error) {
	n, err := a.ResponseWriter.Write(b)
	a.failed = a.failed || err != nil
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// telling watches whether answers reach their senders, as far as this end of the
// connection can see: a sender that gave up has closed it.
func telling(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, done := &answer{ResponseWriter: w}, false
		defer func() {
			if a.told != nil {
				a.told(done && !a.failed && r.Context().Err() == nil)
			}
		}()
		next(a, r.WithContext(context.WithValue(r.Context(), answerKey{}, a)))
		done = true
	})
}
