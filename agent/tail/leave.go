package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// leave is a file that is about to be removed.
type leave struct {
	path string
	done chan error
}

// loss is source lines that were removed before they were read.
type loss struct {
	account *account
	lines   int64
}

// Leaving says that a log file is about to be removed although it is not drained, and
// returns when the reader has taken note of it: it reads on to the end what it has open,
// and counts the lines of what it does not as gone.
func (t *Tail) Leaving(ctx context.Context, path string) error {
	l := leave{path, make(chan error, 1)}
	select {
	case t.leaves <- l:
	case <-ctx.Done():
		return fmt.Errorf("count lines of %s: %w", path, ctx.Err())
	}
	select {
	case err := <-l.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("count lines of %s: %w", path, ctx.Err())
	}
}

// leave deals with a file that goes. While the sink takes nothing no further files are
// opened: they would take room on the disk without a name.
func (t *Tail) leave(l leave, refused bool) {
	err := t.countLeaving(l.path, refused)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it is gone
	}
	l.done <- err
}

func (t *Tail) countLeaving(path string, refused bool) error {
	rel, err := filepath.Rel(t.cfg.Dir, path)
	if err != nil {
		return err
	}
	parts := strings.Split(rel, string(filepath.Separator))
	if len(parts) != 3 {
		return nil // none of ours
	}
	number, _, ok := parseFile(parts[2])
	if _, isPod := parsePod(parts[0]); !ok || !isPod {
		return nil
	}
	if !refused {
		if err := t.scanContainer(parts[0], parts[1]); err != nil {
			return err
		}
	}
	h, err := os.Open(path)
	if err != nil {
		return err
	}
	defer h.Close() // read only
	info, err := h.Stat()
	if err != nil {
		return err
	}
	dir := parts[0] + "/" + parts[1]
	key, from := dir+"/"+number, int64(0)
	var f *file
	if a := t.attempts[key]; a != nil {
		f = a.find(inodeOf(info))
	}
	if f != nil && !refused {
		if _, err := t.handle(f); err != nil {
			return err
		}
	}
	switch p, known := t.positions.Position(key, inodeOf(info)); {
	case f != nil && f.f != nil:
		return nil // it is read to its end, also without a name
	case f != nil:
		from = f.read
	case known:
		print, err := printOf(h)
		if err != nil {
			return err
		}
		if print == p.Print {
			from = min(p.Stdout, p.Stderr)
		}
	}
	lines, err := countLines(io.NewSectionReader(h, from, info.Size()-from))
	if err != nil {
		return fmt.Errorf("count lines of %s: %w", path, err)
	}
	if f != nil { // nothing more is read of it
		f.read, f.size = info.Size(), info.Size()
	}
	if lines == 0 {
		return nil
	}
	account := newAccount(dir)
	account.hidden = true // but for the node's
	if c := t.containers[dir]; c != nil {
		account = c.account
	}
	t.losses = append(t.losses, loss{account, lines})
	return nil
}

// countLines counts the lines of r, and one without its end.
func countLines(r io.Reader) (n int64, err error) {
	buf := make([]byte, chunkBytes)
	whole := true
	for {
		k, err := r.Read(buf)
		n += int64(bytes.Count(buf[:k], []byte{'\n'}))
		if k > 0 {
			whole = buf[k-1] == '\n'
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, err
		}
	}
	if !whole {
		n++
	}
	return n, nil
}

// bookLosses counts what was lost since the last batch.
func (t *Tail) bookLosses() {
	for _, l := range t.losses {
		c := counts{read: l.lines}
		c.dropped[reasonGone] = l.lines
		t.ledger.book(l.account, c)
	}
	t.losses = nil
}
