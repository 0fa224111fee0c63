package preflight

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is also a role that tells its limit.
func TestMain(m *testing.M) {
	if os.Getenv("TELL_LIMIT") != "" {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
		fmt.Println(limit.Cur, limit.Max)
		// What a role starts, a shim for example, gets what the machine's owner set.
		cmd := exec.Command("sh", "-c", "ulimit -Sn")
		cmd.Stdout = os.Stdout
		if err := cmd.Run(); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestAFewOpenFilesAreToldWithThePodsTheySufficeFor(t *testing.T) {
	for limit, want := range map[uint64]string{1024: "about 23 pods", 4096: "about 106 pods", 100: "about 0 pods", 20000: "", 1 << 20: ""} {
		got := strings.Join(enoughFiles(limit), "")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%d: %q, want %q", limit, got, want)
		}
	}
}

// Go raises the soft limit of open files to the hard one when a program starts,
// and gives its children the one it found: roles have it, containers do not.
func TestAProgramMayOpenAllFilesTheHardLimitAllowsAndItsChildrenDoNot(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "ulimit -Sn 512; ulimit -Hn 2000; exec "+exe)
	cmd.Env = append(os.Environ(), "TELL_LIMIT=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(`^(1999|2000) 2000\n512\n$`).Match(out) { // Go may leave one, as a mark that the limit is its own
		t.Errorf("got %q, %v", out, err)
	}
}
