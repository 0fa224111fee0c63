package debiantest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// debian is a PATH with an apt-get and a dpkg-deb that do as Debian's, slowly, with
// tools that say their name. Each download is a line of the file fetched.
func debian(t *testing.T) (fetched string) {
	t.Helper()
	bin := t.TempDir()
	fetched = filepath.Join(bin, "fetched")
	padding := strings.Repeat("# a tool is not written in one piece\n", 50_000)
	for name, text := range map[string]string{
		"apt-get": "#!/bin/sh\necho $3 >>" + fetched + "\n[ -e " + bin + "/offline ] && exit 100\n: >$3_1_amd64.deb\n",
		"dpkg-deb": "#!/bin/sh\n[ $# = 2 ] || { echo 'more than one package' >&2; exit 1; }\n" +
			"cd " + bin + "/tree && tar -c ./usr\n",
		"tree/usr/bin/amtool":                       "#!/bin/sh\n" + padding + "echo amtool\n",
		"tree/usr/bin/promtool":                     "#!/bin/sh\n" + padding + "echo promtool\n",
		"tree/usr/bin/prometheus-node-exporter":     "#!/bin/sh\n" + padding + "echo prometheus-node-exporter\n",
		"tree/usr/bin/prometheus-blackbox-exporter": "#!/bin/sh\n" + padding + "echo prometheus-blackbox-exporter\n",
	} {
		file := filepath.Join(bin, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return fetched
}

const script = "../promtools.sh"

func TestPackagesThatFetchAtTheSameTimeDoNotHarmEachOther(t *testing.T) {
	fetched, dir := debian(t), filepath.Join(t.TempDir(), "out", "promtools")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, name := range []string{"amtool", "promtool", "prometheus-node-exporter", "prometheus-blackbox-exporter"} {
				tool, err := fetch(script, dir, name)
				if err != nil {
					t.Error(err)
					return
				}
				if out, err := exec.Command(tool).CombinedOutput(); err != nil || string(out) != name+"\n" {
					t.Errorf("%s while others fetch it: %v %s", name, err, out)
				}
			}
		})
	}
	all.Wait()
	if text, err := os.ReadFile(fetched); err != nil || string(text) != "prometheus-alertmanager\nprometheus\nprometheus-node-exporter\nprometheus-blackbox-exporter\n" {
		t.Errorf("downloaded: %q %v", text, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 5 { // the four and a lock
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestWhatCannotBeFetchedSaysWhatToDo(t *testing.T) {
	fetched, dir := debian(t), filepath.Join(t.TempDir(), "promtools")
	offline := filepath.Join(filepath.Dir(fetched), "offline")
	if err := os.WriteFile(offline, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(script, dir, "amtool"); err == nil || !strings.Contains(err.Error(), "apt-get update") || !strings.Contains(err.Error(), "into "+dir) {
		t.Errorf("no package lists: %v", err)
	}
	if err := os.Remove(offline); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(script, dir, "amtool"); err != nil {
		t.Errorf("after that: %v", err)
	}
	none := t.TempDir() // a machine of another kind
	for _, tool := range []string{"realpath", "sh"} {
		at, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, filepath.Join(none, tool)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", none)
	if _, err := fetch(script, dir, "amtool"); err != nil {
		t.Errorf("tools that are there are used wherever that is: %v", err)
	}
	if _, err := fetch(script, filepath.Join(dir, "other"), "amtool"); err == nil || !strings.Contains(err.Error(), "put amtool, promtool, prometheus-node-exporter and prometheus-blackbox-exporter into "+filepath.Join(dir, "other")) {
		t.Errorf("no Debian: %v", err)
	}
}
