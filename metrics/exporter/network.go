package exporter

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/prometheus/procfs"
)

func (n *Node) arp(s *sender) error {
	list, err := n.proc.GatherARPEntries()
	if err != nil {
		return err
	}
	count := map[string]float64{}
	for _, e := range list {
		if !n.cfg.IgnoreNetwork.MatchString(e.Device) {
			count[e.Device]++
		}
	}
	for device, v := range count {
		s.gauge("node_arp_entries", "Neighbours known by ARP.", v, "device", device)
	}
	return nil
}

func (n *Node) conntrack(s *sender) error {
	for file, name := range map[string]string{"nf_conntrack_count": "node_nf_conntrack_entries", "nf_conntrack_max": "node_nf_conntrack_entries_limit"} {
		v, err := number(n.cfg.Proc + "/sys/net/netfilter/" + file)
		if os.IsNotExist(err) {
			return nil // not tracked by this kernel
		}
		if err != nil {
			return err
		}
		s.gauge(name, "Connections the kernel tracks.", v)
	}
	list, err := n.proc.ConntrackStat()
	if err != nil {
		return err
	}
	sum := map[string]float64{}
	for _, c := range list {
		for name, v := range map[string]uint64{"found": c.Found, "invalid": c.Invalid, "ignore": c.Ignore, "insert": c.Insert, "insert_failed": c.InsertFailed,
			"drop": c.Drop, "early_drop": c.EarlyDrop, "search_restart": c.SearchRestart} {
			sum[name] += float64(v)
		}
	}
	for name, v := range sum {
		s.gauge("node_nf_conntrack_stat_"+name, "Tracking of connections, "+name+".", v)
	}
	return nil
}

// netstatTaken are the fields of netstat, snmp and snmp6 that node_exporter
// takes by default.
const netstatTaken = `^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|` +
	`TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|` +
	`Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$`

func (n *Node) netstat(s *sender) error {
	add := func(protocol, name, value string) error {
		key := protocol + "_" + name
		if !n.takes.MatchString(key) {
			return nil
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return err
		}
		s.untyped("node_netstat_"+key, "Statistic "+protocol+name+".", v)
		return nil
	}
	for _, file := range []string{"netstat", "snmp"} { // a line of names, then one of values
		text, err := os.ReadFile(n.cfg.Proc + "/net/" + file)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for k := 1; k < min(len(names), len(values)); k++ {
				if err := add(strings.TrimSuffix(names[0], ":"), names[k], values[k]); err != nil {
					return err
				}
			}
		}
	}
	text, err := os.ReadFile(n.cfg.Proc + "/net/snmp6")
	if os.IsNotExist(err) {
		return nil // IPv6 is off
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) { // Ip6InOctets 7
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		if at := strings.Index(f[0], "6"); at > 0 {
			if err := add(f[0][:at+1], f[0][at+1:], f[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) sockets(s *sender) error {
	for _, read := range []func() (*procfs.NetSockstat, error){n.proc.NetSockstat, n.proc.NetSockstat6} {
		st, err := read()
		if os.IsNotExist(err) {
			continue // IPv6 is off
		}
		if err != nil {
			return err
		}
		gauge := func(name string, v *int, times int) {
			if v != nil {
				s.gauge("node_sockstat_"+name, "Sockets, "+name+".", float64(*v*times))
			}
		}
		gauge("sockets_used", st.Used, 1)
		for _, p := range st.Protocols {
			gauge(p.Protocol+"_inuse", &p.InUse, 1)
			gauge(p.Protocol+"_orphan", p.Orphan, 1)
			gauge(p.Protocol+"_tw", p.TW, 1)
			gauge(p.Protocol+"_alloc", p.Alloc, 1)
			gauge(p.Protocol+"_mem", p.Mem, 1)
			gauge(p.Protocol+"_mem_bytes", p.Mem, os.Getpagesize())
			gauge(p.Protocol+"_memory", p.Memory, 1)
		}
	}
	return nil
}

func (n *Node) softnet(s *sender) error {
	list, err := n.proc.NetSoftnetStat()
	if err != nil {
		return err
	}
	for _, c := range list {
		cpu := strconv.FormatUint(uint64(c.Index), 10)
		for name, v := range map[string]uint32{"processed": c.Processed, "dropped": c.Dropped, "times_squeezed": c.TimeSqueezed,
			"cpu_collision": c.CPUCollision, "received_rps": c.ReceivedRps, "flow_limit_count": c.FlowLimitCount} {
			s.counter("node_softnet_"+name+"_total", "Packets of a cpu's queue, "+name+".", float64(v), "cpu", cpu)
		}
		s.gauge("node_softnet_backlog_len", "Packets that wait in a cpu's queue.", float64(c.SoftnetBacklogLen), "cpu", cpu)
	}
	return nil
}

func (n *Node) udpQueues(s *sender) error {
	for ip, read := range map[string]func() (*procfs.NetUDPSummary, error){"v4": n.proc.NetUDPSummary, "v6": n.proc.NetUDP6Summary} {
		q, err := read()
		if os.IsNotExist(err) {
			continue // IPv6 is off
		}
		if err != nil {
			return err
		}
		s.gauge("node_udp_queues", "Bytes that wait in UDP sockets.", float64(q.TxQueueLength), "ip", ip, "queue", "tx")
		s.gauge("node_udp_queues", "Bytes that wait in UDP sockets.", float64(q.RxQueueLength), "ip", ip, "queue", "rx")
	}
	return nil
}

// devices writes what /sys/class/net says about each network device.
func (n *Node) devices(s *sender) error {
	list, err := os.ReadDir(n.cfg.Sys + "/class/net")
	if err != nil {
		return err
	}
	for _, d := range list {
		dir := filepath.Join(n.cfg.Sys, "class/net", d.Name())
		if n.cfg.IgnoreNetwork.MatchString(d.Name()) {
			continue
		}
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			continue // bonding_masters, or the device is gone
		}
		word := func(file string) string {
			text, err := word(dir + "/" + file)
			if err != nil {
				return "" // a device that does not have it
			}
			return text
		}
		dev, state, flags := []string{"device", d.Name()}, word("operstate"), word("flags")
		s.gauge("node_network_up", "1 if the device is up.", yes(state == "up"), dev...)
		s.gauge("node_network_info", "About a network device.", 1, join(dev, "address", word("address"), "broadcast", word("broadcast"),
			"duplex", word("duplex"), "operstate", state, "adminstate", adminState(flags), "ifalias", word("ifalias"))...)
		for file, name := range map[string]string{
			"addr_assign_type": "address_assign_type", "carrier": "carrier", "dev_id": "device_id", "dormant": "dormant", "ifindex": "iface_id",
			"iflink": "iface_link", "link_mode": "iface_link_mode", "mtu": "mtu_bytes", "name_assign_type": "name_assign_type", "netdev_group": "net_dev_group",
			"tx_queue_len": "transmit_queue_length", "type": "protocol_type",
		} {
			if v, err := strconv.ParseInt(word(file), 0, 64); err == nil {
				s.gauge("node_network_"+name, "Network device property "+file+".", float64(v), dev...)
			}
		}
		if v, err := strconv.ParseInt(flags, 0, 64); err == nil {
			s.gauge("node_network_flags", "Network device property flags.", float64(v), dev...)
		}
		for file, name := range map[string]string{"carrier_changes": "carrier_changes", "carrier_up_count": "carrier_up_changes", "carrier_down_count": "carrier_down_changes"} {
			if v, err := strconv.ParseInt(word(file), 0, 64); err == nil {
				s.counter("node_network_"+name+"_total", "Changes of the link.", float64(v), dev...)
			}
		}
		if v, err := number(filepath.Join(dir, "statistics/rx_nohandler")); err == nil {
			s.counter("node_network_receive_nohandler_total", "Network device statistic receive_nohandler.", v, dev...)
		}
		if v, err := strconv.ParseInt(word("speed"), 10, 64); err == nil && v >= 0 {
			s.gauge("node_network_speed_bytes", "Speed in bytes a second.", float64(v)*1e6/8, dev...)
		}
	}
	return nil
}

// adminState is what the administrator wants of a device with these flags.
func adminState(flags string) string {
	v, err := strconv.ParseInt(flags, 0, 64)
	switch {
	case err != nil:
		return "unknown"
	case v&unix.IFF_UP != 0:
		return "up"
	}
	return "down"
}

// bonds tells how many links of bonded devices there are, and how many work.
func (n *Node) bonds(s *sender) error {
	net := filepath.Join(n.cfg.Sys, "class/net")
	masters, err := os.ReadFile(filepath.Join(net, "bonding_masters"))
	if os.IsNotExist(err) {
		return nil // the kernel bonds nothing
	}
	if err != nil {
		return err
	}
	for _, master := range strings.Fields(string(masters)) {
		slaves, err := os.ReadFile(filepath.Join(net, master, "bonding/slaves"))
		if err != nil {
			return err
		}
		all, active := strings.Fields(string(slaves)), 0
		for _, slave := range all {
			for _, dir := range []string{"lower_", "slave_"} { // the second is of old kernels
				if state, err := os.ReadFile(filepath.Join(net, master, dir+slave, "bonding_slave/mii_status")); err == nil {
					if strings.TrimSpace(string(state)) == "up" {
						active++
					}
					break
				}
			}
		}
		s.gauge("node_bonding_slaves", "Links of a bonded device.", float64(len(all)), "master", master)
		s.gauge("node_bonding_active", "Links of a bonded device that work.", float64(active), "master", master)
	}
	return nil
}

// balancers tells what the kernel's load balancer handed on, and to whom.
func (n *Node) balancers(s *sender) error {
	st, err := n.proc.IPVSStats()
	if absent(err) {
		return nil // the module is not loaded
	}
	if err != nil {
		return err
	}
	for name, v := range map[string]uint64{"connections": st.Connections, "incoming_packets": st.IncomingPackets, "outgoing_packets": st.OutgoingPackets,
		"incoming_bytes": st.IncomingBytes, "outgoing_bytes": st.OutgoingBytes} {
		s.counter("node_ipvs_"+name+"_total", "Load balancer of the kernel, "+name+".", float64(v))
	}
	list, err := n.proc.IPVSBackendStatus()
	if err != nil {
		return err
	}
	type backend struct{ local, localPort, mark, remote, remotePort, proto string }
	sums := map[backend]procfs.IPVSBackendStatus{}
	for _, b := range list {
		local := ""
		if b.LocalAddress != nil {
			local = b.LocalAddress.String()
		}
		key := backend{local, strconv.Itoa(int(b.LocalPort)), b.LocalMark, b.RemoteAddress.String(), strconv.Itoa(int(b.RemotePort)), b.Proto}
		sum := sums[key]
		sum.ActiveConn, sum.InactConn, sum.Weight = sum.ActiveConn+b.ActiveConn, sum.InactConn+b.InactConn, sum.Weight+b.Weight
		sums[key] = sum
	}
	for b, sum := range sums {
		of := []string{"local_address", b.local, "local_port", b.localPort, "local_mark", b.mark, "remote_address", b.remote, "remote_port", b.remotePort, "proto", b.proto}
		s.gauge("node_ipvs_backend_connections_active", "Connections handed on.", float64(sum.ActiveConn), of...)
		s.gauge("node_ipvs_backend_connections_inactive", "Connections handed on before.", float64(sum.InactConn), of...)
		s.gauge("node_ipvs_backend_weight", "Share of the connections.", float64(sum.Weight), of...)
	}
	return nil
}
