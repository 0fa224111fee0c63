package agent

import (
	"bufio"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// machine is what does not change while the agent runs.
type machine struct {
	hostname string
	cpus     int64
	memory   int64 // bytes
	disk     int64 // bytes of the file system of the data dir
	info     corev1.NodeSystemInfo
}

func readMachine(cfg Config) (machine, error) {
	var m machine
	var err error
	if m.hostname, err = os.Hostname(); err != nil {
		return m, err
	}
	m.cpus = int64(goruntime.NumCPU())
	if m.memory, err = memoryBytes("/proc/meminfo", "MemTotal"); err != nil {
		return m, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(cfg.Data, &fs); err != nil {
		return m, fmt.Errorf("look at file system of %s: %w", cfg.Data, err)
	}
	m.disk = int64(fs.Blocks) * fs.Bsize
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("read kernel version: %w", err)
	}
	m.info = corev1.NodeSystemInfo{
		MachineID: word("/etc/machine-id"), SystemUUID: word("/sys/class/dmi/id/product_uuid"), BootID: word("/proc/sys/kernel/random/boot_id"),
		KernelVersion: unix.ByteSliceToString(uts.Release[:]), OSImage: osImage(), OperatingSystem: "linux", Architecture: goruntime.GOARCH,
		KubeletVersion: cfg.Version, KubeProxyVersion: "",
	}
	if m.info.SystemUUID == "" {
		m.info.SystemUUID = m.info.MachineID
	}
	return m, nil
}

// word is the content of a file that some machines lack.
func word(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

func osImage() string {
	for line := range strings.Lines(word("/etc/os-release")) {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return "Linux"
}

// memoryBytes reads one line of a meminfo file.
func memoryBytes(path, name string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // read only
	for in := bufio.NewScanner(f); in.Scan(); {
		words := strings.Fields(in.Text())
		if len(words) >= 2 && words[0] == name+":" {
			kib, err := strconv.ParseInt(words[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read %s: no line %s", path, name)
}

func (m machine) capacity(cfg Config) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(m.cpus, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(m.memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(m.disk, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(cfg.MaxPods, resource.DecimalSI),
	}
}

// allocatable is what pods may ask for together.
func (m machine) allocatable(cfg Config) corev1.ResourceList {
	out := m.capacity(cfg)
	for name, keep := range cfg.Reserve {
		if q, ok := out[name]; ok {
			q.Sub(keep)
			if q.Sign() < 0 {
				q = resource.Quantity{}
			}
			out[name] = q
		}
	}
	return out
}
