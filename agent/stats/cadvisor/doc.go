// Package cadvisor asks the cAdvisor library what the machine is: processors,
// memory, its name. Its test runs the rest of the library, set as kubelet sets it,
// beside agent/stats over the same real cgroups, and compares names and labels
// of the series.
//
// It is a package of its own because the library registers flags and factories
// globally: a program that does not import it stays free of them.
//
//	stats.Parts{Machine: cadvisor.Machine}
//
// Start reading at Machine; the comparison is TestBesideTheLibrary.
package cadvisor
