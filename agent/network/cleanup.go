package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"perch/agent/network/cni"
)

// Cleanup undoes everything that this package and the CNI plugin did on this
// machine for a cluster: links, routes, the gateway address, the table, rules
// in others' chains, sysctls, and the files below dir (Config.Dir). It goes on
// after errors and may be repeated. Call it after the last pod is gone.
func Cleanup(cluster, dir string) error {
	s, err := readState(dir)
	errs := []error{err, cni.Remove(cluster)}
	for _, text := range []string{s.ClusterCIDR, s.ServiceCIDR} {
		if cidr, err := netip.ParsePrefix(text); err == nil {
			errs = append(errs, dropRoutes(cidr, func(netip.Prefix) bool { return true }))
		}
	}
	if pods, err := netip.ParsePrefix(s.PodCIDR); err == nil {
		errs = append(errs, dropGateway(cni.Gateway(pods)))
	}
	others, err := dropRules(cluster)
	errs = append(errs, err)
	bridged, err := hasBridge()
	errs = append(errs, err)
	if !others && !bridged {
		// Another cluster, Docker or a hypervisor on this machine may have come to
		// rely on forwarding since; then it stays on.
		for name, value := range s.Sysctls {
			errs = append(errs, setSysctl(name, value))
		}
	}
	for _, path := range []string{conflistPath(dir), dir + "/ipam/" + tableName(cluster)} {
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", path, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up network of %s: %w", cluster, err)
	}
	// The state goes last: with it gone, nothing more could be undone.
	if err := os.RemoveAll(statePath(dir)); err != nil {
		return fmt.Errorf("remove network state: %w", err)
	}
	return nil
}

// hasBridge tells whether somebody else connects containers or machines here.
func hasBridge() (bool, error) {
	all, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return false, fmt.Errorf("list links: %w", err)
	}
	for _, l := range all {
		if l.Type() == "bridge" {
			return true, nil
		}
	}
	return false, nil
}

func dropGateway(gateway netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find link lo: %w", err)
	}
	err = netlink.AddrDel(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gateway, 32))})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete address %s of lo: %w", gateway, err)
	}
	return nil
}

// dropRules removes the table and the rules, and tells whether another cluster
// has tables here.
func dropRules(cluster string) (others bool, err error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	if err := closeForwarding(c, cluster); err != nil {
		return false, err
	}
	t := &nftables.Table{Name: tableName(cluster), Family: nftables.TableFamilyINet}
	c.AddTable(t) // deleting what is not there would fail
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return false, fmt.Errorf("delete table %s: %w", t.Name, err)
	}
	all, err := c.ListTables()
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	for _, t := range all {
		if strings.HasPrefix(t.Name, "perch-") && t.Name != tableName(cluster) {
			others = true
		}
	}
	return others, nil
}
