package cni

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// attached is what add made for one sandbox interface.
type attached struct {
	link             string // the host's end
	addr             netip.Addr
	hostMAC, peerMAC net.HardwareAddr
}

// Alias marks a link as one of the cluster's.
func Alias(cluster, containerID string) string { return "perch-" + cluster + "/" + containerID }

// add gives the sandbox its interface. Whatever an earlier, killed call left
// under the same name is replaced. When add fails, nothing of it stays.
func add(c Config, at Attachment, netnsPath string) (attached, error) {
	name := LinkName(c.Network, at)
	store, err := openAddresses(c)
	if err != nil {
		return attached{}, err
	}
	addr, err := store.take(name)
	store.close() // the kernel's part needs no lock: the address is ours now
	if err != nil {
		return attached{}, err
	}
	out := attached{link: name, addr: addr, hostMAC: mac(0xee, addr), peerMAC: mac(0x0a, addr)}
	if err := connect(c, at, netnsPath, out); err != nil {
		return attached{}, errors.Join(err, del(c, at))
	}
	return out, nil
}

// mac is a fixed, locally administered address. It is set explicitly because
// udev gives links with a random address a new one after they were made.
func mac(kind byte, addr netip.Addr) net.HardwareAddr {
	b := addr.As4()
	return net.HardwareAddr{kind &^ 1, 0x70, b[0], b[1], b[2], b[3]}
}

func connect(c Config, at Attachment, netnsPath string, want attached) error {
	space, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return fmt.Errorf("open netns %s: %w", netnsPath, err)
	}
	defer func() { _ = space.Close() }() // read only
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer host.Close()
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", netnsPath, err)
	}
	defer inside.Close()

	near, err := makePair(c, at, host, int(space), want)
	if err != nil {
		return err
	}
	if err := configureInside(c, at, inside, want); err != nil {
		return err
	}
	return configureHost(c, at, host, near, want)
}

// makePair makes both ends at once: the peer appears in the sandbox under its
// final name, so no moving and renaming is needed.
func makePair(c Config, at Attachment, host *netlink.Handle, space int, want attached) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = want.link, c.MTU, want.hostMAC
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: at.IfName, PeerHardwareAddr: want.peerMAC, PeerMTU: uint32(c.MTU),
		PeerNamespace: netlink.NsFd(space), PeerTxQLen: -1,
	}
	err := host.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) { // left by a call that was killed
		if old, found := host.LinkByName(want.link); found == nil {
			if err := host.LinkDel(old); err != nil {
				return nil, fmt.Errorf("replace link %s: %w", want.link, err)
			}
		}
		pair.Index = 0
		err = host.LinkAdd(pair)
	}
	if err != nil {
		return nil, fmt.Errorf("add link %s with peer %s: %w", want.link, at.IfName, err)
	}
	return pair, nil
}

func configureInside(c Config, at Attachment, inside *netlink.Handle, want attached) error {
	// Loopback is always the first link of a network namespace.
	if err := inside.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}); err != nil {
		return fmt.Errorf("set lo up in sandbox %s: %w", at.ContainerID, err)
	}
	peer, err := inside.LinkByName(at.IfName)
	if err != nil {
		return fmt.Errorf("find link %s in sandbox %s: %w", at.IfName, at.ContainerID, err)
	}
	index := peer.Attrs().Index
	if err := inside.AddrAdd(peer, &netlink.Addr{IPNet: host32(want.addr)}); err != nil {
		return fmt.Errorf("add address %s in sandbox %s: %w", want.addr, at.ContainerID, err)
	}
	if err := inside.LinkSetUp(peer); err != nil {
		return fmt.Errorf("set link %s up in sandbox %s: %w", at.IfName, at.ContainerID, err)
	}
	if err := inside.NeighSet(neighbour(index, c.Gateway, want.hostMAC)); err != nil {
		return fmt.Errorf("set neighbour %s in sandbox %s: %w", c.Gateway, at.ContainerID, err)
	}
	out := &netlink.Route{LinkIndex: index, Gw: c.Gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if err := inside.RouteReplace(out); err != nil {
		return fmt.Errorf("set default route in sandbox %s: %w", at.ContainerID, err)
	}
	return nil
}

func configureHost(c Config, at Attachment, host *netlink.Handle, near netlink.Link, want attached) error {
	// The kernel ignores an alias given when a link is made.
	if err := host.LinkSetAlias(near, Alias(c.Cluster, at.ContainerID)); err != nil {
		return fmt.Errorf("mark link %s: %w", want.link, err)
	}
	// No IPv6 on the host's end: nobody routes it, and its multicast would wake
	// every pod. A kernel without IPv6 has no such file.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+want.link+"/disable_ipv6", []byte("1"), 0)
	// A pod that talks to itself over a Service must not be sent redirects: they
	// would use up its share of ICMP errors.
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+want.link+"/send_redirects", []byte("0"), 0)
	if err := host.LinkSetUp(near); err != nil {
		return fmt.Errorf("set link %s up: %w", want.link, err)
	}
	index := near.Attrs().Index
	if err := host.NeighSet(neighbour(index, want.addr, want.peerMAC)); err != nil {
		return fmt.Errorf("set neighbour %s on %s: %w", want.addr, want.link, err)
	}
	route := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: host32(want.addr), Src: c.Gateway.AsSlice()}
	err := host.RouteReplace(route)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("set route to %s: the node does not have the gateway address %s (is the agent running?): %w",
			want.addr, c.Gateway, err)
	}
	if err != nil {
		return fmt.Errorf("set route to %s: %w", want.addr, err)
	}
	return nil
}

func host32(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

func neighbour(index int, addr netip.Addr, at net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: at}
}

// del removes the sandbox's interface and frees its address. Deleting what is
// not there is no error: the runtime repeats it until it succeeds.
func del(c Config, at Attachment) error {
	name := LinkName(c.Network, at)
	if err := delLink(name); err != nil {
		return err
	}
	store, err := openAddresses(c)
	if err != nil {
		return err
	}
	defer store.close()
	_, err = store.free(func(h held) bool { return h.owner == name })
	return err
}

func delLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	// Routes, neighbours and the peer go with the link. It may have gone by
	// itself together with the sandbox's network namespace.
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// check finds what is missing of an attachment.
func check(c Config, at Attachment, netnsPath string) error {
	name := LinkName(c.Network, at)
	store, err := openAddresses(c)
	if err != nil {
		return err
	}
	addr, ok, err := store.of(name)
	store.close()
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("check sandbox %s: no address is held for %s", at.ContainerID, name)
	}
	if _, err := netlink.LinkByName(name); err != nil {
		return fmt.Errorf("check sandbox %s: link %s: %w", at.ContainerID, name, err)
	}
	space, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return fmt.Errorf("open netns %s: %w", netnsPath, err)
	}
	defer func() { _ = space.Close() }() // read only
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", netnsPath, err)
	}
	defer inside.Close()
	peer, err := inside.LinkByName(at.IfName)
	if err != nil {
		return fmt.Errorf("check sandbox %s: link %s: %w", at.ContainerID, at.IfName, err)
	}
	have, err := inside.AddrList(peer, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses in sandbox %s: %w", at.ContainerID, err)
	}
	for _, h := range have {
		if h.IP.Equal(addr.AsSlice()) {
			return nil
		}
	}
	return fmt.Errorf("check sandbox %s: address %s is not on %s", at.ContainerID, addr, at.IfName)
}

// Links lists the names of the cluster's links in this network namespace.
func Links(cluster string) ([]string, error) {
	all, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []string
	for _, l := range all {
		a := l.Attrs()
		if strings.HasPrefix(a.Name, "pc") && strings.HasPrefix(a.Alias, Alias(cluster, "")) {
			out = append(out, a.Name)
		}
	}
	return out, nil
}

// Remove deletes all links of the cluster. It is part of taking the node down.
func Remove(cluster string) error {
	names, err := Links(cluster)
	for _, name := range names {
		err = cmp.Or(err, delLink(name))
	}
	return err
}
