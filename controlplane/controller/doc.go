// Package controller keeps objects in the shape other objects ask for: one file
// pair per kind, KIND_decide.go (pure) and KIND_run.go (reads and writes).
//
// It owns the parts of objects listed in each controller's Writes (ownership.go
// prints the table, a test proves one writer per part). It never talks to nodes,
// never schedules, never caches what the informers hold.
//
//	factory := reconcile.NewInformers(client)
//	set, err := controller.All(cfg, clients, factory, recorder.Tell, log, reg)
//	group.Go("informers", reconcile.RunInformers(factory)) // after all users of factory were built
//	group.Go("controllers", set.Run)
//
// All only registers its needs with the factory. Build factory, Set, scheduler,
// autoscaler and nodelife anew for each leader term, each with a fresh registry
// (or unregister), because each New registers its metrics once.
//
// Start reading at All in all.go, then any KIND_decide.go.
package controller
