package exporter

import (
	"math"
	"strconv"
)

// infiniband tells about the ports of InfiniBand and RoCE cards.
func (n *Node) infiniband(s *sender) error {
	list, err := n.sys.InfiniBandClass()
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range list {
		s.gauge("node_infiniband_info", "About a card.", 1, "device", d.Name, "board_id", d.BoardID, "firmware_version", d.FirmwareVersion, "hca_type", d.HCAType)
		for _, p := range d.Ports {
			of, c := []string{"device", p.Name, "port", strconv.FormatUint(uint64(p.Port), 10)}, p.Counters
			s.gauge("node_infiniband_state_id", "State of the link: 1 down, 2 init, 3 armed, 4 active.", float64(p.StateID), of...)
			s.gauge("node_infiniband_physical_state_id", "State of the wire: 1 sleep, 2 polling, 3 disabled, 5 up.", float64(p.PhysStateID), of...)
			s.gauge("node_infiniband_rate_bytes_per_second", "How fast a port is.", float64(p.Rate), of...)
			for name, v := range map[string]*uint64{
				"legacy_multicast_packets_received": c.LegacyPortMulticastRcvPackets, "legacy_multicast_packets_transmitted": c.LegacyPortMulticastXmitPackets,
				"legacy_data_received_bytes": c.LegacyPortRcvData64, "legacy_packets_received": c.LegacyPortRcvPackets64,
				"legacy_unicast_packets_received": c.LegacyPortUnicastRcvPackets, "legacy_unicast_packets_transmitted": c.LegacyPortUnicastXmitPackets,
				"legacy_data_transmitted_bytes": c.LegacyPortXmitData64, "legacy_packets_transmitted": c.LegacyPortXmitPackets64,
				"excessive_buffer_overrun_errors": c.ExcessiveBufferOverrunErrors, "link_downed": c.LinkDowned, "link_error_recovery": c.LinkErrorRecovery,
				"local_link_integrity_errors": c.LocalLinkIntegrityErrors, "multicast_packets_received": c.MulticastRcvPackets,
				"multicast_packets_transmitted": c.MulticastXmitPackets, "port_constraint_errors_received": c.PortRcvConstraintErrors,
				"port_constraint_errors_transmitted": c.PortXmitConstraintErrors, "port_data_received_bytes": c.PortRcvData, "port_data_transmitted_bytes": c.PortXmitData,
				"port_discards_received": c.PortRcvDiscards, "port_discards_transmitted": c.PortXmitDiscards, "port_errors_received": c.PortRcvErrors,
				"port_packets_received": c.PortRcvPackets, "port_packets_transmitted": c.PortXmitPackets,
				"port_receive_remote_physical_errors": c.PortRcvRemotePhysicalErrors, "port_receive_switch_relay_errors": c.PortRcvSwitchRelayErrors,
				"port_transmit_wait": c.PortXmitWait, "symbol_error": c.SymbolError, "unicast_packets_received": c.UnicastRcvPackets,
				"unicast_packets_transmitted": c.UnicastXmitPackets, "vl15_dropped": c.VL15Dropped,
			} {
				if v != nil {
					s.counter("node_infiniband_"+name+"_total", "Port of a card, "+name+".", float64(*v), of...)
				}
			}
		}
	}
	return nil
}

// fibreChannel tells about ports to networks of disks.
func (n *Node) fibreChannel(s *sender) error {
	list, err := n.sys.FibreChannelClass()
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for name, h := range list {
		about := []string{"fc_host", name}
		for label, v := range map[string]*string{
			"speed": h.Speed, "port_state": h.PortState, "port_type": h.PortType, "port_id": h.PortID, "port_name": h.PortName, "fabric_name": h.FabricName,
			"symbolic_name": h.SymbolicName, "supported_classes": h.SupportedClasses, "supported_speeds": h.SupportedSpeeds, "dev_loss_tmo": h.DevLossTMO,
		} {
			if v == nil {
				v = new(string) // the driver does not tell
			}
			about = append(about, label, *v)
		}
		s.gauge("node_fibrechannel_info", "About a port.", 1, about...)
		c := h.Counters
		for counter, v := range map[string]*uint64{
			"dumped_frames": c.DumpedFrames, "error_frames": c.ErrorFrames, "invalid_crc": c.InvalidCRCCount, "rx_frames": c.RXFrames, "rx_words": c.RXWords,
			"tx_frames": c.TXFrames, "tx_words": c.TXWords, "seconds_since_last_reset": c.SecondsSinceLastReset, "invalid_tx_words": c.InvalidTXWordCount,
			"link_failure": c.LinkFailureCount, "loss_of_sync": c.LossOfSyncCount, "loss_of_signal": c.LossOfSignalCount, "nos": c.NosCount,
			"fcp_packet_aborts": c.FCPPacketAborts,
		} {
			if v != nil && *v != math.MaxUint64 { // that is what the card does not count
				s.counter("node_fibrechannel_"+counter+"_total", "Port to a network of disks, "+counter+".", float64(*v), "fc_host", name)
			}
		}
	}
	return nil
}
