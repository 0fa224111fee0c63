package exporter

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/prometheus/procfs/nfs"
)

// nfsClient tells what this machine asked of servers of files.
func (n *Node) nfsClient(s *sender) error {
	st, err := n.nfs.ClientRPCStats()
	if absent(err) {
		return nil // the module is not loaded
	}
	if err != nil {
		return err
	}
	s.counter("node_nfs_packets_total", "Packets of the client of NFS.", float64(st.Network.UDPCount), "protocol", "udp")
	s.counter("node_nfs_packets_total", "Packets of the client of NFS.", float64(st.Network.TCPCount), "protocol", "tcp")
	s.counter("node_nfs_connections_total", "Connections of the client of NFS.", float64(st.Network.TCPConnect))
	s.counter("node_nfs_rpcs_total", "Calls of the client of NFS.", float64(st.ClientRPC.RPCCount))
	s.counter("node_nfs_rpc_retransmissions_total", "Calls sent again.", float64(st.ClientRPC.Retransmissions))
	s.counter("node_nfs_rpc_authentication_refreshes_total", "Renewals of who calls.", float64(st.ClientRPC.AuthRefreshes))
	methods(s, "node_nfs_requests_total", 2, st.V2Stats)
	methods(s, "node_nfs_requests_total", 3, st.V3Stats)
	methods(s, "node_nfs_requests_total", 4, st.ClientV4Stats)
	return nil
}

// nfsServer tells what others asked of this machine's server of files.
func (n *Node) nfsServer(s *sender) error {
	st, err := n.nfs.ServerRPCStats()
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for name, v := range map[string]uint64{
		"reply_cache_hits": st.ReplyCache.Hits, "reply_cache_misses": st.ReplyCache.Misses, "reply_cache_nocache": st.ReplyCache.NoCache,
		"file_handles_stale": st.FileHandles.Stale, "disk_bytes_read": st.InputOutput.Read, "disk_bytes_written": st.InputOutput.Write,
		"read_ahead_cache_not_found": st.ReadAheadCache.NotFound, "connections": st.Network.TCPConnect, "server_rpcs": st.ServerRPC.RPCCount,
	} {
		s.counter("node_nfsd_"+name+"_total", "Server of NFS, "+name+".", float64(v))
	}
	s.gauge("node_nfsd_server_threads", "Threads of the server of NFS.", float64(st.Threads.Threads))
	s.gauge("node_nfsd_read_ahead_cache_size_blocks", "Size of the server's cache.", float64(st.ReadAheadCache.CacheSize))
	s.counter("node_nfsd_packets_total", "Packets of the server of NFS.", float64(st.Network.UDPCount), "proto", "udp")
	s.counter("node_nfsd_packets_total", "Packets of the server of NFS.", float64(st.Network.TCPCount), "proto", "tcp")
	for why, v := range map[string]uint64{"fmt": st.ServerRPC.BadFmt, "auth": st.ServerRPC.BadAuth, "cInt": st.ServerRPC.BadcInt} {
		s.counter("node_nfsd_rpc_errors_total", "Calls that were refused.", float64(v), "error", why)
	}
	methods(s, "node_nfsd_requests_total", 2, st.V2Stats, "Null")
	methods(s, "node_nfsd_requests_total", 3, st.V3Stats, "Null")
	methods(s, "node_nfsd_requests_total", 4, st.V4Ops, "Op0Unused", "Op1Unused", "Op2Future", "PutPubFH", "PutRootFH")
	return nil
}

// methods writes how often each method was called: the fields of counts, which are
// called what the label says, except some.
func methods[T nfs.V2Stats | nfs.V3Stats | nfs.ClientV4Stats | nfs.V4Ops](s *sender, name string, version int, counts T, except ...string) {
	v := reflect.ValueOf(counts)
	for i := range v.NumField() {
		if method := v.Type().Field(i).Name; !slices.Contains(except, method) {
			s.counter(name, "Calls of NFS by method.", float64(v.Field(i).Uint()), "proto", strconv.Itoa(version), "method", method)
		}
	}
}
