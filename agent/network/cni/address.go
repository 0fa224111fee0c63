package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errFull says that every address of the pod CIDR is taken.
var errFull = errors.New("no free address")

// LinkName is the host's end of the veth of one sandbox interface. It is also
// the owner written into the address store.
func LinkName(network string, at Attachment) string {
	sum := sha256.Sum256([]byte(network + "\x00" + at.ContainerID + "\x00" + at.IfName))
	return "pc" + hex.EncodeToString(sum[:6])
}

// addresses is the store of one network: a folder with one empty file for each
// address in use, named <address>@<link>. The name carries the whole fact, and
// creating or removing a name is atomic, so a process killed at any point
// leaves either the address or nothing.
type addresses struct {
	dir  string
	pool netip.Prefix
	lock *os.File
}

// openAddresses takes the store's lock; it waits for another plugin process,
// which holds it for microseconds.
func openAddresses(c Config) (*addresses, error) {
	dir := filepath.Join(c.StateDir, c.Network)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open address store: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open address store: %w", err)
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err == nil {
			return &addresses{dir: dir, pool: c.PodCIDR, lock: lock}, nil
		}
		if !errors.Is(err, unix.EINTR) {
			_ = lock.Close() // nothing was written
			return nil, fmt.Errorf("lock address store %s: %w", dir, err)
		}
	}
}

func (a *addresses) close() {
	_ = a.lock.Close() // also gives the lock back; nothing was written to it
}

// held is one address in use.
type held struct {
	addr  netip.Addr
	owner string // link name
	file  string
}

// list reads all addresses in use. Files that are none of ours are skipped.
func (a *addresses) list() ([]held, error) {
	dir, err := os.Open(a.dir)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	defer func() { _ = dir.Close() }() // read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []held
	for _, name := range names {
		left, owner, ok := strings.Cut(name, "@")
		if !ok {
			continue
		}
		addr, err := netip.ParseAddr(left)
		if err != nil {
			continue
		}
		out = append(out, held{addr, owner, name})
	}
	return out, nil
}

// take gives owner an address: the one it already has, else the free one that
// follows the address given last, so that an address rests before it is used again.
func (a *addresses) take(owner string) (netip.Addr, error) {
	all, err := a.list()
	if err != nil {
		return netip.Addr{}, err
	}
	used := make(map[netip.Addr]bool, len(all))
	for _, h := range all {
		if h.owner == owner && a.pool.Contains(h.addr) {
			return h.addr, nil
		}
		used[h.addr] = true
	}
	addr, ok := nextFree(a.pool, a.last(), used)
	if !ok {
		return netip.Addr{}, fmt.Errorf("take address from %s for %s: %w", a.pool, owner, errFull)
	}
	file, err := os.OpenFile(filepath.Join(a.dir, addr.String()+"@"+owner), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("take address %s for %s: %w", addr, owner, err)
	}
	_ = file.Close() // empty
	// A lost or torn "last" only makes an address rest for a shorter time.
	_ = os.WriteFile(filepath.Join(a.dir, "last"), []byte(addr.String()), 0o600)
	return addr, nil
}

func (a *addresses) last() netip.Addr {
	text, err := os.ReadFile(filepath.Join(a.dir, "last"))
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(string(text))
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// of is the address that owner holds.
func (a *addresses) of(owner string) (netip.Addr, bool, error) {
	all, err := a.list()
	if err != nil {
		return netip.Addr{}, false, err
	}
	for _, h := range all {
		if h.owner == owner {
			return h.addr, true, nil
		}
	}
	return netip.Addr{}, false, nil
}

// free gives back every address that is to go. Freeing what is free is no error.
func (a *addresses) free(goes func(held) bool) (int, error) {
	all, err := a.list()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, h := range all {
		if !goes(h) {
			continue
		}
		if err := os.Remove(filepath.Join(a.dir, h.file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, fmt.Errorf("free address %s: %w", h.addr, err)
		}
		n++
	}
	return n, nil
}

// age is the time at which the address was taken; the zero time when it is gone.
func (a *addresses) age(h held) time.Time {
	info, err := os.Stat(filepath.Join(a.dir, h.file))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// nextFree is the first unused address of pool after last, wrapping around. The
// network address, the gateway and the broadcast address are never given.
func nextFree(pool netip.Prefix, last netip.Addr, used map[netip.Addr]bool) (netip.Addr, bool) {
	pool = pool.Masked()
	first := Gateway(pool).Next()
	size := 1<<(32-pool.Bits()) - 3 // without network, gateway and broadcast
	addr := last
	for range size {
		addr = addr.Next()
		if !pool.Contains(addr) || addr.Less(first) || !pool.Contains(addr.Next()) {
			addr = first
		}
		if !used[addr] {
			return addr, true
		}
	}
	return netip.Addr{}, false
}
