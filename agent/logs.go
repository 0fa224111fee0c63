package agent

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/output"
	"perch/agent/pod"
)

// logsEvery is how often log files are looked at for their size. A container
// that writes 50 MB/s makes files of at most 260 MB so.
const logsEvery = 5 * time.Second

// sweepLogs rotates output that has grown and removes output of pods and
// attempts that are gone, once it is stored elsewhere.
func (a *Agent) sweepLogs(ctx context.Context) error {
	gone := map[string]time.Time{} // directories of deleted pods, since when
	for ctx.Err() == nil {
		pause(ctx, logsEvery)
		if ctx.Err() != nil {
			return nil
		}
		a.rotateLogs(ctx)
		a.removeLogs(ctx, gone, time.Now())
	}
	return nil
}

// rotateLogs looks at the file of every running container.
func (a *Agent) rotateLogs(ctx context.Context) {
	running, err := a.parts.Runtime.ListContainers(ctx, &cri.ContainerFilter{State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		return // the relist counts it
	}
	dirs := a.logDirs()
	for _, c := range running {
		labels := c.GetLabels()
		dir, ok := dirs[types.UID(labels[pod.LabelUID])]
		if !ok {
			continue
		}
		attempt := c.GetMetadata().GetAttempt()
		path := filepath.Join(dir, pod.LogPath(labels[pod.LabelContainer], attempt))
		reopen := func(ctx context.Context) error { return a.parts.Runtime.ReopenContainerLog(ctx, c.GetId()) }
		rotated, removed, err := output.Rotate(ctx, path, a.cfg.LogBytes, a.cfg.LogFiles, time.Now(), reopen, a.parts.Drained, a.parts.Leaving)
		if err != nil && ctx.Err() == nil {
			a.log.Warn("output not rotated", "container", c.GetId(), "err", err)
		}
		if rotated {
			a.metrics.logsRotated.Inc()
		}
		a.countLogs(removed)
		// Attempts older than the one before this are gone from the runtime.
		removed, err = output.RemoveAttempts(ctx, filepath.Dir(path), func(text string) bool {
			n, err := strconv.Atoi(text)
			return err != nil || n+1 >= int(attempt)
		}, a.parts.Drained)
		if err != nil && ctx.Err() == nil {
			a.log.Warn("old output not removed", "container", c.GetId(), "err", err)
		}
		a.countLogs(removed)
	}
}

func (a *Agent) countLogs(r output.Removed) {
	a.metrics.logsRemoved.Add(float64(r.Files))
	a.metrics.logsDropped.Add(float64(r.Dropped))
}

// logDirs are the directories of output by uid, the last word of their names.
func (a *Agent) logDirs() map[types.UID]string {
	out := map[types.UID]string{}
	entries, err := os.ReadDir(a.places.Logs)
	if err != nil {
		a.log.Warn("directory of output not read", "err", err)
	}
	for _, e := range entries {
		if words := strings.Split(e.Name(), "_"); e.IsDir() && len(words) == 3 {
			out[types.UID(words[2])] = filepath.Join(a.places.Logs, e.Name())
		}
	}
	return out
}

// removeLogs removes the output of pods that are gone.
func (a *Agent) removeLogs(ctx context.Context, gone map[string]time.Time, now time.Time) {
	if !a.listed.Load() {
		return // it is not known yet which pods are gone
	}
	for uid, dir := range a.logDirs() {
		a.mu.Lock()
		_, here := a.workers[uid]
		a.mu.Unlock()
		if here {
			delete(gone, dir)
			continue
		}
		if gone[dir].IsZero() {
			gone[dir] = now
		}
		force := now.Sub(gone[dir]) > a.cfg.LogAge
		done, removed, err := output.Remove(ctx, dir, force, a.parts.Drained, a.parts.Leaving)
		a.countLogs(removed)
		if err != nil && ctx.Err() == nil {
			a.log.Warn("output of a deleted pod not removed", "uid", uid, "err", err)
		}
		if done {
			delete(gone, dir)
		}
	}
}
