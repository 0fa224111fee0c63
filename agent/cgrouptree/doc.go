// Package cgrouptree makes cgroups, in every hierarchy of the machine, be it
// cgroup v1, hybrid or v2: those around pods,
// /ROOT/{guaranteed,burstable,besteffort}/pod<uid>, and leaves for perch's own
// processes. The runtime makes the groups of containers below the pods', the
// agent gives the limits of the whole pod.
//
// It owns the directories of pods and their limits; it moves no process, but for
// those that sit in the root of a cgroup namespace, where v2 lets nothing be
// limited beside them. It never touches /ROOT/system but to make leaves there.
// Groups of classes get the CPU shares of their pods together.
//
//	t, err := cgrouptree.Open("/sys/fs/cgroup", "/perch-x")
//	parent, err := t.Make(class, uid, limits)
//	err = t.Remove(uid)
//	err = t.RemoveAll() // of a node that is down for good
//	dirs, err := cgrouptree.MakeLeaf("/sys/fs/cgroup", "/perch-x/system/agent")
//
// Start reading at Make in tree.go, then make in hierarchy.go.
package cgrouptree
