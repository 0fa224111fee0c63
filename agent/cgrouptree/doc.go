// Package cgrouptree keeps the cgroups around pods:
// /ROOT/{guaranteed,burstable,besteffort}/pod<uid>, in every hierarchy of the
// machine, be it cgroup v1, hybrid or v2. The runtime makes the groups of
// containers below them, the agent gives the limits of the whole pod.
//
// It owns those directories and their limits; it moves no process, and never
// touches /ROOT/system, where perch's own processes live. Groups of classes get
// the CPU shares of their pods together.
//
//	t, err := cgrouptree.Open("/sys/fs/cgroup", "/perch-x")
//	parent, err := t.Make(class, uid, limits)
//	err = t.Remove(uid)
//	err = t.RemoveAll() // of a node that is down for good
//
// Start reading at Make in tree.go.
package cgrouptree
