package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"perch/logs/bench/lines"
	"perch/logs/index"
)

const boundLines = 300_000

// bounds measures what the machine needs at least for n lines of a set.
func bounds(dir string) error {
	g := lines.New(lines.Services, 7)
	var text []byte
	byStream := make([][]byte, lines.Streams)
	for range boundLines {
		r, k := g.Next()
		text = append(append(text, r.Body...), '\n')
		byStream[k] = append(append(byStream[k], r.Body...), '\n')
	}
	row := func(name string, seconds float64, more string) {
		fmt.Printf("  %-42s %7.3f CPU-s per million lines, %6.0f MB/s%s\n", name, seconds/boundLines*1e6, float64(len(text))/seconds/1e6, more)
	}
	fmt.Printf("\nBounds of this machine, one core, %d lines of %d bytes:\n", boundLines, len(text)/boundLines)
	start := cpuSeconds()
	words := 0
	in := false
	for _, c := range text {
		if w := index.Fold(c) != 0; w != in {
			in = w
			words++
		}
	}
	row("tokenise", cpuSeconds()-start, fmt.Sprintf(", %.1f words a line", float64(words)/2/boundLines))
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedBetterCompression} {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		start, out := cpuSeconds(), 0
		var z []byte
		for _, b := range byStream {
			for len(b) > 0 {
				n := min(len(b), 256<<10)
				z = enc.EncodeAll(b[:n], z[:0])
				out += len(z)
				b = b[n:]
			}
		}
		row(fmt.Sprintf("zstd %s, 256 KB of a stream", level), cpuSeconds()-start, fmt.Sprintf(", %.3f of the size", float64(out)/float64(len(text))))
		_ = enc.Close() // nothing is buffered
	}
	start = cpuSeconds()
	bytes.Contains(text, []byte("needle48213x"))
	row("look for bytes", cpuSeconds()-start, "")
	path := dir + "/plain.log"
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	for _, tool := range [][]string{{"rg", "-c", "INFO", path}, {"grep", "-c", "INFO", path}} {
		if _, err := exec.LookPath(tool[0]); err != nil {
			continue
		}
		cmd := exec.Command(tool[0], tool[1:]...)
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run %s: %w", tool[0], err)
		}
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		row(tool[0]+" -c INFO on the plain file", time.Duration(u.Utime.Nano()+u.Stime.Nano()).Seconds(), "")
		break
	}
	return os.Remove(path)
}
