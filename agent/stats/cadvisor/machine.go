package cadvisor

import (
	"fmt"
	"os"

	"github.com/google/cadvisor/lib/machine"
	"github.com/google/cadvisor/lib/utils/sysfs"

	"perch/agent/stats"
)

// Machine tells what does not change while the agent runs, as the library finds
// it. What a machine does not tell stays zero; without its memory and processors
// there is no answer.
func Machine() (m stats.Machine, err error) {
	if m.Memory, err = machine.GetMachineMemoryCapacity(); err != nil {
		return m, fmt.Errorf("read memory of the machine: %w", err)
	}
	if m.Swap, err = machine.GetMachineSwapCapacity(); err != nil {
		return m, fmt.Errorf("read swap of the machine: %w", err)
	}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, fmt.Errorf("read processors of the machine: %w", err)
	}
	sys := sysfs.NewRealSysFs()
	if _, m.Cores, err = machine.GetTopology(sys); err != nil {
		return m, fmt.Errorf("read processors of the machine: %w", err)
	}
	m.PhysicalCores, m.Sockets = machine.GetPhysicalCores(cpus), machine.GetSockets(cpus)
	m.SystemUUID, _ = sys.GetSystemUUID() // containers and small boards have none
	return m, nil
}
