package interop

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/ingest/syslog"
	"perch/logs/record"
)

// syslogDoor opens the syslog door and tells its port.
func syslogDoor(t *testing.T, m *memory) string {
	t.Helper()
	s, err := syslog.New(syslog.Default("127.0.0.1:0", "n1"), syslog.Parts{Sink: m.sink, Identify: func(netip.Addr) (record.Stream, bool, bool) {
		return record.Stream{Namespace: "shop", Pod: "web-1"}, true, true
	}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	background(t, s.Run)
	a, _ := netip.ParseAddrPort(s.Addr().String())
	return fmt.Sprint(a.Port())
}

// Both daemons read the same file of 100 lines and send it by four ways.
func TestSyslogDaemons(t *testing.T) {
	root := filepath.Join(place(t), "root")
	for _, c := range []struct {
		name, program, config string
		args                  func(dir, config string) []string
	}{
		{"rsyslog", "usr/sbin/rsyslogd", "rsyslog.conf", func(dir, config string) []string {
			args := []string{"-n", "-f", config, "-i", filepath.Join(dir, "pid")}
			if modules := filepath.Join(root, "usr/lib/x86_64-linux-gnu/rsyslog"); exists(modules) {
				args = append(args, "-M", modules)
			}
			return args
		}},
		{"syslog-ng", "usr/sbin/syslog-ng", "syslog-ng.conf", func(dir, config string) []string {
			args := []string{"-F", "--no-caps", "-f", config, "-p", filepath.Join(dir, "pid"), "-R", filepath.Join(dir, "persist"), "-c", filepath.Join(dir, "ctl")}
			if modules := filepath.Join(root, "usr/lib/syslog-ng/3.38"); exists(modules) {
				args = append(args, "--module-path", modules)
			}
			return args
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var text bytes.Buffer
			for i := range 100 {
				fmt.Fprintf(&text, "daemon line %d\n", i)
			}
			modern, old, pushed := newMemory(), newMemory(), newMemory()
			u, err := url.Parse(web(t, pushed).URL)
			if err != nil {
				t.Fatal(err)
			}
			config, err := os.ReadFile(filepath.Join("testdata", c.config))
			if err != nil {
				t.Fatal(err)
			}
			filled := strings.NewReplacer("@DIR@", dir, "@WEB@", u.Port(), "@TOKEN@", token, "@SYSLOG@", syslogDoor(t, modern), "@OLD@", syslogDoor(t, old)).Replace(string(config))
			path := filepath.Join(dir, c.config)
			for name, text := range map[string][]byte{path: []byte(filled), filepath.Join(dir, "in.log"): text.Bytes()} {
				if err := os.WriteFile(name, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := program(t, c.program, c.args(dir, path)...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // it was killed
				if t.Failed() {
					t.Logf("%s", out.String())
				}
			}()
			for way, m := range map[string]*memory{"RFC 5424": modern, "RFC 3164": old} {
				r := m.lines(t, 100, `^ ?daemon line \d+$`)
				ours(t, r)
				if field(r[0], "app") != "shop" || field(r[0], "host") == "" || r[0].Level != record.Error {
					t.Errorf("%s: %s %+v", way, r[0].Level, r[0].Fields)
				}
			}
			if c.name == "rsyslog" {
				ours(t, pushed.lines(t, 100, `^ ?daemon line \d+$`))
				return
			}
			loki, elastic := 0, 0
			for _, r := range pushed.twice(t, 200) {
				switch field(r, "from") {
				case "loki":
					loki++
				case "elastic":
					elastic++
				}
			}
			if loki != 100 || elastic != 100 {
				t.Errorf("%d lines by Loki's way, %d by Elasticsearch's, want 100 each", loki, elastic)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
