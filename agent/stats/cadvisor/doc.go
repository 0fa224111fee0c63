// Package cadvisor holds no code: its test runs the cAdvisor library, set as
// kubelet sets it, beside agent/stats over the same real cgroups, and compares
// names and labels of the series.
//
// It is a package of its own because the library registers flags and factories
// globally: a program that does not import it stays free of them.
//
// Start reading at TestBesideTheLibrary.
package cadvisor
