package network

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Raw sockets stay on the test's thread and so in its network namespace.

func listen(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Port: 8080}))
	must(t, unix.Listen(fd, 8))
	return fd
}

// dialThen connects to a listening socket and returns the address it saw.
func dialThen(ln int, to netip.Addr) (netip.Addr, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return netip.Addr{}, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 8080, Addr: to.As4()}); err != nil {
		return netip.Addr{}, err
	}
	got, from, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
	if err != nil {
		return netip.Addr{}, err
	}
	_ = unix.Close(got)
	return netip.AddrFrom4(from.(*unix.SockaddrInet4).Addr), nil
}
