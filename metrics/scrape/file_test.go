package scrape

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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
	eventually(t, 2*time.Minute, func() bool {
		got, _ := latest(t, s, "good")
		return got[`{__name__="good", exported_job="its own", instance="`+address+`", job="shop", module="m", node="n1", team="a"}`] == 1
	}, here)
	eventually(t, 2*time.Minute, func() bool {
		text := here()
		return strings.Contains(text, "{From:file/shop Targets:1 Up:1 Why:[]}") && strings.Contains(text, "found:by-file") && strings.Contains(text, "sample limit exceeded")
	}, here)
	write("prometheus.yml", "scrape_configs: [{job_name: shop, metrics_pth: /x}]")
	eventually(t, 2*time.Minute, func() bool { return strings.Contains(here(), "prometheus.yml: line 1: metrics_pth is not known") }, here)
	if text := here(); !strings.Contains(text, "{From:file/shop Targets:1 Up:1 Why:[]}") {
		t.Errorf("a broken file took away what was: %s", text)
	}
	write("prometheus.yml", "scrape_configs: [{job_name: pods}]")
	eventually(t, 2*time.Minute, func() bool { return strings.Contains(here(), `the job name "pods" is perch's own`) }, here)
	write("prometheus.yml", "scrape_configs: []")
	eventually(t, 2*time.Minute, func() bool { return len(l.Here()) == 0 && len(l.Dropped()) == 0 }, here)
}

func TestWhatAFileDoesNotGetSaysWhy(t *testing.T) {
	address, _, _ := apps(t)
	dir := t.TempDir()
	cfg := Default()
	cfg.File, cfg.TargetLimit = filepath.Join(dir, "prometheus.yml"), 4
	text := `
global: {scrape_interval: 1s, scrape_timeout: 1s, external_labels: {a: b}}
rule_files: [x.yml]
scrape_config_files: [more-*.yml]
scrape_configs:
- {job_name: nobody, static_configs: []}
- {job_name: no-file, file_sd_configs: [{files: [gone-*.yml]}]}
- {job_name: no-answer, http_sd_configs: [{url: "http://127.0.0.1:1/x", refresh_interval: 1s}]}
- job_name: relabelled
  static_configs: [{targets: [ADDRESS]}]
  relabel_configs: [{action: drop, source_labels: [__address__], regex: .*}]
- job_name: no-ca
  metrics_path: /good
  tls_config: {ca_file: ca.crt}
  basic_auth: {username: u, password: "pa: ss"}
  static_configs: [{targets: [ADDRESS]}]
- {job_name: too-many, static_configs: [{targets: ["a:1", "b:1", "c:1", "d:1"]}]}
`
	if err := os.WriteFile(cfg.File, []byte(strings.ReplaceAll(text, "ADDRESS", address)), 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(chan error, 10)
	l := runLoop(t, newStore(t), cfg, Parts{Refused: func(err error) { said <- err }}, nil)
	here := func() string { return fmt.Sprintf("%+v", l.List().Objects) }
	for _, want := range []string{
		"{From:file/nobody Targets:0 Up:0 Why:[no target found]}",
		"{From:file/no-file Targets:0 Up:0 Why:[no target found]}",
		"{From:file/no-answer Targets:0 Up:0 Why:[Unable to refresh target groups: Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: connection refused]}",
		"{From:file/relabelled Targets:0 Up:0 Why:[relabel_configs drops 1 of 1 targets]}",
		"{From:file/no-ca Targets:0 Up:0 Why:[unable to read CA cert: unable to read file " + dir + "/ca.crt",
		"{From:file/too-many Targets:3 Up:0 Why:[",
		"1 of 4 targets are left out: this node has its limit of 4",
		"rule_files is not read: name their directory by --rules-dir",
		"external_labels does nothing",
	} {
		eventually(t, 2*time.Minute, func() bool { return strings.Contains(here(), want) }, func() string { return want + " is not in " + here() })
	}
	// What was missing comes.
	if err := os.WriteFile(filepath.Join(dir, "more-1.yml"), []byte("scrape_configs: [{job_name: more, metrics_path: /good, static_configs: [{targets: ['"+address+"']}]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), certificate(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"{From:file/no-ca Targets:1 Up:1 Why:[]}", "{From:file/more "} {
		eventually(t, 2*time.Minute, func() bool { return strings.Contains(here(), want) }, func() string { return want + " is not in " + here() })
	}
	if err := <-said; err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestAComplaintAboutAFileIsOneLineInItsReadersWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yml")
	for text, want := range map[string]string{
		"scrape_configs:\n- job_name: a\n  kubernetes_sd_configs: [{role: pod}]\n":         "line 3: kubernetes_sd_configs is not supported: targets are found by static_configs,",
		"scrape_configs:\n- job_name: a\n  metric_path: /x\n- job_name: b\n  jobname: c\n": "line 3: metric_path is not known; line 5: jobname is not known",
		"scrape_configs: [{job_name: a}, {job_name: a}]":                                   "found multiple scrape configs with job name \"a\"",
		"scrape_configs: [{job_name: a, scrape_interval: fast}]":                           "not a valid duration string: \"fast\"",
		"scrape_configs: [": "line 1: did not find expected node content",
		"scrape_configs: [{job_name: a, static_configs: [{targets: ['http://h:1/x']}]}]":            "\"http://h:1/x\" is not a valid hostname",
		"scrape_configs: [{job_name: a, static_configs: [{targets: ['h:1']}]}]":                     "",
		"scrape_configs: [{job_name: a, basic_auth: {username: u, password: p, password_file: f}}]": "at most one of basic_auth password",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Check(path)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s\n is refused with %v, want %q", text, err, want)
		}
	}
	if err := Check("/nonexistent/p.yml"); err == nil || !strings.Contains(err.Error(), "open /nonexistent/p.yml: no such file") {
		t.Error(err)
	}
}

// certificate is one that nobody shows.
func certificate(t *testing.T) []byte {
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func TestATargetWhoseClockIsWrongLosesOnlyWhatCannotBeStored(t *testing.T) {
	var asked atomic.Int64
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		now := time.Now()
		at := func(d time.Duration) int64 { return now.Add(d).UnixMilli() }
		fmt.Fprintf(w, "before %d\nahead 1 %d\nbehind 1 %d\nlong_ago 1 %d\nfar_ahead 1 %d\ntwice 1\ntwice 2\nsame_time 1 1000\nafter 1\n",
			asked.Add(1), at(time.Hour), at(-time.Hour), at(-30*24*time.Hour), at(100*365*24*time.Hour))
	}))
	defer app.Close()
	cfg := Default()
	cfg.File = filepath.Join(t.TempDir(), "prometheus.yml")
	text := "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs: [{job_name: clock, static_configs: [{targets: ['" + app.Listener.Addr().String() + "']}]}]"
	if err := os.WriteFile(cfg.File, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	l := runLoop(t, s, cfg, Parts{}, nil)
	here := func() string { return fmt.Sprintf("%+v", l.List().Objects) }
	value := func(name string) float64 {
		got, _ := latest(t, s, name)
		for _, v := range got {
			return v
		}
		return 0
	}
	eventually(t, 2*time.Minute, func() bool { return value("before") >= 3 && value("after") == 1 && value("twice") > 0 }, here)
	if text := here(); text != "[{From:file/clock Targets:1 Up:1 Why:[]}]" {
		t.Errorf("the target is %s", text)
	}
}
