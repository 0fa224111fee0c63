// Package controller keeps objects in the shape other objects ask for: one file
// pair per kind, KIND_decide.go (pure) and KIND_run.go (reads and writes).
//
// It owns the parts of objects listed in each controller's Writes (ownership.go
// prints the table, a test proves one writer per part). It never talks to nodes,
// never schedules, never caches what the informers hold.
//
//	set, err := controller.All(cfg, clients, informers, recorder.Tell, log, reg)
//	group.Go("controllers", set.Run)   // blocks until the term ends
//
// All only registers its needs with the informer factory; run
// reconcile.Informers(factory) (or factory.Start) before Set.Run. Build factory,
// Set, scheduler, autoscaler and nodelife anew for each leader term.
//
// Start reading at All in all.go, then any KIND_decide.go.
package controller
