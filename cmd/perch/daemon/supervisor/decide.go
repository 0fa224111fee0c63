package supervisor

import "time"

// Steady is how long a role must run for its next exit to count as the first.
const Steady = 10 * time.Second

// maxDelay bounds the pause between restarts of a role that keeps failing.
const maxDelay = 10 * time.Second

// Delay says how long to wait before a role starts again after quick exits in
// a row (exits of runs shorter than Steady, this one included). The first four
// restarts come within two seconds, so that a killed role is back at once; a
// role that cannot run costs at most one start in ten seconds.
func Delay(quick int) time.Duration {
	switch {
	case quick <= 1:
		return 50 * time.Millisecond
	case quick <= 4:
		return time.Second
	default:
		return min(maxDelay, time.Duration(quick-3)*time.Second)
	}
}
