package runtimetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Program is what a fake container runs. It returns the exit code. When
// Process.Ctx ends the program was killed: return, the code is then ignored.
type Program func(p *Process) int

// Process is what a Program sees.
type Process struct {
	Ctx     context.Context // ends at SIGKILL
	Args    []string        // argv
	Env     map[string]string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Signals <-chan syscall.Signal // like PID 1: what is not read has no effect
}

// words are the programs that every fake image has.
var words = map[string]Program{
	"true":  func(*Process) int { return 0 },
	"false": func(*Process) int { return 1 },
	"echo":  func(p *Process) int { fmt.Fprintln(p.Stdout, strings.Join(p.Args[1:], " ")); return 0 },
	"cat":   func(p *Process) int { _, _ = io.Copy(p.Stdout, p.Stdin); return 0 },
	"sleep": sleep,
	"env": func(p *Process) int {
		for _, k := range slices.Sorted(maps.Keys(p.Env)) {
			fmt.Fprintf(p.Stdout, "%s=%s\n", k, p.Env[k])
		}
		return 0
	},
}

func sleep(p *Process) int {
	seconds, err := strconv.ParseFloat(strings.Join(p.Args[1:], ""), 64)
	if err != nil {
		fmt.Fprintln(p.Stderr, "sleep: invalid number")
		return 1
	}
	t := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return 0
	case <-p.Ctx.Done():
		return 137
	}
}

// shell understands what the contract asks of "sh -c": commands divided by ";",
// the words above, "exit N", "trap 'exit N' TERM" and a trailing ">&2".
func shell(p *Process) int {
	if len(p.Args) < 3 || p.Args[1] != "-c" {
		fmt.Fprintln(p.Stderr, "sh: want -c SCRIPT")
		return 2
	}
	code, onTerm := 0, -1
	for _, command := range splitOutsideQuotes(p.Args[2]) {
		q := *p
		args := strings.Fields(command)
		if len(args) == 0 {
			continue
		}
		if args[len(args)-1] == ">&2" {
			q.Stdout, args = p.Stderr, args[:len(args)-1]
		}
		q.Args = args
		switch args[0] {
		case "exit":
			n, _ := strconv.Atoi(strings.Join(args[1:], ""))
			return n
		case "trap":
			n, err := strconv.Atoi(strings.Trim(args[2], `'"`))
			if err != nil {
				return 2
			}
			onTerm = n
			continue
		}
		run, ok := words[args[0]]
		if !ok {
			fmt.Fprintf(p.Stderr, "sh: %s: not found\n", args[0])
			code = 127
			continue
		}
		if onTerm < 0 {
			code = run(&q)
			continue
		}
		ctx, stop := context.WithCancel(p.Ctx)
		q.Ctx = ctx
		done := make(chan int, 1)
		go func() { done <- run(&q) }()
		termed := false
		for waiting := true; waiting; {
			select {
			case code = <-done:
				waiting = false
			case s := <-p.Signals:
				if s == syscall.SIGTERM {
					termed = true
					stop()
				}
			}
		}
		stop()
		if termed {
			return onTerm
		}
	}
	return code
}

func splitOutsideQuotes(script string) []string {
	var quote rune
	return strings.FieldsFunc(script, func(r rune) bool {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		}
		return quote == 0 && r == ';'
	})
}

// lookup finds the program of an image and command.
func (f *Fake) lookup(image string, args []string) (Program, bool) {
	if p, ok := f.programs[image]; ok {
		return p, true
	}
	if len(args) == 0 {
		return nil, false
	}
	name := path.Base(args[0])
	if p, ok := f.programs[name]; ok {
		return p, true
	}
	if name == "sh" {
		return shell, true
	}
	p, ok := words[name]
	return p, ok
}

// logFile writes one container's output as a runtime does: RFC 3339 time with up to
// nine digits of a second (zeros at the end are left out), stream, F (full) or P (part of a line), content.
type logFile struct {
	mu   sync.Mutex
	path string // "" keeps nothing
	file *os.File
}

const maxLogLine = 16 << 10 // bytes, as the embedded runtime is configured

func (l *logFile) reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" {
		return nil
	}
	if err := os.MkdirAll(path.Dir(l.path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file = file
	return nil
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}

func (l *logFile) line(stream, tag, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		fmt.Fprintf(l.file, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, tag, text)
	}
}

// pump copies a stream into the log, line by line, until it ends.
func (l *logFile) pump(stream string, r io.Reader) {
	in := bufio.NewReaderSize(r, maxLogLine)
	for {
		text, err := in.ReadSlice('\n')
		full := strings.HasSuffix(string(text), "\n")
		switch {
		case full:
			l.line(stream, "F", strings.TrimSuffix(string(text), "\n"))
		case len(text) > 0:
			l.line(stream, "P", string(text))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
