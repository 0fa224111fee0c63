package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// outputs keeps what ended containers wrote and nobody has read yet. A
// container's output goes through named pipes; the kernel forgets what is in a
// pipe when nobody has it open, and the shim closes its ends when the container
// ends. So one more write end is held per pipe, from the container's creation
// until the runtime, or the next one, has the other end open.
type outputs struct {
	mu   sync.Mutex
	held map[string]*held // by container
}

type held struct {
	pipes    []pipe
	asked    bool          // someone has asked for the state since the container ended
	released chan struct{} // closed when the write ends are
	once     sync.Once
}

type pipe struct {
	path string
	fd   int
}

func newOutputs() *outputs { return &outputs{held: map[string]*held{}} }

// hold opens a container's pipes; call it when the shim has them open. What is
// no named pipe is left out.
func (o *outputs) hold(id string, paths ...string) {
	h := &held{released: make(chan struct{})}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			continue
		}
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // no reader: the runtime went just now, as if it had gone before
		}
		h.pipes = append(h.pipes, pipe{path, fd})
	}
	if len(h.pipes) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[id] = h
}

// ended is told each time the runtime asks for the state of a container that
// ended: it has the pipes open, or will after the first answer. Until it has,
// further answers wait, a second at most, because it stops opening after them.
func (o *outputs) ended(id string) {
	o.mu.Lock()
	h := o.held[id]
	first := h != nil && !h.asked
	if first {
		h.asked = true
	}
	o.mu.Unlock()
	if h == nil {
		return
	}
	if first {
		go h.release()
		return
	}
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	select {
	case <-h.released:
	case <-limit.C:
	}
}

// forget gives a deleted container's pipes up.
func (o *outputs) forget(id string) {
	o.mu.Lock()
	h := o.held[id]
	delete(o.held, id)
	o.mu.Unlock()
	if h != nil {
		h.close()
	}
}

// release closes the write ends once every pipe is read by another process and
// no longer by the shim itself: then the reader gets all that was written and
// the end.
func (h *held) release() {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ready := true
		for _, p := range h.pipes {
			ready = ready && p.readElsewhere()
		}
		if ready {
			h.close()
			return
		}
		select {
		case <-h.released:
			return
		case <-tick.C:
		}
	}
}

func (h *held) close() {
	h.once.Do(func() {
		for _, p := range h.pipes {
			_ = unix.Close(p.fd)
		}
		close(h.released)
	})
}

// readElsewhere tells whether another process, and not this one, has a pipe
// open for reading.
func (p pipe) readElsewhere() bool {
	fd, err := unix.Open(p.path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.ENOENT) // removed: nobody will read it any more
	}
	_ = unix.Close(fd)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return true
	}
	for _, e := range entries {
		if path, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || path != p.path {
			continue
		}
		var n int
		if _, err := fmt.Sscan(e.Name(), &n); err != nil {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_PATH == 0 && flags&unix.O_ACCMODE != unix.O_WRONLY {
			return false
		}
	}
	return true
}
