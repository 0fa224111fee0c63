package bundle

import "fmt"

// runc is one OCI runtime that could be used.
type runc struct {
	path     string
	embedded bool
	seccomp  bool
}

func (r runc) String() string {
	where := "system runc " + r.path
	if r.embedded {
		where = "runc of this build"
	}
	if r.seccomp {
		return where + " (filters system calls)"
	}
	return where + " (cannot filter system calls)"
}

// chooseRunc takes the embedded runc if it can filter system calls, else a
// system runc that can, else any. The reason is for the log and for the node's
// condition SeccompUnavailable.
func chooseRunc(have []runc) (runc, string, error) {
	best, bestRank := runc{}, 0
	for _, r := range have {
		rank := 1
		if r.seccomp {
			rank = 3
		}
		if r.embedded {
			rank++
		}
		if rank > bestRank {
			best, bestRank = r, rank
		}
	}
	if bestRank == 0 {
		return runc{}, "", fmt.Errorf("no runc: build perch with \"make build\", or put runc 1.1 or newer on PATH")
	}
	if !best.seccomp {
		return best, fmt.Sprintf("%s, and no other runc on this machine can: seccomp profiles do not apply; install libseccomp-dev and rebuild, or install a system runc", best), nil
	}
	return best, "using " + best.String(), nil
}
