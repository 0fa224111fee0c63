package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/rogpeppe/go-internal/testscript"
)

// words are what scenarios may say beside testscript's own commands.
//
//	[!] until DURATION REGEXP PROGRAM ARG…   retry until stdout+stderr match (or, with !, do not)
//	apply FILE                               perch apply into the scenario's namespace, $NS and $PERCH in the file replaced
func words(c cluster) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"until": func(ts *testscript.TestScript, neg bool, args []string) {
			if len(args) < 3 {
				ts.Fatalf("usage: until DURATION REGEXP PROGRAM ARG…")
			}
			limit, err := time.ParseDuration(args[0])
			ts.Check(err)
			want, err := regexp.Compile("(?m)" + args[1])
			ts.Check(err)
			program := args[2]
			if own := filepath.Join(c.bin, program); exists(own) {
				program = own
			}
			deadline := time.After(limit)
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			var out []byte
			for {
				cmd := exec.Command(program, args[3:]...)
				cmd.Dir = ts.Getenv("WORK")
				cmd.Env = append(c.env(), "NS="+ts.Getenv("NS"), "DATA="+c.dir)
				out, err = cmd.CombinedOutput()
				out = bytes.TrimRight(out, "\n") // so that ^$ is "nothing"
				if want.Match(out) != neg && (err == nil || neg) {
					ts.Logf("%s", out)
					return
				}
				select {
				case <-deadline:
					ts.Fatalf("not within %s: %q; last (%v):\n%s", limit, args[1], err, out)
				case <-tick.C:
				}
			}
		},
		"apply": func(ts *testscript.TestScript, neg bool, args []string) {
			if len(args) != 1 {
				ts.Fatalf("usage: apply FILE")
			}
			text := strings.NewReplacer("$NS", ts.Getenv("NS"), "$PERCH", c.perch).Replace(ts.ReadFile(args[0]))
			file := filepath.Join(ts.Getenv("WORK"), "applied-"+filepath.Base(args[0]))
			ts.Check(os.WriteFile(file, []byte(text), 0o600))
			err := ts.Exec("perch", "apply", "-n", ts.Getenv("NS"), "-f", file)
			if neg != (err != nil) {
				ts.Fatalf("apply %s: %v", args[0], err)
			}
		},
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// left is what is there after and was not there before. Beside other clusters
// on the same machine only what carries this one's name, directory or networks
// counts.
func (c cluster) left(t *testing.T, before map[string][]string) map[string][]string {
	t.Helper()
	alone := !othersRun(c.dir)
	out := map[string][]string{}
	for what, have := range residue(t, c) {
		for _, l := range difference(have, before[what]) {
			mark := map[string][]string{"mounts": {c.dir}, "tables": {"perch-" + c.name}, "routes": {"10.52.", "10.53."}, "addresses": {"10.52.", "10.53."}}[what]
			if alone || what == "cgroups" || what == "processes" || what == "files" || slices.ContainsFunc(mark, func(m string) bool { return strings.Contains(l, m) }) {
				out[what] = append(out[what], l)
			}
		}
	}
	return out
}

func othersRun(dir string) bool {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	return slices.ContainsFunc(procs, func(p string) bool {
		text, err := os.ReadFile(p)
		return err == nil && strings.Contains(string(text), "\x00role\x00") && !strings.Contains(string(text), dir+"\x00")
	})
}

// residue is what a machine may have kept of a cluster.
func residue(t *testing.T, c cluster) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(l); len(f) > 1 {
			out["mounts"] = append(out["mounts"], f[1])
		}
	}
	for what, args := range map[string][]string{
		"links":     {"ip", "-o", "link"},
		"addresses": {"ip", "-o", "-4", "addr"},
		"routes":    {"ip", "route", "show", "table", "all"},
	} {
		text, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		for _, l := range strings.Split(string(text), "\n") {
			if what == "links" { // flags and counters change by themselves
				f := strings.Fields(l)
				if len(f) < 2 {
					continue
				}
				l = f[1]
			}
			out[what] = append(out[what], strings.TrimSpace(l))
		}
	}
	// Not by Debian's nft, which aborts over what another cluster's Services use.
	nft, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := nft.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		out["tables"] = append(out["tables"], fmt.Sprintf("table %d %s", table.Family, table.Name))
	}
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/perch-" + c.name)
	more, _ := filepath.Glob("/sys/fs/cgroup/perch-" + c.name)
	out["cgroups"] = append(cgroups, more...)
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if text, err := os.ReadFile(p); err == nil && strings.Contains(string(text), c.dir) {
			out["processes"] = append(out["processes"], strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	if _, err := os.Stat(c.dir); err == nil {
		out["files"] = append(out["files"], c.dir)
	}
	return out
}

func difference(have, before []string) []string {
	var out []string
	for _, h := range have {
		if !slices.Contains(before, h) {
			out = append(out, fmt.Sprint(h))
		}
	}
	return out
}
