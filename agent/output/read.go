package output

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say which lines to read, as kubectl logs asks.
type Options struct {
	Follow     bool
	Timestamps bool
	Since      time.Time // zero: from the beginning
	Tail       int64     // records from the end; negative: all
	Limit      int64     // bytes written at most; negative: all
	Stream     string    // stdout or stderr; empty: both
}

// pollEvery is how often a followed file is looked at. It is one fstat.
const pollEvery = 100 * time.Millisecond

const maxRecord = 1 << 20

// Read writes the output of one container attempt to w. When following it ends
// after alive says no and all is written, or with ctx (nil). path is the file
// the runtime writes to now; rotated parts are found beside it.
func Read(ctx context.Context, path string, o Options, alive func() bool, w io.Writer) error {
	parts, err := partsOf(path)
	if err != nil {
		return err
	}
	start := position{}
	if o.Tail >= 0 {
		if start, err = lastRecords(parts, o.Tail); err != nil {
			return err
		}
	}
	out := &writer{w: w, o: o, left: o.Limit, bol: true}
	var tail *os.File // the newest part, for following
	for i := start.part; i < len(parts); i++ {
		f, err := os.Open(parts[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away since it was listed
		}
		if err != nil {
			return fmt.Errorf("open output: %w", err)
		}
		if i == start.part {
			if _, err := f.Seek(start.offset, io.SeekStart); err != nil {
				_ = f.Close() // read only
				return fmt.Errorf("seek output: %w", err)
			}
		}
		if i == len(parts)-1 {
			tail = f
			break
		}
		done, err := out.copy(ctx, bufio.NewReaderSize(f, 64<<10))
		_ = f.Close() // read only
		if done || err != nil {
			return err
		}
	}
	if tail == nil {
		return nil
	}
	return follow(ctx, path, tail, o.Follow, alive, out)
}

// follow reads the newest part, and if asked to what comes after it, through
// rotations.
func follow(ctx context.Context, path string, f *os.File, more bool, alive func() bool, out *writer) error {
	defer func() { _ = f.Close() }() // read only
	in := bufio.NewReaderSize(f, 64<<10)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	ended := false
	for {
		done, err := out.copy(ctx, in)
		if done || err != nil || ctx.Err() != nil {
			return err
		}
		if !more {
			return out.rest()
		}
		next, err := replaced(path, f)
		if err != nil {
			return err
		}
		if next != nil {
			if done, err := out.copy(ctx, in); done || err != nil { // what came before the rename
				_ = next.Close() // read only
				return err
			}
			_ = f.Close() // read only
			f, in = next, bufio.NewReaderSize(next, 64<<10)
			continue
		}
		if ended {
			return out.rest()
		}
		ended = !alive() // then once more, for what was written before the end
		if err := out.flush(); err != nil {
			return err
		}
		if ended {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// replaced opens the file at path if it is not the open one any more.
func replaced(path string, f *os.File) (*os.File, error) {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // between rename and reopen
	}
	if err != nil {
		return nil, fmt.Errorf("look at output: %w", err)
	}
	have, err := f.Stat()
	if err != nil || os.SameFile(now, have) {
		return nil, err
	}
	return os.Open(path)
}

// partsOf lists the files of one attempt, oldest first, the current one last.
func partsOf(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list output: %w", err)
	}
	var parts []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			parts = append(parts, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(parts) // the names end with their time
	if _, err := os.Stat(path); err == nil {
		parts = append(parts, path)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("open output %s: %w", path, fs.ErrNotExist)
	}
	return parts, nil
}

type position struct {
	part   int
	offset int64
}

// lastRecords finds where the last n records begin.
func lastRecords(parts []string, n int64) (position, error) {
	const block = 64 << 10
	buf := make([]byte, block)
	for i := len(parts) - 1; i >= 0; i-- {
		f, err := os.Open(parts[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away since it was listed
		}
		if err != nil {
			return position{}, fmt.Errorf("open output: %w", err)
		}
		info, err := f.Stat()
		if err != nil {
			_ = f.Close() // read only
			return position{}, fmt.Errorf("look at output: %w", err)
		}
		size := info.Size()
		for end := size; end > 0; {
			begin := max(0, end-block)
			got, err := f.ReadAt(buf[:end-begin], begin)
			if err != nil && !errors.Is(err, io.EOF) {
				_ = f.Close() // read only
				return position{}, fmt.Errorf("read output: %w", err)
			}
			for k := got - 1; k >= 0; k-- {
				if buf[k] != '\n' {
					continue
				}
				if n == 0 {
					_ = f.Close() // read only
					return position{i, begin + int64(k) + 1}, nil
				}
				n--
			}
			end = begin
		}
		_ = f.Close() // read only
	}
	return position{}, nil
}

// writer turns records back into output.
type writer struct {
	w       io.Writer
	o       Options
	left    int64
	bol     bool // at the beginning of a line
	pending []byte
}

// copy writes all whole records that in has now. It says whether the limit is
// reached. A record that is still being written stays pending.
func (w *writer) copy(ctx context.Context, in *bufio.Reader) (bool, error) {
	for n := 0; ; n++ {
		if n%1000 == 0 && ctx.Err() != nil {
			return true, nil
		}
		piece, err := in.ReadSlice('\n')
		if len(w.pending)+len(piece) <= maxRecord {
			w.pending = append(w.pending, piece...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return true, fmt.Errorf("read output: %w", err)
		}
		full, err := w.record()
		if full || err != nil {
			return true, err
		}
	}
}

// rest writes a last record without newline, as a runtime that was killed
// leaves.
func (w *writer) rest() error {
	if len(w.pending) > 0 {
		if _, err := w.record(); err != nil {
			return err
		}
	}
	return w.flush()
}

func (w *writer) flush() error {
	if f, ok := w.w.(interface{ Flush() }); ok {
		f.Flush()
	}
	return nil
}

// record writes the pending record and says whether the limit is reached.
func (w *writer) record() (bool, error) {
	line, err := Parse(w.pending)
	w.pending = w.pending[:0]
	if err != nil {
		return false, nil //nolint:nilerr // a damaged record is no reason to hide the others
	}
	if !w.o.Since.IsZero() && line.Time.Before(w.o.Since) || w.o.Stream != "" && line.Stream != w.o.Stream {
		return false, nil
	}
	var out []byte
	if w.o.Timestamps && w.bol {
		out = line.Time.AppendFormat(out, time.RFC3339Nano)
		out = append(out, ' ')
	}
	out = append(out, line.Text...)
	if w.bol = !line.Partial; w.bol {
		out = append(out, '\n')
	}
	if w.o.Limit >= 0 {
		out = out[:min(int64(len(out)), w.left)]
		w.left -= int64(len(out))
	}
	if _, err := w.w.Write(out); err != nil {
		return true, fmt.Errorf("write output: %w", err)
	}
	return w.o.Limit >= 0 && w.left == 0, nil
}

// Last returns the end of an attempt's output: at most so many records and
// bytes.
func Last(path string, lines int64, bytes int) (string, error) {
	var out strings.Builder
	err := Read(context.Background(), path, Options{Tail: lines, Limit: -1}, func() bool { return false }, &out)
	if err != nil {
		return "", err
	}
	text := out.String()
	return strings.ToValidUTF8(text[max(0, len(text)-bytes):], ""), nil
}
