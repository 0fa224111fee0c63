package daemon

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"perch/cmd/perch/daemon/door"
	"perch/logs/record"
)

// silence is what the API says and takes.
type silence struct {
	ID       string    `json:"id"`
	Comment  string    `json:"comment"`
	By       string    `json:"createdBy"`
	StartsAt string    `json:"startsAt"`
	EndsAt   string    `json:"endsAt"`
	Matchers []matcher `json:"matchers"`
	Status   struct {
		State string `json:"state"`
	} `json:"status"` // of an answer
}

// matcher is what a silence demands of one label.
type matcher struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	IsRegex bool   `json:"isRegex"`
	IsEqual *bool  `json:"isEqual"` // nil: true
}

func (s silence) text() string {
	var out []string
	for _, m := range s.Matchers {
		op := map[[2]bool]string{{false, true}: "=", {false, false}: "!=", {true, true}: "=~", {true, false}: "!~"}[[2]bool{m.IsRegex, m.IsEqual == nil || *m.IsEqual}]
		out = append(out, m.Name+op+`"`+m.Value+`"`)
	}
	return strings.Join(out, ", ")
}

// only is the value that the silence demands of a label, if it does.
func (s silence) only(label string) string {
	for _, m := range s.Matchers {
		if m.Name == label && !m.IsRegex && (m.IsEqual == nil || *m.IsEqual) {
			return m.Value
		}
	}
	return ""
}

// maxSilence limits the body of a silence.
const maxSilence = 1 << 20

// keepSilences writes who silenced what, why and until when into the history.
// The user is the one the door knows, not the name in the body.
func keepSilences(next http.Handler, keep history) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var what silence
		var did string
		asked := path.Clean(req.URL.Path) // the API takes a slash at the end too
		switch {
		case req.Method == http.MethodPost && strings.HasSuffix(asked, "/api/v2/silences"):
			body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxSilence))
			if err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			if json.Unmarshal(body, &what) == nil {
				did = map[bool]string{true: "silenced", false: "silence changed"}[what.ID == ""]
			}
		case req.Method == http.MethodDelete && strings.Contains(asked, "/api/v2/silence/"):
			ask := req.Clone(req.Context())
			ask.Method, ask.Body = http.MethodGet, http.NoBody
			have := &answer{header: http.Header{}, code: http.StatusOK}
			next.ServeHTTP(have, ask)
			if json.Unmarshal(have.body.Bytes(), &what) == nil && what.Status.State != "expired" { // else it was over before, and the answer is the same
				did = "silence ended"
			}
			what.ID = path.Base(asked)
		}
		if did == "" {
			next.ServeHTTP(w, req)
			return
		}
		got := &answer{header: http.Header{}, code: http.StatusOK}
		next.ServeHTTP(got, req)
		if got.code == http.StatusOK {
			var made struct {
				ID string `json:"silenceID"` // a change of what is in force makes a new one and ends the old
			}
			_ = json.Unmarshal(got.body.Bytes(), &made) // an end has no body
			keep(req.Context(), silenceRecord(what, made.ID, did, door.UserOf(req.Context()).Name, time.Now()))
		}
		got.send(w, got.body.Bytes())
	})
}

// silenceRecord is what somebody did to a silence as a line, or what became of it when
// who is empty. made is its id if the deed made one.
func silenceRecord(what silence, made, did, who string, at time.Time) record.Record {
	id, replaced := cmp.Or(made, what.ID), ""
	if id != what.ID {
		replaced = what.ID
	}
	labels := map[string]string{"namespace": what.only("namespace"), "pod": what.only("pod"), "container": what.only("container"), "node": what.only("node")}
	by := ""
	if who != "" {
		by = " by " + who
	}
	out := record.Record{Time: at.UnixNano(), Level: record.Info, Stream: alertStream(labels), Body: []byte(what.text() + " " + did + by + ": " + what.Comment)}
	for _, f := range []record.Field{{Key: "state", Value: did}, {Key: "who", Value: who}, {Key: "as", Value: what.By}, {Key: "why", Value: what.Comment},
		{Key: "since", Value: what.StartsAt}, {Key: "until", Value: what.EndsAt}, {Key: "silence", Value: id}, {Key: "replaces", Value: replaced}, {Key: "alertname", Value: what.only("alertname")}} {
		if f.Value != "" {
			out.Fields = append(out.Fields, f)
		}
	}
	return out
}
