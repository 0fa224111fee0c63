// Bench measures a whole perch on this machine and prints one table. Run it by
// `make bench`: it needs root, builds nothing but what go test builds for its
// own benchmarks, and takes a few minutes.
//
// It owns a cluster of its own (name, ports, networks and data directory
// differ from the defaults) and removes it at the end, also when it fails.
// Costs are CPU seconds of whole processes as the kernel accounts them, and
// proportional set sizes: both hold on a busy machine. Waiting times do not;
// the table's head says how busy the machine was.
//
// It never judges: budgets stand beside the figures.
//
// Start reading at run in main.go.
package main
