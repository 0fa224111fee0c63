package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"perch/cmd/perch/daemon/config"
)

func TestAFileThatAFlagNamesIsThereAndUsableOrTheStartIsRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.yml", "scrape_configs: [{job_name: a, static_configs: [{targets: ['h:1']}]}]")
	write("pods.yml", "scrape_configs:\n- job_name: a\n  kubernetes_sd_configs: [{role: pod}]\n")
	write("routes.yml", "route: {receiver: a}\nreceivers: [{name: b}]\n")
	write("rules/good.yml", "groups: [{name: g, rules: [{record: a, expr: up}]}]")
	write("broken/a.yml", "groups: [{name: g, rules: [{alert: A, expr: 'sum('}]}]")
	write("broken/note.txt", "not read")
	for _, test := range []struct{ name, flag, value, refusal string }{
		{"a usable file", "--scrape-config", "good.yml", ""},
		{"a missing file", "--scrape-config", "gone.yml", "--scrape-config: stat " + dir + "/gone.yml: no such file"},
		{"a discovery that is not there", "--scrape-config", "pods.yml", "--scrape-config: " + dir + "/pods.yml: line 3: kubernetes_sd_configs is not supported"},
		{"routes to nobody", "--alert-config", "routes.yml", `--alert-config: ` + dir + `/routes.yml: read Alertmanager configuration: undefined receiver "a"`},
		{"rules", "--rules-dir", "rules", ""},
		{"a broken rule", "--rules-dir", "broken", `--rules-dir: ` + dir + `/broken/a.yml:1:`},
		{"a file as directory", "--rules-dir", "good.yml", "good.yml: not a directory"},
		{"targets of remote write without an address", "--remote-write", "good.yml", "field scrape_configs not found"},
		{"a key", "--forward-keys", "good.yml", ""},
		{"a missing key", "--forward-keys", "gone", "--forward-keys: stat " + dir + "/gone"},
	} {
		cfg := config.Default()
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		machineFlags(flags, &cfg)
		if err := flags.Parse([]string{test.flag + "=" + test.value}); err != nil {
			t.Fatal(err)
		}
		err := givenFiles(&cfg, flags)
		if (err != nil) != (test.refusal != "") || err != nil && !strings.Contains(err.Error(), test.refusal) {
			t.Errorf("%s: %v, want %q", test.name, err, test.refusal)
		}
		if got := flags.Lookup(strings.TrimPrefix(test.flag, "--")).Value.String(); got != filepath.Join(dir, test.value) {
			t.Errorf("%s: %s, want an absolute path: roles have another working directory", test.name, got)
		}
	}
}

func TestARememberedFileThatIsGoneStopsNoStart(t *testing.T) {
	cfg := config.Default()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	machineFlags(flags, &cfg)
	cfg.ScrapeConfig = "/nonexistent/prometheus.yml" // of config.json
	if err := givenFiles(&cfg, flags); err != nil {
		t.Error(err)
	}
}
