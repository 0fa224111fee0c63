// Command soak runs perch for long, on a cluster of its own: `make soak`.
//
//	latency  50 pods write lines: how late each is in a live tail and in a search
//	pods     10,000 real pods that live 100 ms: every line is stored once, and
//	         memory, goroutines, open files and series return to what they were
//	quiet    half an hour of a healthy cluster in which no alert fires
//
// SOAK=pods,quiet chooses. Progress is printed; a figure that is missed makes
// the exit code 1. The same number of pods through a fake runtime is a test of
// this package. Start reading at run in main.go.
package main
