package alarm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Told is what the server tells a watcher.
type Told struct {
	Config        string    `json:"config"`              // in Alertmanager's format; empty: this node is no watcher
	Templates     []string  `json:"templates,omitempty"` // texts, beside it
	SilencedUntil time.Time `json:"silencedUntil,omitzero"`
}

// maxTold bounds an answer; a Secret holds no more either.
const maxTold = 1 << 20

// maxWhy bounds what is told of a refusal.
const maxWhy = 300

// Path of the question at the server.
const Path = "/perch/v1/alarm"

// Handler answers nodes what told says about them, and nothing anew to one that
// has it.
func Handler(told func(*http.Request) (Told, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		t, err := told(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		text, err := json.Marshal(t)
		if err == nil && len(text) > maxTold {
			err = fmt.Errorf("the configuration has %d bytes, a watcher takes %d", len(text), maxTold)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sum := sha256.Sum256(text)
		tag := `"` + hex.EncodeToString(sum[:12]) + `"`
		w.Header().Set("ETag", tag)
		if req.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // the asker is gone otherwise
	})
}

// Asker asks a server. have is the tag of what is known.
type Asker func(ctx context.Context, have string) (answer Answer, err error)

// Answer of a server; without New nothing has changed, or it could not say. An
// error of Asker means that the server did not answer at all.
type Answer struct {
	New     *Told
	Tag     string
	Problem string // why it could not say
}

// Ask is an Asker over HTTP. Any answer is a sign of life, also a refusal.
func Ask(client *http.Client, server string) Asker {
	return func(ctx context.Context, have string) (Answer, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+Path, nil)
		if err != nil {
			return Answer{}, fmt.Errorf("ask server: %w", err)
		}
		if have != "" {
			req.Header.Set("If-None-Match", have)
		}
		resp, err := client.Do(req)
		if err != nil {
			return Answer{}, fmt.Errorf("ask server: %w", err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxTold+1))
		if err != nil {
			return Answer{}, fmt.Errorf("ask server: %w", err)
		}
		switch {
		case resp.StatusCode == http.StatusNotModified:
			return Answer{Tag: have}, nil
		case resp.StatusCode != http.StatusOK:
			return Answer{Tag: have, Problem: resp.Status + ": " + strings.TrimSpace(string(text[:min(len(text), maxWhy)]))}, nil
		case len(text) > maxTold:
			return Answer{Tag: have, Problem: fmt.Sprintf("more than %d bytes", maxTold)}, nil
		}
		var t Told
		if err := json.Unmarshal(text, &t); err != nil {
			return Answer{Tag: have, Problem: err.Error()}, nil
		}
		return Answer{New: &t, Tag: resp.Header.Get("ETag")}, nil
	}
}
