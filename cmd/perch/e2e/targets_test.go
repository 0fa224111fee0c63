package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const monitorsManifest = `
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {token: t0ken}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  podMetricsEndpoints: [{port: http, path: /metrics, interval: 5s, authorization: {credentials: {name: login, key: token}}}]
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: idle}
spec: {selector: {matchLabels: {app: nobody}}, podMetricsEndpoints: [{port: http}]}
`

// targets: pods are scraped on the node where they run for objects that only the
// server may read, with a Secret that the worker may not read either.
func (m machines) targets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "monitors.yaml")
	if err := os.WriteFile(file, []byte(monitorsManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kube(t, "apply", "-f", file)
	type listing struct {
		Targets []struct{ Node, From, Health string }
		Objects []struct {
			From string
			Why  []string
		}
	}
	// each says how many targets of the monitor are up by node, and why of both.
	each := func(text string) string {
		var l listing
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return err.Error()
		}
		up := map[string]int{}
		for _, r := range l.Targets {
			if r.From == "podmonitor/default/web" && r.Health == "up" {
				up[r.Node]++
			}
		}
		out := fmt.Sprintf("na %d nb %d", up["na"], up["nb"])
		for _, o := range l.Objects {
			if strings.HasPrefix(o.From, "podmonitor/default/") {
				out += "; " + o.From + ": " + strings.Join(o.Why, ", ")
			}
		}
		return out
	}
	list := []string{"targets", "-o", "json"}
	const idle = "podmonitor/default/idle: no pod matches: selector app=nobody in namespace default"
	said := func(want string) func(string) bool {
		return func(text string) bool { return each(text) == want }
	}
	m.until(t, 60*time.Second, "pods of both nodes are scraped", said("na 2 nb 2; "+idle+"; podmonitor/default/web: "), m.perch, list...)
	for deadline := time.Now().Add(40 * time.Second); ; <-time.After(500 * time.Millisecond) {
		a := m.query(t, `count by (node) (shop_order_duration_seconds_count{job="default/web"})`)
		if len(a.Data.Result) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("their series are not in the store: %+v", a)
		}
	}
	m.kube(t, "delete", "secret", "login")
	m.until(t, 60*time.Second, "without the Secret no node scrapes them", func(text string) bool {
		got := each(text)
		return strings.HasPrefix(got, "na 0 nb 0; ") && strings.Contains(got, "Secret default/login is not there")
	}, m.perch, list...)
	m.kube(t, "apply", "-f", file)
	m.until(t, 60*time.Second, "with it both do again", said("na 2 nb 2; "+idle+"; podmonitor/default/web: "), m.perch, list...)
	m.kube(t, "delete", "-f", file)
	m.until(t, 60*time.Second, "nobody asks any more", said("na 0 nb 0"), m.perch, list...)
}
