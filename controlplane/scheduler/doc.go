// Package scheduler gives each waiting pod a node, or says why no node will do.
//
// It owns pods/binding and the pod condition PodScheduled. It never evicts:
// priority orders the queue, but nothing is preempted for a pod that does not fit.
// One goroutine decides; up to Config.Binders binds are on their way at once,
// counted against their nodes from the moment of the decision (assumed), so rapid
// binds cannot overcommit.
//
//	s, err := scheduler.New(scheduler.Default(), client, informers, recorder.Tell, log, reg)
//	group.Go("scheduler", s.Run)
//
// Filters (filter_*.go) answer with the reason why a node is out; scores
// (score.go) rank the rest; Explain words the refusal as kubectl users know it.
// Limits: the queue holds each waiting pod once (perch_scheduler_queue_length).
// A pod that does not fit waits for a relevant change or five minutes, with a
// back-off of 1 s doubling to 10 s.
//
// Start reading at Run in run.go; the decision is Decide in decide.go.
package scheduler
