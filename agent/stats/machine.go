package stats

import (
	"os"
	"path/filepath"
	"strings"
)

// Machine is what does not change while the agent runs.
type Machine struct {
	Cores, PhysicalCores, Sockets int
	Memory, Swap                  uint64 // bytes
	SystemUUID                    string
}

// setMachine makes the series about the machine.
func (s *Stats) setMachine(m Machine) {
	word := func(path string) string {
		text, _ := os.ReadFile(path) // some machines lack it
		return strings.TrimSpace(string(text))
	}
	id := word("/etc/machine-id")
	if m.SystemUUID == "" {
		m.SystemUUID = id
	}
	own := []string{"boot_id", word(filepath.Join(s.cfg.Proc, "sys/kernel/random/boot_id")), "machine_id", id, "system_uuid", m.SystemUUID}
	set := func(family int, v float64, more ...string) {
		s.set(&s.machine, family, strings.Join(more, ","), v, func() []string { return append(more, own...) })
	}
	s.machine.begin()
	set(machineCores, float64(m.Cores))
	set(machinePhysical, float64(m.PhysicalCores))
	set(machineSockets, float64(m.Sockets))
	set(machineMemory, float64(m.Memory))
	set(machineSwap, float64(m.Swap))
	set(machineNVM, 0, "mode", "memory_mode")
	set(machineNVM, 0, "mode", "app_direct_mode")
	none := func() []string { return nil }
	s.set(&s.machine, machineError, "", 0, none)
	s.set(&s.machine, containerError, "", 0, none)
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
