package tail

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// handle returns the open file. When too many are open, the one used longest
// ago is closed: it is opened again when something is written to it. A file
// that has another's name or content by now does not exist.
func (t *Tail) handle(f *file) (*os.File, error) {
	if f.f != nil {
		t.handles.MoveToFront(f.used)
		return f.f, nil
	}
	h, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", f.path, err)
	}
	info, err := h.Stat()
	if err == nil && inodeOf(info) != f.inode {
		err = fs.ErrNotExist
	}
	have := f.print
	if err == nil && f.print != 0 {
		have, err = printOf(h)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", f.path, err), h.Close())
	}
	if have != f.print { // the inode was used again
		f.read, f.done, f.print = 0, [2]int64{}, 0
	}
	for t.handles.Len() >= t.cfg.OpenFiles {
		t.shut(t.handles.Back().Value.(*file))
	}
	if f.shut {
		t.m.reopened.Inc()
	}
	f.f, f.used = h, t.handles.PushFront(f)
	return h, nil
}

// shut closes the file.
func (t *Tail) shut(f *file) {
	if f.f == nil {
		return
	}
	_ = f.f.Close() // read only
	t.handles.Remove(f.used)
	f.f, f.used, f.shut = nil, nil, true
}

// printOf returns the fingerprint of an open file.
func printOf(h *os.File) (uint64, error) {
	head := make([]byte, printBytes)
	n, err := h.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return fingerprint(head[:n]), nil
}

// look returns the size of the file now.
func (f *file) look() (int64, error) {
	var info fs.FileInfo
	var err error
	if f.f != nil {
		info, err = f.f.Stat()
	} else if info, err = os.Stat(f.path); err == nil && inodeOf(info) != f.inode {
		err = fs.ErrNotExist
	}
	if err != nil {
		return 0, fmt.Errorf("look at log %s: %w", f.path, err)
	}
	return info.Size(), nil
}

// removed tells whether a file that was not listed has no name any more. One
// listing does not say so: the file may have been renamed meanwhile.
func (f *file) removed() bool {
	if f.f == nil {
		again := f.missing
		f.missing = true
		return again
	}
	info, err := f.f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

// closed tells whether nobody has the file open for writing: the runtime closes
// it when the container has ended. The kernel grants a read lease only then.
func (t *Tail) closed(f *file) bool {
	h, err := t.handle(f)
	if err != nil {
		return false
	}
	raw, err := h.SyscallConn()
	if err != nil {
		return false
	}
	granted := false
	err = raw.Control(func(fd uintptr) {
		if _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK); err == nil {
			granted = true
			_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) // closing the file ends it too
		}
	})
	if !granted || err != nil {
		return false
	}
	// A file that is rotated is renamed first and closed then.
	have, err := h.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.path)
	return err == nil && os.SameFile(have, named)
}
