// Command bench measures the log store: CPU seconds, bytes on disk and memory of
// a process that is nothing but the store and its Fluent Forward door, while
// another process sends it lines of package lines; and what the same machine
// needs at least, measured in the same run.
//
//	go run ./logs/bench -lines 5000000
//
// Start reading at main in main.go; the measured process is in child.go.
package main
