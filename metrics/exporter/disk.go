package exporter

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs/blockdevice"
)

func (n *Node) disk(s *sender) error {
	disks, err := n.block.ProcDiskstats()
	if err != nil {
		return err
	}
	const sector = 512
	for _, d := range disks {
		if n.cfg.IgnoreDisk.MatchString(d.DeviceName) {
			continue
		}
		dev := []string{"device", d.DeviceName}
		n.diskInfo(s, d)
		if d.IoStatsCount >= 18 { // since Linux 4.18
			s.counter("node_disk_discards_completed_total", "Discards completed.", float64(d.DiscardIOs), dev...)
			s.counter("node_disk_discards_merged_total", "Discards merged.", float64(d.DiscardMerges), dev...)
			s.counter("node_disk_discarded_sectors_total", "Sectors discarded.", float64(d.DiscardSectors), dev...)
			s.counter("node_disk_discard_time_seconds_total", "Time spent on discards.", float64(d.DiscardTicks)/1e3, dev...)
		}
		if d.IoStatsCount >= 20 { // since Linux 5.5
			s.counter("node_disk_flush_requests_total", "Flushes completed.", float64(d.FlushRequestsCompleted), dev...)
			s.counter("node_disk_flush_requests_time_seconds_total", "Time spent on flushes.", float64(d.TimeSpentFlushing)/1e3, dev...)
		}
		s.counter("node_disk_reads_completed_total", "Reads completed.", float64(d.ReadIOs), dev...)
		s.counter("node_disk_reads_merged_total", "Reads merged.", float64(d.ReadMerges), dev...)
		s.counter("node_disk_read_bytes_total", "Bytes read.", float64(d.ReadSectors*sector), dev...)
		s.counter("node_disk_read_time_seconds_total", "Time spent on reads.", float64(d.ReadTicks)/1e3, dev...)
		s.counter("node_disk_writes_completed_total", "Writes completed.", float64(d.WriteIOs), dev...)
		s.counter("node_disk_writes_merged_total", "Writes merged.", float64(d.WriteMerges), dev...)
		s.counter("node_disk_written_bytes_total", "Bytes written.", float64(d.WriteSectors*sector), dev...)
		s.counter("node_disk_write_time_seconds_total", "Time spent on writes.", float64(d.WriteTicks)/1e3, dev...)
		s.gauge("node_disk_io_now", "Inputs and outputs under way.", float64(d.IOsInProgress), dev...)
		s.counter("node_disk_io_time_seconds_total", "Time with input or output under way.", float64(d.IOsTotalTicks)/1e3, dev...)
		s.counter("node_disk_io_time_weighted_seconds_total", "The same, weighted by their number.", float64(d.WeightedIOTicks)/1e3, dev...)
	}
	return nil
}

// diskInfo tells what kind of device it is, as far as udev knows.
func (n *Node) diskInfo(s *sender, d blockdevice.Diskstats) {
	udev := n.udev(d)
	word := func(keys ...string) string {
		for _, k := range keys {
			if v := udev[k]; v != "" {
				return v
			}
		}
		return ""
	}
	kind := ""
	if rotational, err := number(filepath.Join(n.cfg.Sys, "block", d.DeviceName, "queue/rotational")); err == nil {
		kind = strconv.FormatFloat(rotational, 'g', -1, 64)
	}
	dev := []string{"device", d.DeviceName}
	s.gauge("node_disk_info", "About a block device.", 1, join(dev, "major", strconv.FormatUint(uint64(d.MajorNumber), 10), "minor", strconv.FormatUint(uint64(d.MinorNumber), 10),
		"path", word("ID_PATH"), "wwn", word("ID_WWN"), "model", word("ID_MODEL"), "serial", word("SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT"), "revision", word("ID_REVISION"), "rotational", kind)...)
	if word("DM_NAME") != "" {
		s.gauge("node_disk_device_mapper_info", "About a mapped device.", 1, join(dev, "name", word("DM_NAME"), "uuid", word("DM_UUID"),
			"vg_name", word("DM_VG_NAME"), "lv_name", word("DM_LV_NAME"), "lv_layer", word("DM_LV_LAYER"))...)
	}
	if word("ID_FS_TYPE") != "" {
		s.gauge("node_disk_filesystem_info", "About the file system of a block device.", 1, join(dev, "type", word("ID_FS_TYPE"), "usage", word("ID_FS_USAGE"),
			"uuid", word("ID_FS_UUID"), "version", word("ID_FS_VERSION"))...)
	}
	if word("ID_ATA") == "" {
		return
	}
	for key, name := range map[string]string{"ID_ATA_WRITE_CACHE": "write_cache", "ID_ATA_WRITE_CACHE_ENABLED": "write_cache_enabled", "ID_ATA_ROTATION_RATE_RPM": "rotation_rate_rpm"} {
		if v, err := strconv.ParseFloat(word(key), 64); err == nil {
			s.gauge("node_disk_ata_"+name, "Property "+key+" of an ATA disk.", v, dev...)
		}
	}
}

// udev is what is recorded of a device; nothing on a machine without udev.
func (n *Node) udev(d blockdevice.Diskstats) map[string]string {
	text, err := os.ReadFile(filepath.Join(n.cfg.Udev, fmt.Sprintf("b%d:%d", d.MajorNumber, d.MinorNumber)))
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if property, ok := strings.CutPrefix(strings.TrimSpace(line), "E:"); ok {
			key, value, _ := strings.Cut(property, "=")
			out[key] = value
		}
	}
	return out
}

// nvme tells about the controllers of NVMe disks.
func (n *Node) nvme(s *sender) error {
	list, err := filepath.Glob(filepath.Join(n.cfg.Sys, "class/nvme/nvme*"))
	if err != nil {
		return err
	}
	for _, dir := range list {
		word := func(file string) string {
			text, err := word(dir + "/" + file)
			if err != nil {
				return "" // not every controller tells all
			}
			return text
		}
		s.gauge("node_nvme_info", "About a controller of NVMe disks.", 1, "device", filepath.Base(dir), "firmware_revision", word("firmware_rev"),
			"model", word("model"), "serial", word("serial"), "state", word("state"))
	}
	return nil
}
