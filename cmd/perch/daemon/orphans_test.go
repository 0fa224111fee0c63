package daemon

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestADirectoryIsQuietAfterItsOrphansEnded has a process with a role's command
// line, which writes into the data directory as long as it lives.
func TestADirectoryIsQuietAfterItsOrphansEnded(t *testing.T) {
	for _, c := range []struct {
		name, onTerm string
		grace        time.Duration
		stopped      bool
		killed       bool
	}{
		{"one that takes a moment to end", `trap 'n=$((i+2000))' TERM`, time.Minute, false, false},
		{"one that is stopped", `trap 'n=$i' TERM`, time.Minute, true, false},
		{"one that does not end", `trap '' TERM`, 2 * time.Second, false, true}, // a killed one must find a CPU within as much again
	} {
		t.Run(c.name, func(t *testing.T) {
			bin, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
			script := c.onTerm + `
i=0 n=100000000
mkdir -p "$4"
while [ $i -lt $n ]; do : >"$4/$((i % 50))"; i=$((i+1)); done`
			// A shell takes the first argument for its script.
			if err := os.WriteFile(filepath.Join(bin, "role"), []byte("set -- x \"$@\"\n"+script), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/bin/sh", "role", "telemetry", "--data-dir", dir)
			cmd.Dir = bin
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for deadline := time.Now().Add(time.Minute); ; {
				if _, err := os.Stat(filepath.Join(dir, "5")); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("it does not write")
				}
				<-tick.C
			}
			if c.stopped {
				if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			if pids, err := orphansOf("/proc", dir); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
				t.Errorf("found %v, %v, want %d", pids, err, cmd.Process.Pid)
			}
			if pids, err := orphansOf("/proc", filepath.Dir(dir)); err != nil || len(pids) != 0 {
				t.Errorf("of another directory there are %v, %v", pids, err)
			}
			if err := endOrphans(t.Context(), dir, c.grace); err != nil {
				t.Fatal(err)
			}
			err := <-ended
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) != c.killed {
				t.Errorf("it ended with %v", err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
	}
}
