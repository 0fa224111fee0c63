package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Init lets this program be process 1 of a container: the same command
// runs as its child, signals are passed on, and orphans (the shims of pods,
// whatever their containers leave) are reaped, which a supervisor that waits
// for its own children cannot do. It returns the exit code.
func Init(complain io.Writer) int {
	code, err := runBelow()
	if err != nil {
		fmt.Fprintln(complain, "perch:", err)
	}
	return code
}

func runBelow() (int, error) {
	// In an image with nothing but perch there is no place for temporary files.
	if err := os.MkdirAll(os.TempDir(), 0o1777); err != nil {
		return 1, fmt.Errorf("make directory for temporary files: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find own program: %w", err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	child, err := os.StartProcess(exe, os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 1, fmt.Errorf("start below process 1: %w", err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	go func() {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, 0, nil)
			switch {
			case errors.Is(err, syscall.EINTR):
			case err != nil: // no children at all: the one that matters is gone
				close(ended)
				return
			case pid == child.Pid && (status.Exited() || status.Signaled()):
				ended <- status
				return
			}
		}
	}()
	for {
		select {
		case s := <-signals:
			if sig, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(child.Pid, sig) // it may be gone already
			}
		case status := <-ended:
			if status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return status.ExitStatus(), nil
		}
	}
}
