package tail

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// When notifications were lost, so may be that a directory is gone: it is not kept, and
// one of its name that was made since is watched.
func TestLostNotificationsLeaveTheRightWatches(t *testing.T) {
	dir := t.TempDir()
	tl, err := New(Default(dir, "n1"), newMemory(), nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if tl.watch, err = newWatcher(dir); err != nil {
		t.Fatal(err)
	}
	defer tl.watch.f.Close()
	pod := func(name string) string {
		return filepath.Join(dir, "default_"+name+"_00000000-0000-0000-0000-000000000000")
	}
	names := []string{"gone", "again", "stays"}
	for _, name := range names {
		if err := os.MkdirAll(pod(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tl.scanAll()
	before := maps.Clone(tl.watch.wds)
	if len(before) != 1+len(names) {
		t.Fatal(before)
	}
	for _, name := range names[:2] {
		if err := os.Remove(pod(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(pod("again"), 0o700); err != nil {
		t.Fatal(err)
	}
	tl.scanChanged([]event{{-1, unix.IN_Q_OVERFLOW}, {before[filepath.Base(pod("gone"))], unix.IN_IGNORED}})
	want := []string{"", filepath.Base(pod("again")), filepath.Base(pod("stays"))}
	if have := slices.Sorted(maps.Keys(tl.watch.wds)); !slices.Equal(have, want) || len(tl.watch.dirs) != len(want) {
		t.Errorf("watched are %q, %v", have, tl.watch.dirs)
	}
	again, stays := want[1], want[2]
	if tl.watch.wds[again] == before[again] || tl.watch.wds[stays] != before[stays] {
		t.Errorf("before %v, after %v", before, tl.watch.wds)
	}
}
