package daemon

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"perch/cmd/perch/daemon/config"
)

func worker(t *testing.T) config.Config {
	t.Helper()
	c := config.Default()
	c.Kind, c.DataDir, c.NodeName, c.AdvertiseAddress, c.Server = config.Agent, t.TempDir(), "w1", netip.MustParseAddr("127.0.0.1"), "https://10.0.0.11:6443"
	return c
}

func TestAMachineRemembersItsFlagsAndTakesNewOnes(t *testing.T) {
	had := worker(t)
	had.Web, had.AgentPort, had.ClusterDomain = "https://10.0.0.11:9443", 20250, "flock.test"
	if err := had.Save(); err != nil {
		t.Fatal(err)
	}
	given := config.Default()
	given.Kind = config.Agent
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	machineFlags(flags, &given)
	if err := flags.Parse([]string{"--data-dir", had.DataDir, "--forward-port", "34224"}); err != nil {
		t.Fatal(err)
	}
	got, err := remembered(given, flags)
	want := had
	want.ForwardPort = 34224
	if err != nil || got.Web != want.Web || got.AgentPort != 20250 || got.ForwardPort != 34224 || got.NodeName != "w1" ||
		got.Server != want.Server || got.ClusterDomain != "flock.test" || got.AdvertiseAddress != want.AdvertiseAddress {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	given.Kind = config.Server
	if _, err := remembered(given, flags); err == nil || !strings.Contains(err.Error(), "runs as agent") {
		t.Errorf("a worker's directory is taken by a server: %v", err)
	}
}

func TestAnAddressThatMovedIsLookedForAnew(t *testing.T) {
	had := worker(t)
	had.AdvertiseAddress = netip.MustParseAddr("192.0.2.77")
	if err := had.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := remembered(had, pflag.NewFlagSet("", pflag.ContinueOnError))
	if err != nil || got.AdvertiseAddress.IsValid() {
		t.Errorf("got %s, %v", got.AdvertiseAddress, err)
	}
}

func TestAFileGivesEachTokenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	pin := strings.Repeat("0a", 32)
	next := fileToken(path, io.Discard)
	write := func(secret string) {
		if err := os.WriteFile(path, []byte("perch1."+pin+".abc123."+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("0123456789abcdef")
	first, err := next(t.Context(), nil)
	if err != nil || first.Secret != "0123456789abcdef" {
		t.Fatalf("got %v, %v", first, err)
	}
	write("fedcba9876543210")
	second, err := next(t.Context(), errors.New("used before"))
	if err != nil || second.Secret != "fedcba9876543210" {
		t.Fatalf("got %v, %v", second, err)
	}
	if err := os.WriteFile(path, []byte("ey.this.jwt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := next(t.Context(), nil); ExitCode(err) != 2 || !strings.Contains(err.Error(), "bearer token") {
		t.Errorf("got %v", err)
	}
}

func TestATypedTokenIsTriedOnce(t *testing.T) {
	for text, problem := range map[string]string{"": "has not joined yet", "ey.this.jwt": "bearer token", "perch1.zz": "parts"} {
		if _, err := givenToken(text)(t.Context(), nil); ExitCode(err) != 2 || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: got %v, want %q", text, err, problem)
		}
	}
	if _, err := givenToken("perch1.x")(t.Context(), errors.New("used before")); ExitCode(err) != 2 || !strings.Contains(err.Error(), "used before") {
		t.Errorf("got %v", err)
	}
}

func TestWhatTheClusterSaysIsKeptWhole(t *testing.T) {
	say := map[string]string{"clusterCIDR": "10.72.0.0/16", "serviceCIDR": "10.73.0.0/16", "clusterDomain": "flock.test", "web": "https://10.0.0.11:9443"}
	got, err := told(worker(t), say)
	if err != nil || got.ServiceIP(10).String() != "10.73.0.10" || got.ClusterCIDR.String() != "10.72.0.0/16" || got.ClusterDomain != "flock.test" || got.Web != say["web"] {
		t.Errorf("got %+v, %v", got, err)
	}
	for key := range say {
		short := map[string]string{}
		for k, v := range say {
			if k != key {
				short[k] = v
			}
		}
		if _, err := told(worker(t), short); ExitCode(err) != 2 {
			t.Errorf("without %s: got %v", key, err)
		}
	}
}

func TestWhatAJoinMadeIsKnown(t *testing.T) {
	dir := t.TempDir()
	if got := firstMissing(filepath.Join(dir, "a", "b", "c")); got != filepath.Join(dir, "a") {
		t.Errorf("got %s", got)
	}
	if got := firstMissing(dir); got != "" {
		t.Errorf("got %s for what exists", got)
	}
}
