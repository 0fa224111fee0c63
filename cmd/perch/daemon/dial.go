package daemon

import (
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
)

const (
	// connectLimit is how long another machine may take to accept a connection.
	connectLimit = 2 * time.Second
	// silentLimit is how long it may leave what was sent unacknowledged.
	silentLimit = 10 * time.Second
)

// machines connects to other machines of the cluster. One that lost its power says
// nothing, and comes back knowing nothing of its connections; without a limit of
// the kernel's (TCP_USER_TIMEOUT, see tcp(7)) requests wait on those for up to a
// minute after it is there again.
var machines = &net.Dialer{
	Timeout:         connectLimit,
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silentLimit / 2, Interval: silentLimit / 2, Count: 2},
	Control: func(network, _ string, c syscall.RawConn) error {
		if network != "tcp4" && network != "tcp6" {
			return nil
		}
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silentLimit.Milliseconds()))
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return fmt.Errorf("limit the silence of a connection: %w", err)
		}
		return nil
	},
}

// machineClient speaks HTTPS to other machines as whom a configuration says.
func machineClient(rc *rest.Config) (*http.Client, error) {
	rc = rest.CopyConfig(rc)
	rc.Dial = machines.DialContext
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return nil, fmt.Errorf("make client of other machines: %w", err)
	}
	return client, nil
}
