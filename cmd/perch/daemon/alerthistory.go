package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"perch/alerts/evidence"
	"perch/alerts/route"
	"perch/alerts/rule"
	"perch/cmd/perch/daemon/door"
	"perch/logs/query"
	"perch/logs/record"
	"perch/metrics/promapi"
)

// kindAlert is the kind of the records that tell what happened to alerts:
// kind:alert in a query of logs.
const kindAlert = "alert"

// convert turns alerts of one package into those of another; the shape is one.
func convert[To, From rule.Alert | route.Alert | evidence.Alert](in []From) []To {
	out := make([]To, len(in))
	for i, a := range in {
		out[i] = To(a)
	}
	return out
}

// newCourier looks up evidence in this server's numbers and the cluster's lines
// and keeps the history of alerts beside the lines.
func newCourier(r role, router *route.Router, prom *promapi.API, lines *lines, page *url.URL) *evidence.Courier {
	log := r.part("evidence")
	from := evidence.Sources{
		Lines: func(ctx context.Context, text string, from, to time.Time, limit int) ([]evidence.Line, error) {
			var out []evidence.Line
			_, err := lines.search.Query(ctx, query.Request{Text: text, From: from.UnixNano(), To: to.UnixNano(), Limit: limit, Order: query.NewestFirst, Timeout: time.Second}, func(l *query.Line) error {
				out = append(out, evidence.Line{Time: time.Unix(0, l.Time), Text: string(l.Body)})
				return nil
			})
			slices.Reverse(out)
			return out, err
		},
		Values: func(ctx context.Context, expr string, at time.Time) ([]evidence.Value, error) {
			v, _, err := prom.Instant(promapi.WithAccess(ctx, promapi.Everything()), expr, at)
			out := make([]evidence.Value, len(v))
			for i, s := range v {
				out[i] = evidence.Value{Labels: s.Metric.Map(), Value: s.F}
			}
			return out, err
		},
	}
	return evidence.New(evidence.Default(page), from, convert[evidence.Alert](router.Active()),
		func(ctx context.Context, in ...evidence.Alert) error {
			return router.Receive(ctx, convert[route.Alert](in)...)
		},
		func(ctx context.Context, t evidence.Transition) {
			if err := lines.total.Append(ctx, []record.Record{alertRecord(t)}, nil); err != nil {
				log.Warn("history of an alert was not stored", "alert", t.Labels["alertname"], "err", err)
			}
		}, log, r.reg)
}

// alertRecord is the beginning or end of an alert as a line, between those of
// the pod it is about.
func alertRecord(t evidence.Transition) record.Record {
	state, level := "resolved", record.Info
	if t.Firing {
		state, level = "firing", record.Warn
		if t.Labels["severity"] == "critical" {
			level = record.Error
		}
	}
	out := record.Record{Time: t.At.UnixNano(), Level: level, Stream: alertStream(t.Labels),
		Body: []byte(t.Labels["alertname"] + " " + state + ": " + cmp.Or(t.Annotations["summary"], t.Annotations["description"], t.Annotations["message"]))}
	out.Fields = append(out.Fields, record.Field{Key: "state", Value: state})
	if !t.Firing {
		out.Fields = append(out.Fields, record.Field{Key: "seconds", Value: strconv.Itoa(int(t.At.Sub(t.Starts).Seconds()))})
	}
	for _, k := range slices.Sorted(maps.Keys(t.Labels)) {
		out.Fields = append(out.Fields, record.Field{Key: k, Value: t.Labels[k]})
	}
	return out
}

func alertStream(l map[string]string) *record.Stream {
	return &record.Stream{Namespace: l["namespace"], Pod: l["pod"], Container: l["container"], Node: l["node"], Output: record.Event, Kind: kindAlert}
}

// silence is what the API says and takes.
type silence struct {
	ID       string `json:"id"`
	Comment  string `json:"comment"`
	By       string `json:"createdBy"`
	EndsAt   string `json:"endsAt"`
	Matchers []struct {
		Name    string `json:"name"`
		Value   string `json:"value"`
		IsRegex bool   `json:"isRegex"`
		IsEqual *bool  `json:"isEqual"`
	} `json:"matchers"`
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
func keepSilences(r role, next http.Handler, lines *lines) http.Handler {
	log := r.part("alerts")
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var what silence
		var did string
		switch {
		case req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/api/v2/silences"):
			body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxSilence))
			if err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			if json.Unmarshal(body, &what) == nil {
				did = map[bool]string{true: "silenced", false: "silence changed"}[what.ID == ""]
			}
		case req.Method == http.MethodDelete && strings.Contains(req.URL.Path, "/api/v2/silence/"):
			ask := req.Clone(req.Context())
			ask.Method, ask.Body = http.MethodGet, http.NoBody
			have := &answer{header: http.Header{}, code: http.StatusOK}
			next.ServeHTTP(have, ask)
			if json.Unmarshal(have.body.Bytes(), &what) == nil {
				did = "silence ended"
			}
			what.ID = path.Base(req.URL.Path)
		}
		if did == "" {
			next.ServeHTTP(w, req)
			return
		}
		got := &answer{header: http.Header{}, code: http.StatusOK}
		next.ServeHTTP(got, req)
		if got.code == http.StatusOK {
			who := door.UserOf(req.Context()).Name
			labels := map[string]string{"namespace": what.only("namespace"), "pod": what.only("pod"), "node": what.only("node")}
			line := record.Record{Time: time.Now().UnixNano(), Level: record.Info, Stream: alertStream(labels), Body: []byte(what.text() + " " + did + " by " + who + ": " + what.Comment)}
			for _, f := range []record.Field{{Key: "state", Value: did}, {Key: "who", Value: who}, {Key: "as", Value: what.By}, {Key: "why", Value: what.Comment},
				{Key: "until", Value: what.EndsAt}, {Key: "silence", Value: what.ID}, {Key: "alertname", Value: what.only("alertname")}} {
				if f.Value != "" {
					line.Fields = append(line.Fields, f)
				}
			}
			if err := lines.total.Append(req.Context(), []record.Record{line}, nil); err != nil {
				log.Warn("history of a silence was not stored", "who", who, "what", what.text(), "err", err)
			}
		}
		maps.Copy(w.Header(), got.header)
		w.WriteHeader(got.code)
		_, _ = w.Write(got.body.Bytes()) // the client is gone otherwise
	})
}

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// problems lists the rules that are not in force and why.
func (a *alerts) problems(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string][]rule.Problem{"problems": append([]rule.Problem{}, a.rules.Problems()...)}) // the asker is gone if this fails
}
