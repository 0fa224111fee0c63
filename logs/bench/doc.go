// Command bench measures the log store: CPU seconds, bytes on disk and memory of
// a process that is nothing but the store and its Fluent Forward door, while
// another process sends it lines of package lines; and what the same machine
// needs at least, measured in the same run; and what a copy on another node costs
// besides. The measured process has the memory of a role of perch: GOGC is 50
// unless it is set.
//
//	go run ./logs/bench -lines 5000000
//
// Start reading at main in main.go; the measured process is in child.go, those of a
// copy in copy.go.
package main
