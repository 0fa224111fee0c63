package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
func convert[To, From route.Alert | evidence.Alert](in []From) []To {
	out := make([]To, len(in))
	for i, a := range in {
		out[i] = To(a)
	}
	return out
}

// byRules are alerts as the rules tell them. Whoever may write a rule may not say
// that somebody else told its alert.
func byRules(in []rule.Alert) []evidence.Alert {
	out := make([]evidence.Alert, len(in))
	for i, a := range in {
		notes := maps.Clone(a.Annotations)
		delete(notes, evidence.From)
		out[i] = evidence.Alert{Labels: a.Labels, Annotations: notes, Starts: a.Starts, Ends: a.Ends, Source: a.Source}
	}
	return out
}

// byOthers are alerts that a caller of the API tells, with its name.
func byOthers(ctx context.Context, in []route.Alert) []evidence.Alert {
	out := convert[evidence.Alert](in)
	who := cmp.Or(door.UserOf(ctx).Name, "somebody")
	for i := range out {
		out[i].Annotations[evidence.From] = who
	}
	return out
}

// outside are the alerts that fire now and that no rule makes, as they were told:
// who may read the numbers of a namespace may not read the lines and deeds that
// belong to them.
func outside(all []route.Alert, now time.Time) []promapi.Alert {
	var out []promapi.Alert
	for _, a := range all {
		if a.Annotations[evidence.From] != "" && a.Ends.After(now) && !a.Starts.After(now) {
			out = append(out, promapi.Alert{Labels: a.Labels, Annotations: evidence.Told(a.Annotations), ActiveAt: a.Starts})
		}
	}
	return out
}

// lookups are this server's numbers and the cluster's lines.
func lookups(prom *promapi.API, lines *lines) evidence.Sources {
	return evidence.Sources{
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
}

// history keeps a record of what happened to an alert beside the lines.
type history func(context.Context, record.Record)

func (l *lines) keep(ctx context.Context, what record.Record) error {
	return l.total.Append(ctx, []record.Record{what}, nil)
}

// newCourier brings alerts with their evidence to the router and keeps their history.
func newCourier(r role, router *route.Router, from evidence.Sources, keep history, page *url.URL) *evidence.Courier {
	return evidence.New(evidence.Default(page), from, convert[evidence.Alert](router.Active()),
		func(ctx context.Context, in ...evidence.Alert) error {
			return router.Receive(ctx, convert[route.Alert](in)...)
		},
		func(ctx context.Context, t evidence.Transition) { keep(ctx, alertRecord(t)) }, r.part("evidence"), r.reg)
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
	if from := t.Annotations[evidence.From]; from != "" {
		out.Fields = append(out.Fields, record.Field{Key: "from", Value: from})
	}
	for _, k := range slices.Sorted(maps.Keys(t.Labels)) {
		out.Fields = append(out.Fields, record.Field{Key: k, Value: t.Labels[k]})
	}
	return out
}

func alertStream(l map[string]string) *record.Stream {
	return &record.Stream{Namespace: l["namespace"], Pod: l["pod"], Container: l["container"], Node: l["node"], Output: record.Event, Kind: kindAlert}
}

// problems lists the rules that are not in force and why.
func (a *alerts) problems(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string][]rule.Problem{"problems": append([]rule.Problem{}, a.rules.Problems()...)}) // the asker is gone if this fails
}
