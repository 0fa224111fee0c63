package exporter

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/prometheus/procfs/btrfs"
	"golang.org/x/sys/unix"
)

// btrfsCounts tells how the space of each file system of the kind Btrfs is used, and
// how its devices do.
func (n *Node) btrfsCounts(s *sender) error {
	list, err := n.btrfs.Stats()
	if err != nil || len(list) == 0 {
		return err
	}
	asked := btrfsDevices()
	for _, x := range list {
		of := []string{"uuid", x.UUID}
		s.gauge("node_btrfs_info", "About a file system.", 1, join(of, "label", x.Label)...)
		s.gauge("node_btrfs_global_rsv_size_bytes", "What is held back.", float64(x.Allocation.GlobalRsvSize), of...)
		s.counter("node_btrfs_commits_total", "Commits.", float64(x.CommitStats.Commits), of...)
		s.counter("node_btrfs_commit_seconds_total", "How long commits took.", float64(x.CommitStats.TotalCommitMs)/1e3, of...)
		s.gauge("node_btrfs_last_commit_seconds", "How long the last commit took.", float64(x.CommitStats.LastCommitMs)/1e3, of...)
		s.gauge("node_btrfs_max_commit_seconds", "How long the longest commit took.", float64(x.CommitStats.MaxCommitMs)/1e3, of...)
		for kind, a := range map[string]*btrfs.AllocationStats{"data": x.Allocation.Data, "metadata": x.Allocation.Metadata, "system": x.Allocation.System} {
			kind := join(of, "block_group_type", kind)
			s.gauge("node_btrfs_reserved_bytes", "What is reserved.", float64(a.ReservedBytes), kind...)
			for mode, l := range a.Layouts {
				mode := join(kind, "mode", mode)
				s.gauge("node_btrfs_used_bytes", "What is used.", float64(l.UsedBytes), mode...)
				s.gauge("node_btrfs_size_bytes", "What is set aside.", float64(l.TotalBytes), mode...)
				s.gauge("node_btrfs_allocation_ratio", "Bytes on devices for each byte.", l.Ratio, mode...)
			}
		}
		devices, known := asked[strings.ReplaceAll(x.UUID, "-", "")]
		for _, d := range devices {
			d.write(s, of)
		}
		if known {
			continue
		}
		for device, d := range x.Devices { // it is mounted where this process cannot see it
			s.gauge("node_btrfs_device_size_bytes", "Size of a device.", float64(d.Size), join(of, "device", device)...)
		}
	}
	return nil
}

// btrfsDevice is what the kernel answers about a device: struct
// btrfs_ioctl_dev_info_args and struct btrfs_ioctl_get_dev_stats.
type btrfsDevice struct {
	info struct {
		id          uint64
		uuid        [16]byte
		used, total uint64
		_           [379]uint64
		path        [1024]byte
	}
	stats struct {
		id, items, flags uint64
		errors           [5]uint64
		_                [121]uint64
	}
}

// write tells about a device; the order of errors is the kernel's.
func (d *btrfsDevice) write(s *sender, of []string) {
	id := d.info.uuid
	dev := join(of, "device", filepath.Base(unix.ByteSliceToString(d.info.path[:])), "btrfs_dev_uuid", fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
	s.gauge("node_btrfs_device_size_bytes", "Size of a device.", float64(d.info.total), dev...)
	s.gauge("node_btrfs_device_unused_bytes", "What no kind of data was given of a device.", float64(d.info.total-d.info.used), dev...)
	for i, kind := range []string{"write", "read", "flush", "corruption", "generation"} {
		s.counter("node_btrfs_device_errors_total", "Errors of a device.", float64(d.stats.errors[i]), join(dev, "type", kind)...)
	}
}

// btrfsDevices asks each mounted file system for its devices; the key is its id in
// hexadecimal digits. One that does not answer is left out.
func btrfsDevices() map[string][]*btrfsDevice {
	mounts, err := mountPoints()
	if err != nil {
		return nil
	}
	done, out := map[string]bool{}, map[string][]*btrfsDevice{}
	for _, m := range mounts {
		if m.FSType != "btrfs" || done[m.Source] {
			continue
		}
		if id, devices, err := askBtrfs(m.MountPoint); err == nil {
			done[m.Source], out[id] = true, devices
		}
	}
	return out
}

// askBtrfs asks the file system mounted at path.
func askBtrfs(path string) (id string, devices []*btrfsDevice, err error) {
	const fsInfo, devInfo, devStats = 0x8400941f, 0xd000941e, 0xc4089434
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	ask := func(what uintptr, answer unsafe.Pointer) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), what, uintptr(answer)); errno != 0 {
			return errno
		}
		return nil
	}
	var about struct {
		maxID, devices uint64
		id             [16]byte
		_              [992]byte
	}
	if err := ask(fsInfo, unsafe.Pointer(&about)); err != nil {
		return "", nil, err
	}
	for i := uint64(0); i <= about.maxID && uint64(len(devices)) < about.devices; i++ {
		d := new(btrfsDevice)
		d.info.id, d.stats.id, d.stats.items = i, i, uint64(len(d.stats.errors))
		if err := ask(devInfo, unsafe.Pointer(&d.info)); errors.Is(err, unix.ENODEV) {
			continue // ids of devices that were taken out
		} else if err != nil {
			return "", nil, err
		}
		if err := ask(devStats, unsafe.Pointer(&d.stats)); err != nil {
			return "", nil, err
		}
		devices = append(devices, d)
	}
	return hex.EncodeToString(about.id[:]), devices, nil
}
