package cni

import (
	"errors"
	"net"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
)

// Main serves one CNI call from the environment and stdin, as the CNI
// specification 1.1 says, and ends the process with status 1 when it fails.
func Main() {
	skel.PluginMainFuncs(verbs(), version.All, "perch: a routed veth pair for each pod")
}

func verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: cmdAdd, Del: cmdDel, Check: cmdCheck, GC: cmdGC, Status: cmdStatus}
}

func cmdAdd(args *skel.CmdArgs) error {
	c, w, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	at := Attachment{args.ContainerID, args.IfName}
	got, err := add(c, at, args.Netns)
	if errors.Is(err, errFull) {
		return types.NewError(types.ErrTryAgainLater, err.Error(), "delete pods or give the node a larger pod CIDR")
	}
	if err != nil {
		return err
	}
	return types.PrintResult(result(c, at, args.Netns, got), w.CNIVersion)
}

func result(c Config, at Attachment, netnsPath string, got attached) *current.Result {
	return &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: got.link, Mac: got.hostMAC.String(), Mtu: c.MTU},
			{Name: at.IfName, Mac: got.peerMAC.String(), Mtu: c.MTU, Sandbox: netnsPath},
		},
		IPs:    []*current.IPConfig{{Interface: current.Int(1), Address: *host32(got.addr), Gateway: c.Gateway.AsSlice()}},
		Routes: []*types.Route{{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, GW: c.Gateway.AsSlice()}},
	}
}

func cmdDel(args *skel.CmdArgs) error {
	c, _, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	return del(c, Attachment{args.ContainerID, args.IfName})
}

func cmdCheck(args *skel.CmdArgs) error {
	c, _, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	return check(c, Attachment{args.ContainerID, args.IfName}, args.Netns)
}

func cmdGC(args *skel.CmdArgs) error {
	c, w, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	// The specification forbids the runtime an ADD during GC, so every address is old enough.
	_, err = Collect(c, w.Valid, time.Now())
	return err
}

func cmdStatus(args *skel.CmdArgs) error {
	c, _, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	have, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return types.NewError(types.ErrInternal, "list addresses", err.Error())
	}
	for _, h := range have {
		if h.IP.Equal(c.Gateway.AsSlice()) {
			return nil
		}
	}
	const notAvailable = 50 // "the plugin is not available", CNI 1.1
	return types.NewError(notAvailable, "the node does not have the gateway address "+c.Gateway.String(), "is the agent running?")
}
