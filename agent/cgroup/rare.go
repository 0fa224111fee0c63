package cgroup

import (
	"bytes"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Disk is what a cgroup and everything below it did to one block device.
type Disk struct {
	Major, Minor          uint32
	ReadBytes, WriteBytes uint64
	Reads, Writes         uint64
}

// Disks are the devices a cgroup has used, in the kernel's order.
func (t Tree) Disks(path string) []Disk {
	var list []Disk
	at := func(device []byte) *Disk {
		major, minor, ok := bytes.Cut(device, []byte(":"))
		if !ok {
			return nil
		}
		a, b := uint32(number(major)), uint32(number(minor))
		for i := range list {
			if list[i].Major == a && list[i].Minor == b {
				return &list[i]
			}
		}
		list = append(list, Disk{Major: a, Minor: b})
		return &list[len(list)-1]
	}
	if t.Layout == Unified {
		for line := range bytes.Lines(content(filepath.Join(t.Root, path, "io.stat"))) {
			fields := bytes.Fields(line)
			if len(fields) < 2 {
				continue
			}
			d := at(fields[0])
			for _, f := range fields[1:] {
				key, v, _ := bytes.Cut(f, []byte("="))
				d.add(string(key), number(v))
			}
		}
		return list
	}
	if t.dirs["blkio"] == "" {
		return nil
	}
	for _, file := range []struct{ name, read, write string }{
		{"blkio.throttle.io_service_bytes_recursive", "rbytes", "wbytes"}, {"blkio.throttle.io_serviced_recursive", "rios", "wios"},
	} {
		for line := range bytes.Lines(content(filepath.Join(t.dirs["blkio"], path, file.name))) {
			fields := bytes.Fields(line)
			if len(fields) != 3 {
				continue // the total of all devices
			}
			d := at(fields[0])
			switch string(fields[1]) {
			case "Read":
				d.add(file.read, number(fields[2]))
			case "Write":
				d.add(file.write, number(fields[2]))
			}
		}
	}
	return list
}

func (d *Disk) add(key string, v uint64) {
	if d == nil {
		return
	}
	switch key {
	case "rbytes":
		d.ReadBytes = v
	case "wbytes":
		d.WriteBytes = v
	case "rios":
		d.Reads = v
	case "wios":
		d.Writes = v
	}
}

// Processes are those of a cgroup, not of what is below it.
func (t Tree) Processes(path string) []int {
	var out []int
	for line := range bytes.Lines(content(filepath.Join(t.Dir(path), "cgroup.procs"))) {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(line))); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// content is a whole file; nothing when it is not there.
func content(path string) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 512)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err != nil || n <= 0 {
			return buf
		}
		buf = buf[:len(buf)+n]
	}
}
