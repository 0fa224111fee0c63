package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func valid() Config {
	c := Default()
	c.NodeName, c.AdvertiseAddress = "n1", netip.MustParseAddr("192.0.2.2")
	return c
}

func TestBadFlagsAreNamedWithTheWayOut(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"two doors on one port":           {func(c *Config) { c.WebPort = c.APIPort }, "are both 6443"},
		"a name with capitals":            {func(c *Config) { c.Name = "Prod" }, `--name "Prod": use`},
		"a relative data directory":       {func(c *Config) { c.DataDir = "data" }, "absolute path"},
		"a data directory of 200 letters": {func(c *Config) { c.DataDir = "/" + strings.Repeat("x", 200) }, "unix socket is limited"},
		"overlapping networks":            {func(c *Config) { c.ServiceCIDR = c.ClusterCIDR }, "overlap"},
		"a network with host bits":        {func(c *Config) { c.ClusterCIDR = netip.MustParsePrefix("10.42.0.1/16") }, "for example 10.42.0.0/16"},
		"an agent without a server":       {func(c *Config) { c.Kind = Agent }, "--server: give the URL"},
		"no address":                      {func(c *Config) { c.AdvertiseAddress = netip.Addr{} }, "--advertise-address"},
		"half a certificate":              {func(c *Config) { c.ForwardTLSCert = "f.crt" }, "give both or none"},
		"lines sent to its own port":      {func(c *Config) { c.ForwardTo = "tls://127.0.0.1:24224" }, "go round for ever"},
		"lines sent to its own address":   {func(c *Config) { c.ForwardTo = "192.0.2.2:24224" }, "go round for ever"},
		"a receiver without a port":       {func(c *Config) { c.ForwardTo = "logs.example" }, "HOST:PORT or tls://HOST:PORT"},
		"a CA for a receiver without TLS": {func(c *Config) { c.ForwardTo, c.ForwardToCA = "logs.example:24224", "ca.crt" }, "--forward-to-ca is for"},
		"an unknown beginning":            {func(c *Config) { c.ForwardToStart = "soon" }, "use now or beginning"},
		"an unknown audit":                {func(c *Config) { c.Audit = "some" }, "use off, writes or all"},
		"a retention that is none":        {func(c *Config) { c.LogRetention = []string{"14d", "shop=3 days"} }, "--log-retention shop=3 days: write how long"},
		"a retention of a minute":         {func(c *Config) { c.LogRetention = []string{"1m"} }, "from 1h to 10y"},
		"a size that is none":             {func(c *Config) { c.LogBytes = []string{"shop=much"} }, "--log-bytes shop=much: write how many bytes"},
		"samples for a minute":            {func(c *Config) { c.MetricRetention = "1m" }, "--metric-retention 1m: write how long samples are kept"},
		"samples in no space":             {func(c *Config) { c.MetricBytes = "1Mi" }, "--metric-bytes 1Mi: write how many bytes"},
		"samples in some space":           {func(c *Config) { c.MetricBytes = "much" }, "--metric-bytes much: write how many bytes"},
		"a hundred series":                {func(c *Config) { c.MetricSeries = 100 }, "--metric-series 100: write how many series"},
		"a worker that keeps no series":   {func(c *Config) { c.Kind, c.Server, c.MetricBytes = Agent, "https://s:6443", "1Gi" }, "workers with --series-store"},
		"port 0":                          {func(c *Config) { c.APIPort = 0 }, "--api-port 0: a port is 1 to 65535"},
	} {
		t.Run(name, func(t *testing.T) {
			c := valid()
			tc.change(&c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
	if err := valid().Validate(); err != nil {
		t.Error(err)
	}
}

func TestSavedConfigurationIsReadBack(t *testing.T) {
	c := valid()
	c.DataDir = t.TempDir()
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := Load(c.DataDir)
	if err != nil || got.AdvertiseAddress != c.AdvertiseAddress || got.ServiceIP(10).String() != "10.43.0.10" {
		t.Fatalf("%+v, %v", got, err)
	}
	t.Chdir(filepath.Dir(c.DataDir))
	if got, err := Load(filepath.Base(c.DataDir)); err != nil || got.DataDir != c.DataDir {
		t.Errorf("by a relative path: %q, %v", got.DataDir, err)
	}
}

func TestNewerDataIsRefusedAndEmptyIsExplained(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "no cluster in") {
		t.Errorf("empty: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "newer perch (format 99") {
		t.Errorf("newer: %v", err)
	}
}

func TestADamagedConfigurationIsOneSentenceWithTheWayOut(t *testing.T) {
	for _, text := range []string{"", "no json", "{}", `{"name":"No Name","nodeName":"n1"}`, `{"apiPort":"many"}`, "null"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(dir)
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "config.json is damaged (") || !strings.Contains(err.Error(), "or remove it") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestRetentionIsReadByNamespace(t *testing.T) {
	all, own, err := Logs{LogRetention: []string{"14d", "shop=72h"}, LogBytes: []string{"shop=1Gi", "debug=100Mi"}}.Retention()
	if err != nil || all != (Kept{14 * 24 * time.Hour, 8 << 30}) || own["shop"] != (Kept{72 * time.Hour, 1 << 30}) || own["debug"] != (Kept{0, 100 << 20}) {
		t.Fatal(all, own, err)
	}
	if all, own, err = (Logs{LogRetention: []string{"0"}}).Retention(); err != nil || all.Age != 0 || len(own) != 0 {
		t.Fatal(all, own, err)
	}
}
