package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// maxLetters bounds the inbox; the oldest go.
const maxLetters = 200

type letter struct {
	At   time.Time       `json:"at"`
	Body json.RawMessage `json:"body"`
}

// inbox keeps what alert webhooks bring.
type inbox struct {
	log *slog.Logger

	mu      sync.Mutex
	letters []letter
}

func newInbox(log *slog.Logger) *inbox { return &inbox{log: log} }

func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		for _, l := range b.letters {
			if enc.Encode(l) != nil {
				return // the reader is gone
			}
		}
	case http.MethodPost:
		var body json.RawMessage
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&body); err != nil {
			http.Error(w, "send JSON: "+err.Error(), http.StatusBadRequest)
			return
		}
		b.letters = append(b.letters, letter{time.Now().UTC(), body})
		if n := len(b.letters) - maxLetters; n > 0 {
			b.letters = b.letters[n:]
		}
		b.log.Info("alert received", "bytes", len(body))
	default:
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}
