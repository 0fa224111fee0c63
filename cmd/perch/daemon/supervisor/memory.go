package supervisor

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// proportionalSet is the PSS of a process in bytes: pages shared by the roles
// count once over all of them. 0 when the process is gone.
func proportionalSet(pid int) int64 {
	if pid == 0 {
		return 0
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // 0 says "unknown"
			return kb << 10
		}
	}
	return 0
}
