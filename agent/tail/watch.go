package tail

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// watcher is one inotify instance over the tree of log directories. It only
// says where to look; what is there is found by listing.
type watcher struct {
	f    *os.File
	dirs map[int32]string // relative to the root
	wds  map[string]int32
	root string
}

func newWatcher(root string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch logs: %w", err)
	}
	return &watcher{f: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}, wds: map[string]int32{}, root: root}, nil
}

// add watches a directory; a second time does nothing.
func (w *watcher) add(dir string) error {
	if _, ok := w.wds[dir]; ok {
		return nil
	}
	wd, err := unix.InotifyAddWatch(int(w.f.Fd()), filepath.Join(w.root, dir), unix.IN_ONLYDIR|unix.IN_CREATE|unix.IN_MODIFY|unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_DELETE)
	if err != nil {
		return fmt.Errorf("watch logs %s: %w", dir, err)
	}
	w.wds[dir] = int32(wd)
	w.dirs[int32(wd)] = dir
	return nil
}

// anew has every directory added again. For one that is watched already the kernel
// returns the same number.
func (w *watcher) anew() {
	clear(w.wds)
	clear(w.dirs)
}

// name returns the directory of a watch, dropping watches that ended.
func (w *watcher) name(e event) (string, bool) {
	dir, ok := w.dirs[e.wd]
	if ok && e.mask&unix.IN_IGNORED != 0 {
		delete(w.dirs, e.wd)
		delete(w.wds, dir)
	}
	return dir, ok
}

type event struct {
	wd   int32
	mask uint32
}

// run reads notifications until ctx ends. After each lot it waits until the
// reader is ready again, meanwhile the kernel folds repetitions together.
func (w *watcher) run(ctx context.Context, out chan<- []event) {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				continue
			}
			return
		}
		var events []event
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			e := event{int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])}
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if k := len(events); k == 0 || events[k-1] != e {
				events = append(events, e)
			}
			b = b[min(size, len(b)):]
		}
		select {
		case out <- events:
		case <-ctx.Done():
			return
		}
	}
}

// containerDir tells whether a relative directory is one of a container.
func containerDir(dir string) (podDir, container string, ok bool) {
	podDir, container, ok = strings.Cut(dir, "/")
	return podDir, container, ok && !strings.Contains(container, "/")
}
