package promapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/httputil"
)

// Warned is what an ExemplarQuerier of the store may be, too: Prometheus' interface has
// no place for warnings.
type Warned interface {
	Warnings() annotations.Annotations // of what Select answered
}

// exemplarWarnings is where a request's context has a *annotations.Annotations that
// takes the warnings of its answer.
type exemplarWarnings struct{}

// exemplars puts into the answer with exemplars, where other answers have them too,
// the warnings that something may be missing.
func exemplars(w http.ResponseWriter, r *http.Request, next http.Handler) {
	var say annotations.Annotations
	ask := r.Clone(context.WithValue(r.Context(), exemplarWarnings{}, &say))
	ask.Header.Del("Accept-Encoding") // the answer is read here
	a := &answer{header: http.Header{}, code: http.StatusOK}
	next.ServeHTTP(a, ask)
	if len(say) > 0 && a.code == http.StatusOK {
		if err := a.warn(say); err != nil {
			answerError(w, http.StatusInternalServerError, "internal", err.Error())
			return
		}
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	httputil.CompressionHandler{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { a.send(w) })}.ServeHTTP(w, r)
}

// warn adds warnings to an answer of Prometheus' shape.
func (a *answer) warn(say annotations.Annotations) error {
	var body struct {
		Status   string          `json:"status"`
		Data     json.RawMessage `json:"data,omitempty"`
		Warnings []string        `json:"warnings"`
	}
	if err := json.Unmarshal(a.body.Bytes(), &body); err != nil {
		return fmt.Errorf("read the answer that is to be warned of: %w", err)
	}
	body.Warnings, _ = say.AsStrings("", 0, 0)
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("write the answer with its warnings: %w", err)
	}
	a.body.Reset()
	_, err = a.body.Write(text)
	return err
}
