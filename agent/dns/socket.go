package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// questionBuffer is how many bytes of questions wait in the kernel while nobody
// reads them, about a thousand; more are dropped, and clients ask again.
const questionBuffer = 1 << 20

// Sockets are where questions come in. They may outlive a Server: a process
// that holds their Files keeps the questions that come while none runs.
type Sockets struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

// Listen opens the sockets, so that a port in use is found at once. The address
// need not exist yet.
func Listen(at netip.AddrPort) (Sockets, error) {
	lc := net.ListenConfig{Control: options}
	l, err := lc.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return Sockets{}, fmt.Errorf("listen dns %s: %w", at, err)
	}
	p, err := lc.ListenPacket(context.Background(), "udp", l.Addr().String())
	if err != nil {
		_ = l.Close() // nothing came yet
		return Sockets{}, fmt.Errorf("listen dns %s: %w", at, err)
	}
	return sockets(p, l)
}

// FromFiles are the sockets that an earlier process opened. It closes the files.
func FromFiles(udp, tcp *os.File) (Sockets, error) {
	p, err := net.FilePacketConn(udp)
	l, err2 := net.FileListener(tcp)
	err = errors.Join(err, err2, udp.Close(), tcp.Close())
	if err == nil {
		return sockets(p, l)
	}
	if p != nil {
		_ = p.Close() // the first error counts
	}
	if l != nil {
		_ = l.Close() // as above
	}
	return Sockets{}, fmt.Errorf("take over dns sockets: %w", err)
}

func sockets(p net.PacketConn, l net.Listener) (Sockets, error) {
	udp, ok := p.(*net.UDPConn)
	tcp, also := l.(*net.TCPListener)
	if !ok || !also || udp.LocalAddr().String() != tcp.Addr().String() {
		return Sockets{}, errors.Join(fmt.Errorf("take over dns sockets: %s over %s and %s over %s are no pair", p.LocalAddr(), p.LocalAddr().Network(), l.Addr(), l.Addr().Network()),
			p.Close(), l.Close())
	}
	return Sockets{udp, tcp}, nil
}

// Files are copies for another process; the caller closes them.
func (s Sockets) Files() (udp, tcp *os.File, _ error) {
	udp, err := s.udp.File()
	if err != nil {
		return nil, nil, fmt.Errorf("copy dns socket: %w", err)
	}
	tcp, err = s.tcp.File()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("copy dns socket: %w", err), udp.Close())
	}
	return udp, tcp, nil
}

// Address is where both listen.
func (s Sockets) Address() netip.AddrPort {
	at := s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// Close gives the sockets back; copies stay open.
func (s Sockets) Close() error { return errors.Join(s.tcp.Close(), s.udp.Close()) }

// options allow an address that the node gets later, and more questions than by
// default to wait.
func options(_, _ string, c syscall.RawConn) error {
	var opt error
	err := c.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, questionBuffer) // without the right to it the default stays
	})
	return errors.Join(err, opt)
}

// dropped is how many questions found the buffer full, since the socket was made.
func (s Sockets) dropped() float64 {
	var info [9]uint32 // SK_MEMINFO_*; the ninth counts drops
	size := uint32(unsafe.Sizeof(info))
	raw, err := s.udp.SyscallConn()
	if err != nil {
		return 0 // closed
	}
	_ = raw.Control(func(fd uintptr) { // 0 once it is closed
		_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	return float64(info[8])
}
