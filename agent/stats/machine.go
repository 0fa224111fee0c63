package stats

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readMachine takes what does not change while the agent runs.
func (s *Stats) readMachine() {
	proc := string(s.proc)
	word := func(path string) string {
		text, _ := os.ReadFile(path) // some machines lack it
		return strings.TrimSpace(string(text))
	}
	id := word("/etc/machine-id")
	uuid := word(filepath.Join(s.cfg.Sys, "class/dmi/id/product_uuid"))
	if uuid == "" {
		uuid = id
	}
	own := []string{"boot_id", word(filepath.Join(proc, "sys/kernel/random/boot_id")), "machine_id", id, "system_uuid", uuid}
	set := func(family int, v float64, more ...string) {
		s.set(&s.machine, family, strings.Join(more, ","), v, func() []string { return append(more, own...) })
	}
	s.machine.begin()
	cores, packages := processors(filepath.Join(proc, "cpuinfo"))
	memory, swap := sizes(filepath.Join(proc, "meminfo"))
	set(machineCores, float64(runtime.NumCPU()))
	set(machinePhysical, float64(cores))
	set(machineSockets, float64(packages))
	set(machineMemory, memory)
	set(machineSwap, swap)
	set(machineNVM, 0, "mode", "memory_mode")
	set(machineNVM, 0, "mode", "app_direct_mode")
	none := func() []string { return nil }
	s.set(&s.machine, machineError, "", 0, none)
	s.set(&s.machine, containerError, "", 0, none)
	s.set(&s.machine, version, "", 1, func() []string {
		var uts unix.Utsname
		_ = unix.Uname(&uts) // fails never; an empty label would be left out
		return []string{"kernelVersion", unix.ByteSliceToString(uts.Release[:]), "osVersion", osName("/etc/os-release")}
	})
}

// processors counts cores and sockets; where the kernel does not tell them
// apart each CPU is a core of one socket.
func processors(path string) (cores, packages int) {
	text, _ := os.ReadFile(path) // as if it told nothing
	ofCore, ofPackage := map[string]bool{}, map[string]bool{}
	at := ""
	for line := range bytes.Lines(text) {
		key, v, _ := strings.Cut(string(line), ":")
		switch v = strings.TrimSpace(v); strings.TrimSpace(key) {
		case "physical id":
			at = v
			ofPackage[v] = true
		case "core id":
			ofCore[at+"/"+v] = true
		}
	}
	if len(ofCore) == 0 {
		return runtime.NumCPU(), 1
	}
	return len(ofCore), max(1, len(ofPackage))
}

// sizes are the bytes of memory and swap.
func sizes(path string) (memory, swap float64) {
	text, _ := os.ReadFile(path) // as if there were none
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		kb, _ := strconv.ParseFloat(fields[1], 64) // the kernel's own digits
		switch fields[0] {
		case "MemTotal:":
			memory = kb * 1024
		case "SwapTotal:":
			swap = kb * 1024
		}
	}
	return memory, swap
}

func osName(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "Linux"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return "Linux"
}

// deviceName is /dev/NAME of a block device MAJOR:MINOR.
func (s *Stats) deviceName(number string) string {
	if name, ok := s.devices[number]; ok {
		return name
	}
	name := ""
	if target, err := os.Readlink(filepath.Join(s.cfg.Sys, "dev/block", number)); err == nil {
		name = "/dev/" + filepath.Base(target)
	}
	s.devices[number] = name // those that a machine ever had are few
	return name
}
