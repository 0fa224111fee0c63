// Package whole holds tests of the agent on the embedded runtime: real
// containers, real cgroups, real mounts, against an API in memory. It has no
// code of its own.
//
// Start reading at TestWhole in whole_test.go.
package whole
