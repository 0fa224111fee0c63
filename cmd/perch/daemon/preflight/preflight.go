// Package preflight looks whether this machine can run perch before anything
// is started, so that each obstacle is one sentence with its way out.
//
// It changes nothing on the machine but the data directory. Start reading at
// Host and Room; which networks collide is overlap in network.go.
package preflight

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host returns what stands in the way of any cluster on this machine with this
// data directory, which may not exist yet, as a sentence with its way out.
func Host(dir string) error {
	if err := Root(); err != nil {
		return err
	}
	if err := kernel(); err != nil {
		return err
	}
	return dataDir(dir)
}

// Room returns what others on this machine have that a cluster wants: its
// networks and its TCP ports (by flag name). Warnings are sentences, too, but no
// obstacle.
func Room(n Networks, want map[string]int) (warnings []string, _ error) {
	warnings, err := networks(n)
	if err != nil {
		return nil, err
	}
	return append(warnings, openFiles()...), ports(want)
}

// Root refuses to run without the privileges that everything else needs.
func Root() error {
	if os.Geteuid() != 0 {
		return errors.New("perch needs root, because it makes namespaces, cgroups and network rules: run it with sudo")
	}
	return nil
}

func kernel() error {
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			return fmt.Errorf("this kernel has no %s namespaces: use one built with CONFIG_NAMESPACES", ns)
		}
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("read /proc/filesystems: %w: mount /proc", err)
	}
	if !strings.Contains(string(known), "\toverlay\n") && !moduleThere("overlay") {
		return errors.New("this kernel has no overlay file system: load it with `modprobe overlay`")
	}
	if err := netfilter(); err != nil {
		return err
	}
	return cgroups()
}

func moduleThere(name string) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	found, _ := filepath.Glob("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/kernel/fs/*/" + name + ".ko*")
	return len(found) > 0
}

// netfilter asks the kernel for a netfilter socket; a kernel without it refuses
// the protocol.
func netfilter() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("this kernel has no nftables (%w): load it with `modprobe nf_tables`", err)
	}
	return unix.Close(fd)
}

// cgroups accepts the unified tree with controllers, or the version 1
// controllers mounted below /sys/fs/cgroup.
func cgroups() error {
	if have, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		for _, c := range []string{"cpu", "memory", "pids"} {
			if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+c+" ") {
				return fmt.Errorf("the cgroup tree lacks the %s controller: enable it on the kernel command line (cgroup_enable=%s)", c, c)
			}
		}
		return nil
	}
	for _, c := range []string{"cpu", "memory", "pids", "freezer", "devices"} {
		if _, err := os.Stat("/sys/fs/cgroup/" + c); err != nil {
			return fmt.Errorf("no cgroup controller %s below /sys/fs/cgroup: mount cgroup2 there, or the version 1 controllers", c)
		}
	}
	return nil
}

func dataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w: choose another with --data-dir", err)
	}
	probe := filepath.Join(dir, ".writable")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return fmt.Errorf("write into data directory: %w: choose another with --data-dir", err)
	}
	if err := os.Remove(probe); err != nil {
		return fmt.Errorf("write into data directory: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at data directory: %w", err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on an overlay file system, on which container images cannot be stacked: give a --data-dir on a volume or disk", dir)
	}
	return nil
}

func ports(want map[string]int) error {
	for _, flag := range slices.Sorted(maps.Keys(want)) {
		p := want[flag]
		l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(p)))
		if err != nil {
			return fmt.Errorf("port %d is in use: stop what uses it, or move perch with --%s", p, flag)
		}
		l.Close()
	}
	return nil
}

// Address is this machine's address towards others: that of the default route,
// else the first global IPv4 address.
func Address() (netip.Addr, error) {
	// Connecting a UDP socket sends nothing; it only asks the routing table.
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if a, ok := netip.AddrFromSlice(c.LocalAddr().(*net.UDPAddr).IP); ok && !a.Unmap().IsLoopback() {
			return a.Unmap(), nil
		}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			addr, _ := netip.AddrFromSlice(n.IP.To4())
			return addr, nil
		}
	}
	return netip.Addr{}, errors.New("this machine has no IPv4 address but loopback: give one with --advertise-address")
}

// HasAddress says whether an address is one of this machine's.
func HasAddress(a netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // not known; nothing is gained by doubting
	}
	for _, have := range all {
		if n, ok := have.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
			return true
		}
	}
	return false
}

// Lock holds a data directory or a name until it is closed or the process ends.
type Lock struct{ f *os.File }

// TakeLock refuses a directory that another running perch holds.
func TakeLock(dir string) (*Lock, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // the pid is a courtesy
		f.Close()
		return nil, fmt.Errorf("perch already runs on %s (pid %s): stop it with `perch down --data-dir %s`, or give another --data-dir and --name",
			dir, strings.TrimSpace(string(holder)), dir)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return &Lock{f}, nil
}

// TakeName refuses a name under which a running cluster with another data
// directory has its pods; dir is the top of that name's cgroups. Both would take
// each other's pods, links and rules for left-overs.
func TakeName(name, dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", dir, err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a cluster named %s runs on this machine with another data directory: give another --name", name)
	}
	return &Lock{f}, nil
}

// Close lets go.
func (l *Lock) Close() error { return l.f.Close() }
