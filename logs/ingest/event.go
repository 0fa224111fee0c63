package ingest

import (
	"strconv"
	"time"

	"perch/logs/record"
)

// EventValues are what a Kubernetes event says, as plain values.
type EventValues struct {
	Time       time.Time // of the last occurrence
	Namespace  string    // of the object
	Kind       string    // Pod, Deployment, …
	Name       string
	UID        string // of the object
	Type       string // Normal or Warning
	Reason     string
	Message    string
	Source     string // component or controller
	Node       string
	Count      int32
	Container  string // when the event is about one
	Generation string // resource version, to tell repetitions apart
}

// Event makes a record of kind event. Events of a pod carry its name and uid,
// so that they stand between its lines.
func Event(e EventValues) record.Record {
	s := &record.Stream{Namespace: e.Namespace, UID: e.UID, Container: e.Container, Node: e.Node, Output: record.Event, Kind: record.KindEvent}
	if e.Kind == "Pod" {
		s.Pod = e.Name
	}
	level := record.Info
	if e.Type == "Warning" {
		level = record.Warn
	}
	r := record.Record{Time: e.Time.UnixNano(), Stream: s, Level: level, Body: []byte(e.Reason + ": " + e.Message)}
	for _, f := range []record.Field{
		{Key: "object", Value: e.Kind + "/" + e.Name}, {Key: "reason", Value: e.Reason}, {Key: "type", Value: e.Type},
		{Key: "source", Value: e.Source}, {Key: "resource_version", Value: e.Generation},
	} {
		if f.Value != "" {
			r.Fields = append(r.Fields, f)
		}
	}
	if e.Count > 1 {
		r.Fields = append(r.Fields, record.Field{Key: "count", Value: strconv.Itoa(int(e.Count))})
	}
	return r
}
