package share

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
)

// Paths of what a store answers to the server, below its prefix.
const (
	readPath     = "/read"      // Prometheus' remote read
	labelsPath   = "/labels"    // labelsQuestion → []string
	examplesPath = "/exemplars" // examplesQuestion → []exampled
	statusPath   = "/status"    // status
)

// At once a store answers this many reads, in frames of this many bytes; a read
// without streaming, which the server does not do, may have this many samples.
const (
	readsAtOnce = 16
	frameBytes  = 1 << 20
	readSamples = 5_000_000
)

// labelsQuestion asks for the names of labels, or for the values of one.
type labelsQuestion struct {
	Name     string            `json:"name,omitempty"`
	From     int64             `json:"from"` // ms
	To       int64             `json:"to"`
	Limit    int               `json:"limit,omitempty"`
	Matchers []*labels.Matcher `json:"matchers,omitempty"`
}

// examplesQuestion asks for exemplars of series that one of the lists selects.
type examplesQuestion struct {
	From     int64               `json:"from"` // ms
	To       int64               `json:"to"`
	Matchers [][]*labels.Matcher `json:"matchers"`
}

// exampled is a series with its exemplars, oldest first.
type exampled struct {
	Series labels.Labels `json:"series"`
	Of     []example     `json:"of"`
}

type example struct {
	With labels.Labels `json:"with"`
	T    int64         `json:"t"`    // ms
	Bits uint64        `json:"bits"` // of the value, because JSON has no infinity
}

// status is what a store tells of itself.
type status struct {
	Oldest int64 `json:"oldest"` // ms, of its oldest sample
}

// database is a store to be asked.
type database interface {
	storage.SampleAndChunkQueryable
	storage.ExemplarQueryable
	StartTime() (int64, error)
}

// Serve answers a server's questions about a store. Whoever comes here sees all
// of it.
func Serve(db database, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	read := remote.NewReadHandler(log, nil, db, func() config.Config { return config.DefaultConfig }, readSamples, readsAtOnce, frameBytes)
	mux.HandleFunc("POST "+readPath, func(w http.ResponseWriter, r *http.Request) { read.ServeHTTP(&cutOff{ResponseWriter: w, log: log}, r) })
	mux.HandleFunc("POST "+labelsPath, func(w http.ResponseWriter, r *http.Request) {
		var ask labelsQuestion
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&ask); err != nil {
			http.Error(w, "read question: "+err.Error(), http.StatusBadRequest)
			return
		}
		ms, err := made(ask.Matchers)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		q, err := db.Querier(ask.From, ask.To)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer q.Close()
		var out []string
		if hints := (&storage.LabelHints{Limit: ask.Limit}); ask.Name == "" {
			out, _, err = q.LabelNames(r.Context(), hints, ms...)
		} else {
			out, _, err = q.LabelValues(r.Context(), ask.Name, hints, ms...)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, out)
	})
	mux.HandleFunc("POST "+examplesPath, func(w http.ResponseWriter, r *http.Request) {
		var ask examplesQuestion
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&ask); err != nil {
			http.Error(w, "read question: "+err.Error(), http.StatusBadRequest)
			return
		}
		var sets [][]*labels.Matcher
		for _, list := range ask.Matchers {
			ms, err := made(list)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			sets = append(sets, ms)
		}
		q, err := db.ExemplarQuerier(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		found, err := q.Select(ask.From, ask.To, sets...)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, sent(found))
	})
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) {
		oldest, err := db.StartTime()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, status{oldest})
	})
	return mux
}

// cutOff ends an answer whose making failed after it was begun: the library's handler
// would write the error's text among the frames.
type cutOff struct {
	http.ResponseWriter
	log           *slog.Logger
	begun, failed bool
}

// Unwrap is for http.ResponseController.
func (c *cutOff) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Flush sends a frame.
func (c *cutOff) Flush() { _ = http.NewResponseController(c.ResponseWriter).Flush() } // as the library expects: no error to tell

func (c *cutOff) WriteHeader(status int) {
	if c.begun {
		c.failed = true
		return
	}
	c.begun = true
	c.ResponseWriter.WriteHeader(status)
}

func (c *cutOff) Write(p []byte) (int, error) {
	if c.failed {
		c.log.Warn("read of series was cut off", "err", strings.TrimSpace(string(p)))
		panic(http.ErrAbortHandler)
	}
	c.begun = true
	return c.ResponseWriter.Write(p)
}

// made compiles matchers that came as JSON.
func made(in []*labels.Matcher) (out []*labels.Matcher, _ error) {
	for _, m := range in {
		if m == nil {
			return nil, fmt.Errorf("read question: a matcher is null")
		}
		whole, err := labels.NewMatcher(m.Type, m.Name, m.Value)
		if err != nil {
			return nil, fmt.Errorf("read question: %w", err)
		}
		out = append(out, whole)
	}
	return out, nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker is gone if this fails
}
