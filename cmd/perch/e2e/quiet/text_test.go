package quiet

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"perch/build/debiantest"
)

// texts asks Debian's promtool what it thinks of the texts that a node serves
// for a Prometheus elsewhere: kubelet's, node_exporter's, kube-state-metrics', and the server's parts'.
func (c cluster) texts(t *testing.T) {
	tool := debiantest.Tool(t, "promtool")
	for path, least := range map[string]int{"metrics": 500, "metrics/cadvisor": 500, "metrics/resource": 20, "metrics/probes": 10, "metrics/node": 200, "metrics/objects": 300,
		"metrics/kube-scheduler": 50, "metrics/kube-controller-manager": 50, "metrics/etcd": 300} {
		text := c.run(t, "get", "--raw", "/api/v1/nodes/wren/proxy/"+path) + "\n"
		check := exec.Command(tool, "check", "metrics")
		check.Stdin = strings.NewReader(text)
		out, err := check.CombinedOutput()
		said := strings.Split(strings.TrimSpace(string(out)), "\n")
		if path == "metrics/etcd" { // the names are etcd's, which has them so for ever
			said = slices.DeleteFunc(said, func(l string) bool { return strings.HasPrefix(l, "etcd_") })
			err = nil
		}
		if path == "metrics/node" { // the names are node_exporter's, of which promtool says the same
			said = slices.DeleteFunc(said, func(l string) bool {
				return strings.HasPrefix(l, "node_") && (strings.Contains(l, "'snake_case' not 'camelCase'") || strings.Contains(l, `base unit "bytes" instead of "bits"`))
			})
			err = nil // its code says that there was a complaint
		}
		if err != nil || strings.Join(said, "") != "" || strings.Count(text, "\n") < least {
			t.Errorf("promtool check metrics of /%s, %d lines: %v\n%s", path, strings.Count(text, "\n"), err, strings.Join(said, "\n"))
		}
	}
}
