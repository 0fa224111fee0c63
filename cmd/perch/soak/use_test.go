package main

import (
	"strings"
	"testing"
)

func TestWhatGrewIsNamed(t *testing.T) {
	was := use{resident: 100, heap: 50, ended: 1_000, goroutines: 100, files: 10, series: 1_000}
	for _, tc := range []struct {
		name string
		is   use
		want string
	}{
		{"nothing", was, ""},
		{"a little", use{heap: 66, ended: 1_000, goroutines: 130, files: 31, series: 1_150}, ""},
		{"objects", use{heap: 67, ended: 1_000}, "r: 67 MB of objects, were 50 and may be 66"},
		{"as much as a million ended series explain", use{heap: 103, ended: 1_001_000}, ""},
		{"more than that", use{heap: 104, ended: 1_001_000}, "r: 104 MB of objects, were 50 and may be 103"},
		{"memory that is no object's", use{resident: 190, ended: 1_000}, "r: 190 MB, were 100 and may be 189"},
		{"goroutines", use{goroutines: 131}, "r: 131 goroutines, were 100 and may be 130"},
		{"files", use{files: 32}, "r: 32 open files, were 10 and may be 31"},
		{"series", use{series: 1_151}, "r: 1151 series, were 1000 and may be 1150"},
	} {
		got := strings.Join(grown(map[string]use{"r": was}, map[string]use{"r": tc.is}), "; ")
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestARoleThatIsGoneHasNotShrunk(t *testing.T) {
	if got := grown(map[string]use{"r": {heap: 50}}, map[string]use{}); len(got) != 1 || got[0] != "r: it is gone" {
		t.Errorf("%q", got)
	}
}

func TestARoleShowsWhatItHolds(t *testing.T) {
	var u use
	for _, l := range []string{"go_goroutines 439", "go_goroutines_more 1", "go_memstats_heap_alloc_bytes 1.11799296e+08",
		"prometheus_tsdb_head_series_removed_total 1.2e+06", `up{job="x"} 0`} {
		if err := u.take(l); err != nil {
			t.Errorf("take(%q) = %v", l, err)
		}
	}
	if want := (use{heap: 106, ended: 1_200_000, goroutines: 439}); u != want {
		t.Errorf("shown %+v, want %+v", u, want)
	}
	if err := u.take("go_goroutines many"); err == nil {
		t.Error("a value that is none is taken")
	}
}
