package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// told is one alert as a webhook receives it.
type told struct {
	version, status string
	labels, notes   map[string]string
	at              time.Time
}

// receiver takes webhooks on the bridge between the machines.
func receiver(t *testing.T, address string) (string, <-chan told) {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan told, 1000)
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var hook struct {
			Version string
			Alerts  []struct {
				Status              string
				Labels, Annotations map[string]string
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&hook); err != nil {
			t.Error(err)
		}
		for _, a := range hook.Alerts {
			got <- told{hook.Version, a.Status, a.Labels, a.Annotations, time.Now()}
		}
	})}
	go func() { _ = srv.Serve(l) }() // until Close
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String() + "/", got
}

// await waits for an alert about a node.
func await(t *testing.T, from <-chan told, limit time.Duration, name, node, status string) told {
	t.Helper()
	for end := time.After(limit); ; {
		select {
		case h := <-from:
			t.Logf("received: %s %s %v", h.labels["alertname"], h.status, h.labels)
			if h.labels["alertname"] == name && h.labels["node"] == node && h.status == status {
				return h
			}
		case <-end:
			t.Fatalf("not within %s: %s of %s is %s", limit, name, node, status)
		}
	}
}

// alarm: the server loses power; its worker tells the receiver that the cluster
// names, and the end when the server is back.
func (m machines) alarm(t *testing.T) {
	url, hooks := receiver(t, machinesNet+".1")
	file := filepath.Join(t.TempDir(), "alertmanager.yaml")
	conf := "route: {receiver: nobody, routes: [{receiver: people, matchers: ['alertname=\"ServerUnreachable\"']}]}\n" +
		"receivers: [{name: nobody, webhook_configs: [{url: 'http://nobody.example/secret'}]}, {name: people, webhook_configs: [{url: '" + url + "'}]}]\n"
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kube(t, "-n", "kube-system", "create", "secret", "generic", "perch-alertmanager", "--from-file="+file)
	kept := filepath.Join(workerDir(), "alarm", "told.json")
	m.until(t, 30*time.Second, "the worker knows the receiver", contains(url), "cat", kept)
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("what the worker keeps: %v, %v", info, err)
	}
	if text, err := os.ReadFile(kept); err != nil || strings.Contains(string(text), "secret") {
		t.Errorf("the worker has the secrets of other receivers: %s, %v", text, err)
	}

	m.run(t, m.tool, "crash", "na")
	gone := time.Now()
	first := await(t, hooks, time.Minute, "ServerUnreachable", "nb", "firing")
	t.Logf("told %.1f s after the loss: %s", first.at.Sub(gone).Seconds(), first.notes["summary"])
	if first.version != "4" || first.labels["severity"] != "critical" || !strings.Contains(first.notes["summary"], serverIP) {
		t.Errorf("the webhook: %+v", first)
	}

	m.run(t, m.tool, "start", "na", serverIP)
	t.Log(m.at(t, "na", "up", "--data-dir", m.dir, "--detach"))
	back := time.Now()
	last := await(t, hooks, time.Minute, "ServerUnreachable", "nb", "resolved")
	t.Logf("told the end %.1f s after the server was ready", last.at.Sub(back).Seconds())
	m.until(t, 30*time.Second, "the history has it", func(s string) bool {
		return strings.Contains(s, "ServerUnreachable firing") && strings.Contains(s, "ServerUnreachable resolved")
	}, m.perch, "alerts", "history", "ServerUnreachable")
}
