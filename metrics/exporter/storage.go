package exporter

import "github.com/prometheus/procfs/bcache"

// caches tells how disks that are caches of others do.
func (n *Node) caches(s *sender) error {
	list, err := n.bcache.StatsWithoutPriority() // that reads all of a cache's buckets
	if err != nil {
		return err
	}
	for _, c := range list {
		of := []string{"uuid", c.Name}
		for name, v := range map[string]float64{
			"average_key_size_sectors": float64(c.Bcache.AverageKeySize), "btree_cache_size_bytes": float64(c.Bcache.BtreeCacheSize),
			"cache_available_percent": float64(c.Bcache.CacheAvailablePercent), "congested": float64(c.Bcache.Congested),
			"root_usage_percent": float64(c.Bcache.RootUsagePercent), "tree_depth": float64(c.Bcache.TreeDepth),
			"active_journal_entries": float64(c.Bcache.Internal.ActiveJournalEntries), "btree_nodes": float64(c.Bcache.Internal.BtreeNodes),
			"btree_read_average_duration_seconds": float64(c.Bcache.Internal.BtreeReadAverageDurationNanoSeconds) / 1e9,
		} {
			s.gauge("node_bcache_"+name, "Cache on a disk, "+name+".", v, of...)
		}
		s.counter("node_bcache_cache_read_races_total", "Reads of what was overwritten meanwhile.", float64(c.Bcache.Internal.CacheReadRaces), of...)
		for _, d := range c.Bdevs {
			backed(s, d, join(of, "backing_device", d.Name))
		}
		for _, d := range c.Caches {
			of := join(of, "cache_device", d.Name)
			s.gauge("node_bcache_io_errors", "Errors of a cache, fewer as time goes by.", float64(d.IOErrors), of...)
			s.counter("node_bcache_metadata_written_bytes_total", "What a cache wrote besides data.", float64(d.MetadataWritten), of...)
			s.counter("node_bcache_written_bytes_total", "Data written to a cache.", float64(d.Written), of...)
		}
	}
	return nil
}

// backed tells about a disk that has a cache.
func backed(s *sender, d bcache.BdevStats, of []string) {
	rate := d.WritebackRateDebug
	for name, v := range map[string]float64{
		"dirty_data_bytes": float64(d.DirtyData), "dirty_target_bytes": float64(rate.Target), "writeback_rate": float64(rate.Rate),
		"writeback_rate_proportional_term": float64(rate.Proportional), "writeback_rate_integral_term": float64(rate.Integral), "writeback_change": float64(rate.Change),
	} {
		s.gauge("node_bcache_"+name, "Disk with a cache, "+name+".", v, of...)
	}
	for name, v := range map[string]uint64{
		"bypassed_bytes": d.Total.Bypassed, "cache_hits": d.Total.CacheHits, "cache_misses": d.Total.CacheMisses, "cache_bypass_hits": d.Total.CacheBypassHits,
		"cache_bypass_misses": d.Total.CacheBypassMisses, "cache_miss_collisions": d.Total.CacheMissCollisions, "cache_readaheads": d.Total.CacheReadaheads,
	} {
		s.counter("node_bcache_"+name+"_total", "Disk with a cache, "+name+".", float64(v), of...)
	}
}

// tapes tells what drives of tapes do.
func (n *Node) tapes(s *sender) error {
	list, err := n.sys.SCSITapeClass()
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, t := range list {
		c := t.Counters
		s.gauge("node_tape_io_now", "Inputs and outputs under way.", float64(c.InFlight), "device", t.Name)
		for name, v := range map[string]float64{
			"io_time_seconds": float64(c.IoNs) / 1e9, "io_others": float64(c.OtherCnt), "residual": float64(c.ResidCnt),
			"read_bytes": float64(c.ReadByteCnt), "reads_completed": float64(c.ReadCnt), "read_time_seconds": float64(c.ReadNs) / 1e9,
			"written_bytes": float64(c.WriteByteCnt), "writes_completed": float64(c.WriteCnt), "write_time_seconds": float64(c.WriteNs) / 1e9,
		} {
			s.counter("node_tape_"+name+"_total", "Drive of tapes, "+name+".", v, "device", t.Name)
		}
	}
	return nil
}
