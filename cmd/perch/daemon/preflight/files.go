package preflight

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What the agent opens, measured with cgroup version 1, which takes most: files
// for each pod, and files for itself.
const (
	filesPerPod = 37
	filesBase   = 150
	podsWanted  = 110 // agent.Default().MaxPods
)

// openFiles warns when a role may not open enough files. Roles raise their soft
// limit to the hard one themselves, as all Go programs do.
func openFiles() []string {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil // not known; nothing is gained by doubting
	}
	return enoughFiles(limit.Max)
}

func enoughFiles(hard uint64) []string {
	if hard >= filesBase+podsWanted*filesPerPod {
		return nil
	}
	pods := 0
	if hard > filesBase {
		pods = int(hard-filesBase) / filesPerPod
	}
	return []string{fmt.Sprintf("the limit of open files is %d, enough for about %d pods on this node: raise it, for example with `ulimit -Hn %d` or LimitNOFILE= in a service's unit",
		hard, pods, 1<<16)}
}
