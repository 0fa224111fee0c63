package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"perch/logs/store"
)

// held is a copy of one store at its follower: a directory in which every file
// lies under its own path, or, while it replaces one of another version, beside
// it with "~version".
type held struct {
	owner, id string
	dir       string

	size atomic.Int64         // bytes of all files
	seen atomic.Pointer[Copy] // what a reader is told

	mu   sync.Mutex // one shipment at a time; guards what follows
	meta meta
	torn bool // the files are not as meta says: open it anew
	gone bool
}

// meta is what is known of a copy besides its files; it is written after they
// are durable.
type meta struct {
	At        time.Time         `json:"at"`
	Committed bool              `json:"committed"` // it can be read
	From      string            `json:"from,omitempty"`
	Floor     string            `json:"floor,omitempty"`
	Touched   time.Time         `json:"touched"` // by this node's clock
	Keep      time.Duration     `json:"keep"`
	Versions  map[string]string `json:"versions"` // by path: what a reader sees
	Sizes     map[string]int64  `json:"sizes"`    // by place: acknowledged bytes
}

const metaName = "copy.json"

// place is where a file of that version lies, relative to the copy.
func (h *held) place(p, version string) string {
	seen, ok := h.meta.Versions[p]
	if ok && seen == version || !ok && version == "" {
		return p
	}
	return p + "~" + version
}

func (h *held) path(place string) string { return filepath.Join(h.dir, filepath.FromSlash(place)) }

// openHeld reads what is there of a copy, and makes it if there is nothing. What
// was not acknowledged before a crash is cut off.
func openHeld(owner, id, dir string) (*held, error) {
	h := &held{owner: owner, id: id, dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, metaName))
	if err == nil {
		err = json.Unmarshal(text, &h.meta)
	} else if errors.Is(err, fs.ErrNotExist) {
		h.meta.Touched = time.Now().UTC() // else it would be too old at once
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open copy of %s: %w", owner, err)
	}
	if h.meta.Versions == nil {
		h.meta.Versions = map[string]string{}
	}
	if h.meta.Sizes == nil {
		h.meta.Sizes = map[string]int64{}
	}
	if err := h.mend(); err != nil {
		return nil, fmt.Errorf("open copy of %s: %w", owner, err)
	}
	h.publish()
	return h, nil
}

// publish tells readers what is there now.
func (h *held) publish() {
	var n int64
	for _, size := range h.meta.Sizes {
		n += size
	}
	h.size.Store(n)
	c := &Copy{Owner: h.owner, ID: h.id, At: h.meta.At, Bytes: n}
	if h.meta.From != "" {
		c.From, _ = store.PartStart(h.meta.From) // a name that is no time is told as nothing
	}
	h.seen.Store(c)
}

// mend brings the files to what meta says of them.
func (h *held) mend() error {
	if err := h.settle(); err != nil {
		return err
	}
	there := map[string]int64{}
	err := filepath.WalkDir(h.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		rel, err2 := filepath.Rel(h.dir, name)
		there[filepath.ToSlash(rel)] = info.Size()
		return errors.Join(err, err2)
	})
	if err != nil {
		return err
	}
	for place, size := range there {
		acknowledged, known := h.meta.Sizes[place]
		switch {
		case place == metaName || place == store.CheckpointName:
		case !known:
			err = os.Remove(h.path(place))
		case size > acknowledged:
			err = os.Truncate(h.path(place), acknowledged)
		case size < acknowledged:
			h.meta.Sizes[place] = size
		}
		if err != nil {
			return err
		}
	}
	maps.DeleteFunc(h.meta.Sizes, func(place string, _ int64) bool { _, ok := there[place]; return !ok })
	return nil
}

// settle puts files that were committed beside another version in its place.
func (h *held) settle() error {
	for p, version := range h.meta.Versions {
		beside := p + "~" + version
		size, ok := h.meta.Sizes[beside]
		if !ok {
			continue
		}
		if err := os.Rename(h.path(beside), h.path(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(h.meta.Sizes, beside)
		h.meta.Sizes[p] = size
	}
	return nil
}

// save writes meta. Unless it must be, it is not made durable by itself: an
// older one only makes more be sent again.
func (h *held) save(durable bool) error {
	text, err := json.Marshal(h.meta)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(h.dir, metaName), text, durable)
}

func replaceFile(path string, b []byte, durable bool) error {
	f, err := os.OpenFile(path+"~", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+"~", path); err != nil || !durable {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// state tells the owner what is there.
func (h *held) state() (State, error) {
	out := State{At: h.meta.At, From: h.meta.From, Floor: h.meta.Floor}
	for place, size := range h.meta.Sizes {
		p, version, beside := strings.Cut(place, "~")
		if !beside {
			version = h.meta.Versions[p]
		}
		_, seen := h.meta.Versions[p]
		tail, err := tailSum(h.path(place), size)
		if err != nil {
			return State{}, fmt.Errorf("read copy of %s: %w", h.owner, err)
		}
		out.Files = append(out.Files, Held{File: store.File{Path: p, Version: version, Size: size}, Committed: seen && !beside, Tail: tail})
	}
	slices.SortFunc(out.Files, func(a, b Held) int { return strings.Compare(a.Path+"~"+a.Version, b.Path+"~"+b.Version) })
	return out, nil
}

// tailSum is the sum of the last bytes before size.
func tailSum(path string, size int64) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // read only
	b := make([]byte, min(size, tailBytes))
	if _, err := f.ReadAt(b, size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return crc32.Checksum(b, castagnoli()), nil
}

// errMismatch is answered when a shipment does not go on where the copy ends.
var errMismatch = errors.New("shipment does not continue the copy")

// receive takes a shipment. room is asked before bytes are added. What it
// returned nil for is durable.
func (h *held) receive(r io.Reader, room func(n int64) error) (received int64, err error) {
	in := arrival{h: h, open: map[string]*os.File{}, dirs: map[string]bool{}}
	defer func() {
		if err != nil { // what came before is kept
			if syncErr := errors.Join(in.sync(), h.save(false)); syncErr != nil {
				h.torn = true
				err = errors.Join(err, syncErr)
			}
		}
		err = errors.Join(err, in.close())
		h.publish()
	}()
	var buf []byte
	for {
		var f frame
		f, buf, err = readFrame(r, buf)
		switch {
		case errors.Is(err, io.EOF):
			if err := in.sync(); err != nil {
				return received, err
			}
			h.meta.Touched = time.Now().UTC()
			return received, h.save(false)
		case err != nil:
			return received, err
		}
		switch f.kind {
		case frameData:
			if err := room(int64(len(f.body))); err != nil {
				return received, err
			}
			if err := in.add(f); err != nil {
				return received, err
			}
			received += int64(len(f.body))
		case frameMark:
			if !h.meta.Committed {
				continue // the write-ahead log alone cannot be read
			}
			if err := in.sync(); err != nil {
				return received, err
			}
			if at := time.Unix(0, f.offset).UTC(); at.After(h.meta.At) {
				h.meta.At = at
			}
		case frameCommit:
			var c commit
			if err := json.Unmarshal(f.body, &c); err != nil {
				return received, fmt.Errorf("%w: %w", errFrame, err)
			}
			if err := in.sync(); err != nil {
				return received, err
			}
			if err := h.commit(c); err != nil {
				return received, err
			}
		}
	}
}

// arrival is the files of one shipment.
type arrival struct {
	h    *held
	open map[string]*os.File // by place; written and not synced
	dirs map[string]bool     // in which a file was made
}

func (in *arrival) add(f frame) error {
	place := in.h.place(f.path, f.version)
	size, known := in.h.meta.Sizes[place]
	if f.offset != size && f.offset != 0 {
		return fmt.Errorf("%w: %s has %d bytes, not %d", errMismatch, f.path, size, f.offset)
	}
	if part := partOf(f.path); part != "" && part <= in.h.meta.Floor {
		return fmt.Errorf("%w: partition %s was dropped", errMismatch, part)
	}
	file, ok := in.open[place]
	if f.offset == 0 && size > 0 { // the owner has other bytes there; who reads these, or has mapped them, keeps them
		if ok {
			delete(in.open, place)
			_ = file.Close() // it is not to be kept
		}
		if err := os.Remove(in.h.path(place)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		ok, known = false, false
	}
	if !ok {
		path := in.h.path(place)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		in.open[place] = file
		if !known {
			in.dirs[filepath.Dir(path)] = true
		}
	}
	in.h.meta.Sizes[place] = f.offset
	if _, err := file.WriteAt(f.body, f.offset); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", f.path, err), file.Truncate(f.offset))
	}
	in.h.meta.Sizes[place] = f.offset + int64(len(f.body))
	return nil
}

// sync makes durable what was added.
func (in *arrival) sync() error {
	for place, f := range in.open {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", place, err)
		}
	}
	if err := in.close(); err != nil {
		return err
	}
	for d := range in.dirs {
		for ; len(d) >= len(in.h.dir); d = filepath.Dir(d) {
			if err := syncDir(d); err != nil {
				return fmt.Errorf("sync copy of %s: %w", in.h.owner, err)
			}
		}
	}
	clear(in.dirs)
	return nil
}

func (in *arrival) close() (errs error) {
	for _, f := range in.open {
		errs = errors.Join(errs, f.Close())
	}
	clear(in.open)
	return errs
}

// commit makes the files of c what a reader sees, and removes the others.
func (h *held) commit(c commit) error {
	versions, keep := map[string]string{}, map[string]bool{}
	for _, f := range c.Files {
		if part := partOf(f.Path); part != "" && part <= h.meta.Floor {
			continue
		}
		if !legal(f.Path) || !legalVersion(f.Version) {
			return fmt.Errorf("%w: a file is called %q", errFrame, f.Path)
		}
		place := h.place(f.Path, f.Version)
		if size, ok := h.meta.Sizes[place]; !ok && f.Size > 0 || size < f.Size {
			return fmt.Errorf("%w: %s has %d bytes, not %d", errMismatch, f.Path, size, f.Size)
		}
		versions[f.Path] = f.Version
		keep[place] = true
	}
	for _, f := range c.Coming {
		keep[h.place(f.Path, f.Version)] = true
	}
	h.meta.Versions = versions
	for place := range h.meta.Sizes {
		if p, version, beside := strings.Cut(place, "~"); beside && versions[p] == version && keep[place] {
			keep[p] = true // it comes there
		}
	}
	h.meta.At, h.meta.Committed, h.meta.From, h.meta.Keep = c.At, true, c.From, c.Keep
	// From here on a crash is mended by settle.
	err := h.save(true)
	if err == nil && len(c.Checkpoint) > 0 {
		err = replaceFile(filepath.Join(h.dir, store.CheckpointName), c.Checkpoint, true)
	}
	if err == nil {
		err = h.settle()
	}
	if err == nil {
		err = h.sweep(keep)
	}
	if err != nil {
		return fmt.Errorf("commit copy of %s: %w", h.owner, err)
	}
	return nil
}

// sweep removes files that are not to be kept, and directories left empty.
func (h *held) sweep(keep map[string]bool) error {
	for place := range h.meta.Sizes {
		if keep[place] {
			continue
		}
		if err := os.Remove(h.path(place)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(h.meta.Sizes, place)
		for d := filepath.Dir(h.path(place)); len(d) > len(h.dir); d = filepath.Dir(d) {
			if os.Remove(d) != nil {
				break // not empty
			}
		}
	}
	return nil
}

// dropParts removes the partitions up to one and takes them no more.
func (h *held) dropParts(upto string) error {
	gone := func(place string) bool { part := partOf(place); return part != "" && part <= upto }
	maps.DeleteFunc(h.meta.Versions, func(p, _ string) bool { return gone(p) })
	h.meta.Floor, h.meta.From = upto, ""
	for p := range h.meta.Versions {
		if part := partOf(p); part != "" && (h.meta.From == "" || part < h.meta.From) {
			h.meta.From = part
		}
	}
	if err := h.save(true); err != nil {
		return err
	}
	keep := map[string]bool{}
	for place := range h.meta.Sizes {
		keep[place] = !gone(place)
	}
	if err := h.sweep(keep); err != nil {
		return err
	}
	h.publish()
	return h.save(false)
}
