package pod

import "time"

// Back-off between attempts, as users of Kubernetes know it.
const (
	backoffFirst = 10 * time.Second
	backoffLast  = 5 * time.Minute
	backoffReset = 10 * time.Minute // an attempt that lived this long was a good one
)

// restart says when an ended container may start again and what the attempt
// after that will have to wait. The first restart is immediate.
func restart(last *Container) (at time.Time, next time.Duration) {
	lived := last.FinishedAt.Sub(last.CreatedAt)
	if last.Backoff == 0 || lived >= backoffReset {
		return last.FinishedAt, backoffFirst
	}
	return last.FinishedAt.Add(last.Backoff), min(2*last.Backoff, backoffLast)
}
