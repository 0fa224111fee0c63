package quiet

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"perch/build/debiantest"
)

// amtool drives the running cluster by Alertmanager's tool as Debian has it,
// through TLS and with a token, as scripts of people do.
func (c cluster) amtool(t *testing.T) {
	tool := debiantest.Tool(t, "amtool")
	access := filepath.Join(t.TempDir(), "http.yaml")
	if err := os.WriteFile(access, []byte("authorization: {credentials: "+c.token+"}\ntls_config: {ca_file: "+c.dir+"/ca.crt}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	am := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(tool, append([]string{"--alertmanager.url=https://127.0.0.1:" + web + "/alertmanager", "--http.config.file=" + access}, args...)...)
		var said bytes.Buffer
		cmd.Stderr = &said // that the versions differ
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("amtool %s: %v\n%s", strings.Join(args, " "), err, said.String())
		}
		return strings.TrimSpace(string(out))
	}
	wants := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	wants(am("config", "routes", "test", "severity=critical"), "nobody")
	wants(am("alert", "query"), "Watchdog")
	id := am("silence", "add", "alertname=Watchdog", "--author=kim", "--comment=a look at amtool", "--duration=10m")
	wants(am("silence", "query"), "a look at amtool")
	wants(am("alert", "query", "--silenced"), "Watchdog")
	wants(c.run(t, "alerts", "history"), "silenced by")
	am("silence", "expire", id)
	if left := am("silence", "query", "-q"); left != "" {
		t.Errorf("silences left: %s", left)
	}
}
