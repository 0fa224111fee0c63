package supervisor

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// maxHeld is how many files a role may have held; more are refused and logged.
const maxHeld = 8

// held are the files that one role wants back in its next run, in the order in
// which they came.
type held []heldFile

type heldFile struct {
	name string
	file *os.File
}

// env tells a role which files it gets after the channel.
func (h held) env() string {
	names := []string{channelName}
	for _, f := range h {
		names = append(names, f.name)
	}
	return filesEnv + "=" + strings.Join(names, ",")
}

func (h held) files() []*os.File {
	var out []*os.File
	for _, f := range h {
		out = append(out, f.file)
	}
	return out
}

// hold takes a file over; one of the same name before it is closed.
func (h *held) hold(name string, f *os.File) error {
	if f == nil {
		return fmt.Errorf("hold %q: no file came with it", name)
	}
	if name == "" || strings.ContainsAny(name, " ,=\x00") {
		f.Close()
		return fmt.Errorf("hold %q: want a plain name", name)
	}
	h.drop(name)
	if len(*h) >= maxHeld {
		f.Close()
		return fmt.Errorf("hold %q: %d files are held already", name, maxHeld)
	}
	*h = append(*h, heldFile{name, f})
	return nil
}

func (h *held) drop(name string) {
	*h = slices.DeleteFunc(*h, func(f heldFile) bool {
		if f.name == name {
			f.file.Close()
		}
		return f.name == name
	})
}

func (h *held) close(log *slog.Logger) {
	for _, f := range *h {
		if err := f.file.Close(); err != nil {
			log.Warn("held file not closed", "file", f.name, "err", err)
		}
	}
	*h = nil
}
