package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// logAnnotation holds the absolute path of a container's log file. It is set by
// agent/runtime.Client; without it the runtime writes the log.
const logAnnotation = "perch.internal/log"

// logPath reads where a container's log goes from its bundle; "" if that is not
// ours to write.
func logPath(bundle string) (string, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.NewDecoder(f).Decode(&spec); err != nil {
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return spec.Annotations[logAnnotation], nil
}

// logFile is a container's log in CRI format. The shim writes it itself, because
// it lives as long as the container: what a runtime had read and not yet written
// when it was killed would be lost, and a container would stand still while
// there is no runtime.
type logFile struct {
	mu     sync.Mutex
	path   string
	file   *os.File
	info   os.FileInfo
	lost   int // bytes that could not be written since the last line that could
	buffer []byte
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l, l.follow()
}

// follow opens the file anew if it was renamed or removed: that is how a log is
// rotated. The lock is held.
func (l *logFile) follow() error {
	if l.file != nil {
		now, err := os.Stat(l.path)
		if err == nil && os.SameFile(now, l.info) {
			return nil
		}
		_ = l.file.Close()
		l.file = nil
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.info = file, info
	return nil
}

// append writes whole entries with one write. What cannot be written, because
// the disk is full, is dropped and told in the log as soon as that is possible:
// a container must not stand still for its log.
func (l *logFile) append(entries []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.follow(); err != nil {
		l.lost += len(entries)
		return
	}
	if l.lost > 0 {
		l.buffer = entry(l.buffer[:0], time.Now(), "stderr", 'F', fmt.Appendf(nil, "perch: %d bytes of log could not be written here", l.lost))
		if _, err := l.file.Write(l.buffer); err != nil {
			l.lost += len(entries)
			return
		}
		l.lost = 0
	}
	if n, err := l.file.Write(entries); err != nil {
		l.lost += len(entries) - n
		if n > 0 { // never leave half an entry before the next one
			_, _ = l.file.Write([]byte{'\n'})
		}
	}
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
	}
}

// entry appends one line of a CRI log: time, stream, F (full) or P (part of a
// line), text.
func entry(to []byte, now time.Time, stream string, tag byte, text []byte) []byte {
	to = now.UTC().AppendFormat(to, time.RFC3339Nano)
	to = append(to, ' ')
	to = append(to, stream...)
	to = append(to, ' ', tag, ' ')
	to = append(to, text...)
	return append(to, '\n')
}

// maxLine is the longest text of one entry in bytes; longer lines come in parts.
const maxLine = 16 << 10

// splitter cuts a stream into entries.
type splitter struct {
	stream string
	rest   []byte // begin of a line whose end has not come, at most maxLine
}

// split appends the entries that data completes to out.
func (s *splitter) split(out []byte, now time.Time, data []byte) []byte {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		part := data
		if end >= 0 {
			part = data[:end]
		}
		if room := maxLine - len(s.rest); len(part) > room {
			s.rest = append(s.rest, part[:room]...)
			out = entry(out, now, s.stream, 'P', s.rest)
			s.rest, data = s.rest[:0], data[room:]
			continue
		}
		s.rest = append(s.rest, part...)
		if end < 0 {
			return out
		}
		out = entry(out, now, s.stream, 'F', s.rest)
		s.rest, data = s.rest[:0], data[end+1:]
	}
	return out
}

// end appends what is left of a stream that ended in the middle of a line.
func (s *splitter) end(out []byte, now time.Time) []byte {
	if len(s.rest) == 0 {
		return out
	}
	out = entry(out, now, s.stream, 'P', s.rest)
	s.rest = nil
	return out
}

// tee reads a container's stream to its end: every byte goes into the log, and
// to the runtime for those who are attached, as far as it takes it at once.
func tee(from io.Reader, log *logFile, stream string, runtime *os.File) {
	s := splitter{stream: stream}
	in := make([]byte, 32<<10)
	var out []byte
	for {
		n, err := from.Read(in)
		if n > 0 {
			out = s.split(out[:0], time.Now(), in[:n])
			if len(out) > 0 {
				log.append(out)
			}
			forward(runtime, in[:n])
		}
		if err != nil {
			if out = s.end(out[:0], time.Now()); len(out) > 0 {
				log.append(out)
			}
			return
		}
	}
}

// forward writes without waiting: the file is a pipe that may be full or have no
// reader. It bypasses the poller, which would wait.
func forward(to *os.File, data []byte) {
	if to == nil {
		return
	}
	raw, err := to.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		_, _ = unix.Write(int(fd), data)
		return true
	})
}

// capture puts the log between a container's stream and the runtime. It returns
// the path of the pipe that the stream shall go to, and a function to call once
// the container's copy has opened it, or never will.
func capture(bundle, stream, runtimePipe string, log *logFile, done *sync.WaitGroup) (path string, opened func(), err error) {
	path = filepath.Join(bundle, "perch-"+stream)
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", nil, fmt.Errorf("make pipe %s: %w", path, err)
	}
	// Without any write end the reader would see the end at once.
	hold, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open pipe %s: %w", path, err)
	}
	reader, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(hold)
		return "", nil, fmt.Errorf("open pipe %s: %w", path, err)
	}
	from := os.NewFile(uintptr(reader), path)
	// Both ends, so that it opens and stays open while no runtime reads; closing
	// it gives the runtime the end of the stream.
	var to *os.File
	if out, err := unix.Open(runtimePipe, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		to = os.NewFile(uintptr(out), runtimePipe)
	}
	done.Go(func() {
		tee(from, log, stream, to)
		_ = from.Close()
		if to != nil {
			_ = to.Close()
		}
	})
	return path, func() { _ = unix.Close(hold) }, nil
}
