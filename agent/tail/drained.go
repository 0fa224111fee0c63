package tail

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Drained tells whether every line of the log file at path, or of all log files
// under it when it is a directory, is durable in the store. What is not there
// is drained. A last line without its newline counts as drained when the file
// has rested for Config.Finish.
func (t *Tail) Drained(path string) bool {
	if root := filepath.Clean(t.cfg.Dir); path != root && !strings.HasPrefix(path, root+"/") {
		return true // none of ours
	}
	drained := true
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.IsDir() {
			return nil
		}
		ok, err := t.drained(p)
		if err != nil {
			return err
		}
		if !ok {
			drained = false
			return fs.SkipAll
		}
		return nil
	})
	return err == nil && drained
}

func (t *Tail) drained(path string) (bool, error) {
	rel, err := filepath.Rel(t.cfg.Dir, path)
	if err != nil {
		return false, err
	}
	parts := strings.Split(rel, string(filepath.Separator))
	if len(parts) != 3 {
		return true, nil // none of ours
	}
	number, _, ok := parseFile(parts[2])
	if _, isPod := parsePod(parts[0]); !ok || !isPod {
		return true, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() == 0 {
		return true, nil
	}
	head := make([]byte, printBytes)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	done := int64(0)
	if p, ok := t.positions.Position(parts[0]+"/"+parts[1]+"/"+number, inodeOf(info)); ok && p.Print == fingerprint(head[:n]) {
		done = min(p.Stdout, p.Stderr)
	}
	if done >= info.Size() {
		return true, nil
	}
	if time.Since(info.ModTime()) < t.cfg.Finish {
		return false, nil
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, done, min(info.Size()-done, maxSourceLine)))
	return err == nil && !bytes.Contains(rest, []byte{'\n'}), err
}
