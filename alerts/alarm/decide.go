package alarm

import (
	"fmt"
	"slices"
	"time"
)

// maxWatchers is how many workers know the receivers and would tell.
const maxWatchers = 3

// Watchers are those of the workers that watch the server: the first ones by
// name. Few, so that an outage is told a few times and not by every node, and few
// machines hold the secrets of receivers.
func Watchers(workers []string) []string {
	names := slices.Sorted(slices.Values(workers))
	return names[:min(len(names), maxWatchers)]
}

// Act is what a watcher does.
type Act string

// Acts.
const (
	Wait    Act = "wait"
	Tell    Act = "tell"    // that the server is gone, also again
	Resolve Act = "resolve" // it is back
)

// View is what a watcher knows.
type View struct {
	Now      time.Time
	Answered time.Time // the server's last answer, or when this process began
	Heard    bool      // the newest question was answered
	Firing   bool      // this node has told, and not the end
	Told     Told
}

// Decide says what to do and why.
func Decide(v View, patience time.Duration) (Act, string) {
	silent := v.Now.Sub(v.Answered)
	switch {
	case v.Firing && v.Heard:
		return Resolve, "the server answers again"
	case v.Firing:
		return Tell, "the server is still silent"
	case silent < patience:
		return Wait, "the server has answered lately"
	case v.Told.Config == "":
		return Wait, "this node was told no receivers"
	case v.Now.Before(v.Told.SilencedUntil):
		return Wait, "silenced until " + v.Told.SilencedUntil.UTC().Format(time.RFC3339)
	}
	return Tell, fmt.Sprintf("no answer for %s", silent.Round(time.Second))
}
