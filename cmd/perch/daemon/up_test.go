package daemon

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/preflight"
)

func TestWhatCannotStartHoldsNothing(t *testing.T) {
	busy, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	cfg := config.Default()
	cfg.Name, cfg.DataDir, cfg.NodeName, cfg.AdvertiseAddress = "unit-take", t.TempDir(), "n1", netip.MustParseAddr("127.0.0.1")
	cfg.ClusterCIDR, cfg.ServiceCIDR = netip.MustParsePrefix("198.18.0.0/24"), netip.MustParsePrefix("198.19.0.0/24")
	for _, port := range []*int{&cfg.WebPort, &cfg.AgentPort, &cfg.ForwardPort, &cfg.PeerPort} { // a cluster may run on this machine
		free, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		*port = free.Addr().(*net.TCPAddr).Port
		if err := free.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cfg.APIPort = busy.Addr().(*net.TCPAddr).Port
	for _, c := range []struct{ what, want string }{
		{"its directory is held", "already runs on"},
		{"its name is held", "named unit-take"}, // which counts before its ports
		{"a port is in use", "--api-port"},
	} {
		var hold *preflight.Lock
		switch c.what {
		case "its directory is held":
			hold, err = preflight.TakeLock(cfg.DataDir)
		case "its name is held":
			hold, err = preflight.TakeName(cfg.Name, topCgroup(cfg.CgroupRoot()))
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := take(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		}
		if hold != nil {
			hold.Close()
		}
		free, err := preflight.TakeLock(cfg.DataDir)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		free.Close()
	}
}
