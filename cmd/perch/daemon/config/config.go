// Package config is what one machine of a cluster was started with.
//
// It owns D/config.json and D/version, and the names that follow from them
// (paths, sockets, cgroups, tables). It decides nothing about the parts
// themselves. Roles read it once at start; it never reloads.
//
// Start reading at Config.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Format is the version of the data directory's layout. A directory of a newer
// format is refused, never touched.
const Format = 1

// Kind of machine.
type Kind string

// The kinds of machines.
const (
	Server Kind = "server" // control plane and pods
	Agent  Kind = "agent"  // pods only
)

// Config is everything a machine's roles share.
type Config struct {
	Name             string     `json:"name"`     // of the cluster on this machine: cgroups, tables and links carry it
	NodeName         string     `json:"nodeName"` // RFC 1123 subdomain
	Kind             Kind       `json:"kind"`
	DataDir          string     `json:"dataDir"`
	AdvertiseAddress netip.Addr `json:"advertiseAddress"`
	APIPort          int        `json:"apiPort"`
	WebPort          int        `json:"webPort"`
	AgentPort        int        `json:"agentPort"`
	ForwardPort      int        `json:"forwardPort"`
	PeerPort         int        `json:"peerPort"`
	RingPort         int        `json:"ringPort,omitempty"`     // 0: AgentPort + 1
	SyslogPort       int        `json:"syslogPort,omitempty"`   // 0: no syslog door
	ForwardKeys      string     `json:"forwardKeys,omitempty"`  // file with keys of Forward senders on other machines
	ForwardTo        string     `json:"forwardTo,omitempty"`    // [tls://]host:port of an external Forward server that gets all lines
	ForwardToKey     string     `json:"forwardToKey,omitempty"` // file with its shared key
	Logs
	Numbers

	ClusterCIDR   netip.Prefix `json:"clusterCIDR"`
	ServiceCIDR   netip.Prefix `json:"serviceCIDR"`
	ClusterDomain string       `json:"clusterDomain"`

	Server          string   `json:"server,omitempty"`          // URL of the API, agents only
	Web             string   `json:"web,omitempty"`             // URL of the web door as the server told it, agents only
	SeriesStore     bool     `json:"seriesStore,omitempty"`     // keeps second copies of the server's series, agents only
	JoinTokenFile   string   `json:"joinTokenFile,omitempty"`   // where a server keeps a join token for other machines
	RuntimeEndpoint string   `json:"runtimeEndpoint,omitempty"` // an external CRI socket; empty: the embedded runtime
	TLSNames        []string `json:"tlsNames,omitempty"`        // further names and addresses for the serving certificates
	ScrapeConfig    string   `json:"scrapeConfig,omitempty"`    // scrape_configs of a file in Prometheus' format
	RulesDir        string   `json:"rulesDir,omitempty"`        // rule files in Prometheus' format
	AlertConfig     string   `json:"alertConfig,omitempty"`     // a file in Alertmanager's format
	RemoteWrite     string   `json:"remoteWrite,omitempty"`     // a file with global and remote_write of a prometheus.yml

	ExperimentalPromQL bool `json:"experimentalPromQL,omitempty"` // what Prometheus has behind feature flags

	AllServerSeries bool `json:"allServerSeries,omitempty"` // store every series of the API server and etcd, not only those in use
}

// Default is the configuration of a server started without flags.
func Default() Config {
	host, _ := os.Hostname() // an empty name fails in Validate with a sentence
	return Config{
		Name: "default", NodeName: strings.ToLower(host), Kind: Server, DataDir: "/var/lib/perch",
		APIPort: 6443, WebPort: 9443, AgentPort: 10250, ForwardPort: 24224, PeerPort: 2380,
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		ClusterDomain: "cluster.local",
	}
}

var (
	nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	nodeRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

// maxDataDir keeps D/run/telemetry.sock within the 107 bytes a unix socket's
// path may have (unix(7)).
const maxDataDir = 107 - len("/run/containerd.sock.ttrpc")

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !nameRule.MatchString(c.Name) {
		bad("--name %q: use 1 to 32 of a-z, 0-9 and -", c.Name)
	}
	if !nodeRule.MatchString(c.NodeName) {
		bad("--node-name %q: use a lower-case DNS name", c.NodeName)
	}
	if !filepath.IsAbs(c.DataDir) {
		bad("--data-dir %q: give an absolute path", c.DataDir)
	} else if len(c.DataDir) > maxDataDir {
		bad("--data-dir is %d bytes long; %d are allowed, because the path of a unix socket is limited", len(c.DataDir), maxDataDir)
	}
	if !c.AdvertiseAddress.Is4() {
		bad("--advertise-address: give this machine's IPv4 address that other nodes reach")
	}
	ports := map[int]string{}
	for name, p := range c.Ports() {
		if p < 1 || p > 65535 {
			bad("--%s %d: a port is 1 to 65535", name, p)
		} else if other, taken := ports[p]; taken {
			bad("--%s and --%s are both %d", name, other, p)
		}
		ports[p] = name
	}
	if p := c.Gossip(); p < 1 || p > 65535 {
		bad("--ring-port %d: a port is 1 to 65535", p)
	}
	for name, p := range map[string]netip.Prefix{"cluster-cidr": c.ClusterCIDR, "service-cidr": c.ServiceCIDR} {
		if !p.IsValid() || !p.Addr().Is4() || p.Bits() > 24 || p.Masked() != p {
			bad("--%s %s: give an IPv4 network of /24 or larger, for example 10.42.0.0/16", name, p)
		}
	}
	if c.ClusterCIDR.IsValid() && c.ServiceCIDR.IsValid() && c.ClusterCIDR.Overlaps(c.ServiceCIDR) {
		bad("--cluster-cidr %s and --service-cidr %s overlap", c.ClusterCIDR, c.ServiceCIDR)
	}
	c.validateLogs(bad)
	c.validateNumbers(bad)
	if c.Kind == Agent && c.Server == "" {
		bad("--server: give the URL of the cluster's API, for example https://10.0.0.11:6443")
	}
	return errors.Join(errs...)
}

// Ports are the doors this machine opens, by flag name.
func (c Config) Ports() map[string]int {
	ports := map[string]int{"agent-port": c.AgentPort, "forward-port": c.ForwardPort}
	if c.SyslogPort != 0 {
		ports["syslog"] = c.SyslogPort
	}
	if c.Kind == Server {
		ports["api-port"], ports["web-port"], ports["peer-port"] = c.APIPort, c.WebPort, c.PeerPort
	}
	return ports
}

// Gossip is the port on which nodes tell each other that they are there. It is
// open only while there are others.
func (c Config) Gossip() int {
	if c.RingPort != 0 {
		return c.RingPort
	}
	return c.AgentPort + 1
}

// Path joins names to the data directory.
func (c Config) Path(names ...string) string {
	return filepath.Join(append([]string{c.DataDir}, names...)...)
}

// Socket is the path of a role's unix socket.
func (c Config) Socket(role string) string { return c.Path("run", role+".sock") }

// CgroupRoot is the cgroup all processes of this machine's cluster live under.
func (c Config) CgroupRoot() string { return "/perch-" + c.Name }

// Table is the nftables table of this machine's cluster.
func (c Config) Table() string { return "perch-" + c.Name }

// APIServer is the URL under which this machine reaches the API.
func (c Config) APIServer() string {
	if c.Kind == Agent {
		return c.Server
	}
	return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(c.APIPort))
}

// ServiceIP is the n-th address of the service network: 1 is the API's, 10 the
// cluster DNS's, as everywhere in the field.
func (c Config) ServiceIP(n int) netip.Addr {
	a := c.ServiceCIDR.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// CRISocket is where the container runtime listens.
func (c Config) CRISocket() string {
	if c.RuntimeEndpoint != "" {
		return strings.TrimPrefix(c.RuntimeEndpoint, "unix://")
	}
	return c.Socket("runtime")
}

// Save writes D/config.json and D/version.
func (c Config) Save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	if err := writeFile(c.Path("config.json"), append(text, '\n')); err != nil {
		return fmt.Errorf("save configuration: %w", err)
	}
	if err := writeFile(c.Path("version"), []byte(strconv.Itoa(Format)+"\n")); err != nil {
		return fmt.Errorf("save data version: %w", err)
	}
	return nil
}

func writeFile(path string, text []byte) error {
	part := path + ".part"
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// Load reads what Save wrote.
func Load(dataDir string) (Config, error) {
	var c Config
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := CheckVersion(dataDir); err != nil {
		return c, err
	}
	text, err := os.ReadFile(filepath.Join(dataDir, "config.json"))
	if errors.Is(err, os.ErrNotExist) {
		return c, fmt.Errorf("no cluster in %s: start one with `perch up --data-dir %s`", dataDir, dataDir)
	} else if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, damaged(dataDir, err)
	}
	c.DataDir = dataDir
	whole := c
	whole.DataDir = "/" // how long the path of this directory is is no matter of the file
	if err := whole.Validate(); err != nil {
		return c, damaged(dataDir, err)
	}
	return c, nil
}

// damaged is one sentence about a file that Save did not write.
func damaged(dataDir string, err error) error {
	return fmt.Errorf("%s is damaged (%s): put back a copy, or remove it and start with the flags of the first time, which keeps all data",
		filepath.Join(dataDir, "config.json"), strings.ReplaceAll(err.Error(), "\n", "; "))
}

// CheckVersion refuses a data directory that a newer perch wrote.
func CheckVersion(dataDir string) error {
	path := filepath.Join(dataDir, "version")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("read data version: %w: run this with sudo", err)
	} else if err != nil {
		return fmt.Errorf("read data version: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s is not a number: is %s a data directory of perch?", path, dataDir)
	}
	if n > Format {
		return fmt.Errorf("%s was written by a newer perch (format %d, this one knows %d): use that version or another --data-dir", dataDir, n, Format)
	}
	return nil
}
