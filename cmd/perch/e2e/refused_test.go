package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// refused: what cannot run says why in one sentence and leaves nothing running
// or changed, while the cluster beside it goes on.
func (c cluster) refused(t *testing.T) {
	other := filepath.Join(t.TempDir(), "d")
	free := []string{"--api-port=26443", "--web-port=29443", "--agent-port=30250", "--forward-port=44224", "--peer-port=22380",
		"--cluster-cidr=10.62.0.0/16", "--service-cidr=10.63.0.0/16", "--node-name=n2", "--name=e2e-other", "--data-dir", other}
	with := func(more ...string) []string { return append(slices.Clone(free), more...) }
	newer := filepath.Join(t.TempDir(), "newer")
	if err := os.MkdirAll(newer, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(newer+"/version", []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	if err := os.WriteFile(damaged+"/config.json", []byte("{no json"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := c.roles(t)
	for _, test := range []struct {
		name     string
		args     []string
		sentence string
		user     uint32
	}{
		{"a wrong flag", []string{"up", "--colour=red"}, "unknown flag: --colour", 0},
		{"a wrong value", append([]string{"up"}, with("--api-port=many")...), `invalid argument "many" for "--api-port"`, 0},
		{"a wrong network", append([]string{"up"}, with("--cluster-cidr=10.62.0.1/16")...), "--cluster-cidr", 0},
		{"networks that overlap", append([]string{"up"}, with("--cluster-cidr=10.63.0.0/16")...), "overlap", 0},
		{"a wrong name", append([]string{"up"}, with("--name=No Name")...), "--name", 0},
		{"too many words", []string{"up", "please"}, "please", 0},
		{"a second instance on the same data directory", []string{"up", "--data-dir", c.dir}, "already", 0},
		{"a port in use", append([]string{"up"}, with("--api-port=16443")...), "16443", 0},
		{"a name in use", append([]string{"up"}, with("--name", c.name)...), "--name", 0},
		{"a name in use says so before its ports do", append([]string{"up", "--data-dir", other, "--name", c.name}, c.ports...), "--name", 0},
		{"pods' network of the cluster beside", append([]string{"up"}, with("--cluster-cidr=10.52.0.0/16")...), "another perch cluster on this machine", 0},
		{"Services' network of the cluster beside", append([]string{"up"}, with("--service-cidr=10.53.128.0/17")...), "another perch cluster on this machine", 0},
		{"a damaged configuration", []string{"up", "--data-dir", damaged}, "is damaged", 0},
		{"status of a damaged configuration", []string{"status", "--data-dir", damaged}, "is damaged", 0},
		{"a newer data directory", append([]string{"up"}, with("--data-dir", newer)...), "newer perch", 0},
		{"a file as data directory", append([]string{"up"}, with("--data-dir", file)...), file, 0},
		{"a server's data directory for an agent", []string{"agent", "--data-dir", c.dir, "--server", "https://127.0.0.1:1", "--token", "x"}, "runs as server", 0},
		{"no privilege", append([]string{"up"}, with()...), "root", 65534},
		{"down without a cluster", []string{"down", "--data-dir", other + "-none"}, "no cluster in", 0},
		{"status without a cluster", []string{"status", "--data-dir", other + "-none"}, "no cluster in", 0},
		{"an unknown verb", []string{"fly"}, `unknown command "fly"`, 0},
	} {
		for _, detach := range []bool{false, true} {
			args := test.args
			name := test.name
			if detach {
				if args[0] != "up" {
					continue
				}
				args, name = append(slices.Clone(args), "--detach"), name+", detached"
			}
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, c.perch, args...)
				cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it runs; it must not
				cmd.WaitDelay = 20 * time.Second
				cmd.Env = c.env()
				if test.user != 0 {
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: test.user, Gid: test.user}}
				}
				out, err := cmd.CombinedOutput()
				var said []string
				for l := range strings.Lines(string(out)) {
					if !strings.HasPrefix(l, "starting ") && !strings.HasPrefix(l, "  ") { // progress
						said = append(said, strings.TrimSpace(l))
					}
				}
				if code := cmd.ProcessState.ExitCode(); code != 1 && code != 2 {
					t.Errorf("exit code %d, %v", code, err)
				}
				if len(said) != 1 || !strings.Contains(said[0], test.sentence) {
					t.Errorf("want one sentence with %q, got\n%s", test.sentence, out)
				}
				for what, have := range residue(t, cluster{dir: other, name: "e2e-other"}) {
					if (what == "processes" || what == "cgroups") && len(have) > 0 {
						t.Errorf("left %s: %s", what, have)
					}
				}
			})
		}
	}
	after := c.roles(t)
	for name, r := range before {
		if after[name].PID != r.PID {
			t.Errorf("role %s of the cluster beside was disturbed", name)
		}
	}
}
