package scrape

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAFileSaysWhatToScrape(t *testing.T) {
	address, _, _ := apps(t)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		// A new file each time, as editors and kubectl do it.
		if err := os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("login", "pa: ss")
	write("more.yml", "- targets: ['"+address+"']\n  labels: {found: by-file}\n")
	const first = `
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: shop
  metrics_path: /good
  params: {module: [m]}
  basic_auth: {username: u, password_file: login}
  static_configs: [{targets: ['ADDRESS'], labels: {team: a}}]
- job_name: many
  metrics_path: /many
  sample_limit: 10
  file_sd_configs: [{files: [more.yml]}]
`
	write("prometheus.yml", strings.ReplaceAll(first, "ADDRESS", address))
	s := newStore(t)
	cfg := Default()
	cfg.File = filepath.Join(dir, "prometheus.yml")
	l := runLoop(t, s, cfg, Parts{}, nil)
	here := func() string { return fmt.Sprintf("%+v", l.List()) }
	eventually(t, 40*time.Second, func() bool {
		got, _ := latest(t, s, "good")
		return got[`{__name__="good", exported_job="its own", instance="`+address+`", job="shop", module="m", node="n1", team="a"}`] == 1
	}, here)
	eventually(t, 40*time.Second, func() bool {
		text := here()
		return strings.Contains(text, "{From:file/shop Targets:1 Up:1 Why:[]}") && strings.Contains(text, "found:by-file") && strings.Contains(text, "sample limit exceeded")
	}, here)
	write("prometheus.yml", "scrape_configs: [{job_name: shop, metrics_pth: /x}]")
	eventually(t, 40*time.Second, func() bool { return strings.Contains(here(), "field metrics_pth not found") }, here)
	if text := here(); !strings.Contains(text, "{From:file/shop Targets:1 Up:1 Why:[]}") {
		t.Errorf("a broken file took away what was: %s", text)
	}
	write("prometheus.yml", "scrape_configs: [{job_name: pods}]")
	eventually(t, 40*time.Second, func() bool { return strings.Contains(here(), `the job name "pods" is perch's own`) }, here)
	write("prometheus.yml", "scrape_configs: []")
	eventually(t, 40*time.Second, func() bool { return len(l.Here()) == 0 && len(l.Dropped()) == 0 }, here)
}
