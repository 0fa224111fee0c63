// Package event says what happened and why, once: one Record becomes a log line,
// a counter and a Kubernetes Event object.
//
// It owns the queue of events on their way to the API server, their aggregation
// (a repeated fact raises the count of one Event) and their limits. It never
// blocks the caller, never retries for longer than a few seconds, and never
// decides anything.
//
//	rec, err := event.New(event.Default(), client.CoreV1(), log, reg)
//	group.Go("event", rec.Run)
//	rec.Tell(event.Record{Component: "scheduler", Object: event.Ref(pod, "v1", "Pod"), Type: event.Normal, Reason: "Scheduled", Message: "…"})
//
// Users take an event.Tell (a func), so that tests collect records in a slice.
// Limits: Config.Queue records wait, Config.Burst records per object then one per
// Config.Refill; what exceeds them is logged and counted, not posted:
// perch_events_dropped_total{reason}.
//
// Start reading at Run in run.go.
package event
