// Package cgroup reads the hot numbers of a cgroup: cpu, throttling, memory,
// OOM kills, tasks, pressure. It keeps the files open and reads each with one
// pread, which costs a twentieth of opening and reading all files of all
// controllers.
//
// It parses and nothing else: no names of pods, no series, no goroutines, no
// writes. It knows three layouts: Separate (v1, a hierarchy per controller),
// Hybrid (the same with a v2 tree at "unified" that has the pressure files) and
// Unified (v2).
//
// Wiring:
//
//	tree, err := cgroup.Detect("/sys/fs/cgroup")
//	r, err := tree.Open("/perch-x/burstable/podUID/ID")
//	err = r.Read(&use)      // ErrGone once the cgroup is removed
//	names, err := tree.Children("/perch-x")
//
// A Reader is for one goroutine; a Tree may be shared.
//
// Start reading at Read in reader.go, then parse.go.
package cgroup
