package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// use is what one role holds. What stores have on disk and map grows with what they
// keep, so it does not count.
type use struct {
	resident                  int // MB that are no file's, with what the collector has yet to give back
	heap                      int // MB of objects
	ended                     int // series its store no longer holds, since it began
	goroutines, files, series int // series it shows
}

func (u use) String() string {
	return fmt.Sprintf("%d MB, %d of them objects, %d goroutines, %d files, %d series", u.resident, u.heap, u.goroutines, u.files, u.series)
}

// uses are all roles'. When a heap is counted before is called with its role, and what
// that leaves is the heap without garbage.
func (c cluster) uses(ctx context.Context, before func(role string) error) (map[string]use, error) {
	roles, err := c.roles(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]use{}
	for name, pid := range roles {
		var u use
		if err := before(name); err != nil {
			return nil, err
		}
		if err := c.shown(ctx, name, &u); err != nil { // at once: what is allocated since counts, too
			return nil, err
		}
		if u.resident, err = anonymous(pid); err != nil {
			return nil, err
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return nil, fmt.Errorf("count open files of %s: %w", name, err)
		}
		for _, f := range files {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, f.Name()))
			if err == nil && !strings.HasPrefix(to, c.dir+"/metrics/") && !strings.HasPrefix(to, c.dir+"/logs/") { // else it is a store's, or closed meanwhile
				u.files++
			}
		}
		if u.heap == 0 || u.goroutines == 0 || u.files == 0 || u.series == 0 {
			return nil, fmt.Errorf("%s does not show all that is compared: %s", name, u)
		}
		out[name] = u
	}
	return out, nil
}

// shown reads what a role shows of itself.
func (c cluster) shown(ctx context.Context, role string, u *use) error {
	body, err := c.ask(ctx, role+"-debug", "/metrics", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	s := bufio.NewScanner(body)
	for s.Scan() {
		if l := s.Text(); l != "" && l[0] != '#' {
			u.series++
			if err := u.take(l); err != nil {
				return fmt.Errorf("read what %s shows: %w", role, err)
			}
		}
	}
	return s.Err()
}

// take keeps the value of a line if it is one of use.
func (u *use) take(line string) error {
	name, text, _ := strings.Cut(line, " ")
	to, unit := &u.goroutines, 1.0
	switch name {
	case "go_goroutines":
	case "go_memstats_heap_alloc_bytes":
		to, unit = &u.heap, 1<<20
	case "prometheus_tsdb_head_series_removed_total":
		to = &u.ended
	default:
		return nil
	}
	v, err := strconv.ParseFloat(text, 64)
	*to = int(v / unit)
	return err
}

func anonymous(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "RssAnon:" {
			kb, err := strconv.Atoi(f[1])
			return kb >> 10, err
		}
	}
	return 0, fmt.Errorf("read memory of %d: no RssAnon", pid)
}

// endedBytes is what an ended series costs until two hours later, and the room for as
// many from then on: the library keeps a number and a time of each in a map, 17 bytes
// in a table that is between 7/16 and 7/8 full (DECISIONS.md,
// "10,000 pods of 100 ms leave 33 MB that are the database's").
const endedBytes = 39

// grown names what is clearly more than it was, heaps without garbage both. Stores
// have buffers, series have labels that come late, and of a process with a Go heap
// about as much again is resident as its objects take.
func grown(before, after map[string]use) (out []string) {
	for role, b := range before {
		a, still := after[role]
		if !still {
			out = append(out, role+": it is gone")
			continue
		}
		table := (a.ended - b.ended) * endedBytes >> 20
		for _, v := range []struct {
			what      string
			was, is   int
			slack     int
			inPercent int
		}{
			{"MB of objects", b.heap, a.heap, 16 + table, 0}, {"MB", b.resident, a.resident, 64 + 2*table, 25}, {"goroutines", b.goroutines, a.goroutines, 20, 10},
			{"open files", b.files, a.files, 20, 10}, {"series", b.series, a.series, 100, 5},
		} {
			if most := v.was + v.slack + v.was*v.inPercent/100; v.is > most {
				out = append(out, fmt.Sprintf("%s: %d %s, were %d and may be %d", role, v.is, v.what, v.was, most))
			}
		}
	}
	slices.Sort(out)
	return out
}
