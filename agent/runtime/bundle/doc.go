// Package bundle carries the helper programs inside the perch binary: the shim
// (which is the CNI plugin as well), runc and the pause image.
//
// It owns the folder D/bin/<sha256>/: Open writes it once, atomically, and never
// changes it again, because containers' shims run from there for as long as the
// containers live. It never starts anything but "runc features" and decides
// nothing silently: which runc was taken and whether it can filter system calls
// is in what Open returns.
//
//	h, err := bundle.Open("/data/bin", log)   // h.Shim, h.CNI, h.Runc, h.PauseImage, h.Seccomp, h.Why
//
// In git the embedded folder bin holds a placeholder only; "make helpers" fills
// it. A perch built without looks beside itself and on PATH.
//
// Start reading at Open in bundle.go, then chooseRunc in decide.go.
package bundle
