package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Drained says whether all lines of a file are stored elsewhere.
type Drained func(ctx context.Context, path string) bool

// Leaving is told of a file that is removed although not all of its lines are stored,
// just before, so that they can be counted.
type Leaving func(ctx context.Context, path string)

// Removed is what a removal did.
type Removed struct {
	Files   int
	Dropped int64 // bytes of files whose lines were not all stored
}

// Rotate moves the file of a running container aside when it has grown to the
// limit, makes the runtime open a new one, and removes the oldest drained parts
// beyond keep files. It says whether it rotated.
func Rotate(ctx context.Context, path string, limit int64, keep int, now time.Time, reopen func(context.Context) error, drained Drained, leaving Leaving) (bool, Removed, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, Removed{}, nil
	}
	if err != nil {
		return false, Removed{}, fmt.Errorf("look at output: %w", err)
	}
	rotated := false
	if info.Size() >= limit {
		aside := path + "." + now.UTC().Format("20060102-150405.000")
		if err := os.Rename(path, aside); err != nil {
			return false, Removed{}, fmt.Errorf("rotate output: %w", err)
		}
		if err := reopen(ctx); err != nil {
			// Who writes by name may have begun a new file already, and its lines must
			// stay. Else the old one is still written: give it back its name.
			back := unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
			if !errors.Is(back, fs.ErrExist) {
				return false, Removed{}, errors.Join(fmt.Errorf("rotate output %s: %w", path, err), back)
			}
		}
		rotated = true
	}
	parts, err := partsOf(path)
	if err != nil {
		return rotated, Removed{}, err
	}
	removed, err := trim(ctx, parts, keep, drained, leaving)
	return rotated, removed, err
}

// patienceFactor bounds how many parts may wait to be drained: this many times
// what is kept. Beyond it the oldest one is dropped and counted, for a full disk
// would stop everything.
const patienceFactor = 3

func trim(ctx context.Context, parts []string, keep int, drained Drained, leaving Leaving) (Removed, error) {
	var r Removed
	for i := 0; len(parts)-i > keep; i++ {
		ok := drained(ctx, parts[i])
		if !ok && len(parts)-i <= keep*patienceFactor {
			return r, nil // this one first; younger ones are not better off
		}
		if !ok {
			leaving(ctx, parts[i])
		}
		if err := r.remove(parts[i], ok); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (r *Removed) remove(path string, stored bool) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at output: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove output: %w", err)
	}
	r.Files++
	if !stored {
		r.Dropped += info.Size()
	}
	return nil
}

// RemoveAttempts removes the files of attempts that the runtime has forgotten,
// once they are drained.
func RemoveAttempts(ctx context.Context, containerDir string, keep func(attempt string) bool, drained Drained) (Removed, error) {
	var r Removed
	entries, err := os.ReadDir(containerDir)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("list output: %w", err)
	}
	for _, e := range entries {
		attempt, _, isLog := strings.Cut(e.Name(), ".log")
		path := filepath.Join(containerDir, e.Name())
		if !isLog || keep(attempt) || !drained(ctx, path) {
			continue
		}
		if err := r.remove(path, true); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Remove removes all output of a pod that is gone, as far as it is drained, and
// everything once force says that it has waited long enough. It says whether
// nothing is left.
func Remove(ctx context.Context, dir string, force bool, drained Drained, leaving Leaving) (bool, Removed, error) {
	var r Removed
	left := false
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		stored := drained(ctx, path)
		if !stored && !force {
			left = true
			return nil
		}
		if !stored {
			leaving(ctx, path)
		}
		return r.remove(path, stored)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, r, fmt.Errorf("remove output %s: %w", dir, err)
	}
	if left {
		return false, r, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return false, r, fmt.Errorf("remove output %s: %w", dir, err)
	}
	return true, r, nil
}
