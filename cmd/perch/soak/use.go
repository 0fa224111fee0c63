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
	memory                    int // MB that are no file's
	goroutines, files, series int // series it shows
}

func (u use) String() string {
	return fmt.Sprintf("%d MB, %d goroutines, %d files, %d series", u.memory, u.goroutines, u.files, u.series)
}

// uses are all roles'.
func (c cluster) uses(ctx context.Context) (map[string]use, error) {
	roles, err := c.roles(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]use{}
	for name, pid := range roles {
		var u use
		if u.memory, err = anonymous(pid); err != nil {
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
		if err := c.shown(ctx, name, &u); err != nil {
			return nil, err
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
			if rest, ok := strings.CutPrefix(l, "go_goroutines "); ok {
				if u.goroutines, err = strconv.Atoi(rest); err != nil {
					return fmt.Errorf("read goroutines of %s: %w", role, err)
				}
			}
		}
	}
	return s.Err()
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

// grown names what is clearly more than it was. Memory has a garbage collector,
// stores have buffers, and series have labels that come late.
func grown(before, after map[string]use) (out []string) {
	for role, b := range before {
		a := after[role]
		for _, v := range []struct {
			what      string
			was, is   int
			slack     int
			inPercent int
		}{
			{"MB", b.memory, a.memory, 64, 25}, {"goroutines", b.goroutines, a.goroutines, 20, 10},
			{"open files", b.files, a.files, 20, 10}, {"series", b.series, a.series, 100, 5},
		} {
			if v.is > v.was+v.slack+v.was*v.inPercent/100 {
				out = append(out, fmt.Sprintf("%s: %d %s, were %d", role, v.is, v.what, v.was))
			}
		}
	}
	slices.Sort(out)
	return out
}
