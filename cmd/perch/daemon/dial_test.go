package daemon

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A machine that lost its power is told from one that is slow by the kernel; what
// that does is seen in cmd/perch/e2e, where one does.
func TestMachinesMayNotBeSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := machines.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ option, want int }{
		"ms without an acknowledgement": {unix.TCP_USER_TIMEOUT, 10_000},
		"s idle until it is asked":      {unix.TCP_KEEPIDLE, 5},
		"s between questions":           {unix.TCP_KEEPINTVL, 5},
	} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, tc.option) }); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
