package bundle

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestChooseRunc(t *testing.T) {
	for _, c := range []struct {
		does string
		have []runc
		want string
		says string
	}{
		{"the embedded one that filters wins over the system's", []runc{{"/usr/bin/runc", false, true}, {"/d/runc", true, true}}, "/d/runc", "using runc of this build"},
		{"a system one that filters wins over an embedded one that does not", []runc{{"/d/runc", true, false}, {"/usr/bin/runc", false, true}}, "/usr/bin/runc", "using system runc /usr/bin/runc"},
		{"without any filter the embedded one is taken and the reason told", []runc{{"/usr/bin/runc", false, false}, {"/d/runc", true, false}}, "/d/runc", "seccomp profiles do not apply"},
		{"a lone system one without filter is taken and the reason told", []runc{{"/usr/bin/runc", false, false}}, "/usr/bin/runc", "seccomp profiles do not apply"},
	} {
		t.Run(c.does, func(t *testing.T) {
			have, why, err := chooseRunc(c.have)
			if err != nil || have.path != c.want || !strings.Contains(why, c.says) {
				t.Errorf("have %q, %q, %v; want %q, …%q…", have.path, why, err, c.want, c.says)
			}
		})
	}
	if _, _, err := chooseRunc(nil); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("without any runc: have %v, want an error that says what to do", err)
	}
}

// script is a fake runc that answers "features".
func script(seccomp string) []byte {
	return []byte("#!/bin/sh\n[ \"$1\" = features ] && echo '{\"linux\":{\"seccomp\":{\"enabled\":" + seccomp + "}}}'\n")
}

func carried(seccomp string) fs.FS {
	return fstest.MapFS{
		shimName:  {Data: []byte("shim"), Mode: 0o755},
		runcName:  {Data: script(seccomp), Mode: 0o755},
		pauseName: {Data: []byte("tar"), Mode: 0o644},
	}
}

func TestOpenWritesOnceAndTheSamePlace(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	dir := t.TempDir()
	first, err := open(carried("true"), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(first.Shim)
	again, err := open(carried("true"), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat(again.Shim)
	if first != again || !os.SameFile(before, after) {
		t.Errorf("have %+v then %+v, want the same files untouched", first, again)
	}
	cni, err := os.Stat(first.CNI)
	if err != nil || !os.SameFile(before, cni) {
		t.Errorf("the CNI plugin is not the shim's hard link: %v", err)
	}
	if !first.Seccomp || first.Runc != filepath.Join(first.Dir, "runc") {
		t.Errorf("have runc %q, seccomp %v", first.Runc, first.Seccomp)
	}
	other, err := open(carried("false"), dir, "")
	if err != nil || other.Dir == first.Dir {
		t.Errorf("another build shares the folder %s: %v", other.Dir, err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("have %v, want two folders and no leftovers", entries)
	}
}

func TestOpenWithoutEmbeddedHelpers(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	empty := fstest.MapFS{".gitignore": {}}
	if _, err := open(empty, t.TempDir(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "make build") || strings.Contains(err.Error(), "\n") {
		t.Errorf("have %v, want one sentence with the way out", err)
	}
	beside := t.TempDir()
	for name, content := range map[string][]byte{shimName: []byte("s"), pauseName: []byte("p"), runcName: script("true")} {
		if err := os.WriteFile(filepath.Join(beside, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "/usr/bin:/bin")
	h, err := open(empty, t.TempDir(), beside)
	if err != nil || !h.Seccomp {
		t.Errorf("helpers beside the executable: have %+v, %v", h, err)
	}
}
