package cni

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Raw sockets stay on the test's thread and so in its network namespace.

type listener struct{ fd, port int }

func (l listener) Close() { _ = unix.Close(l.fd) }

func listen(addr netip.Addr) (listener, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return listener{}, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()}); err != nil {
		return listener{}, err
	}
	if err := unix.Listen(fd, 8); err != nil {
		return listener{}, err
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return listener{}, err
	}
	return listener{fd, at.(*unix.SockaddrInet4).Port}, nil
}

func dial(port int, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: addr.As4()})
}
