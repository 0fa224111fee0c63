package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/preflight"
	"perch/cmd/perch/daemon/supervisor"
)

// ExitCode is 2 for what trying again cannot better (flags, ports, privileges,
// data), else 1.
func ExitCode(err error) int {
	var r refused
	switch {
	case err == nil:
		return 0
	case errors.As(err, &r):
		return 2
	default:
		return 1
	}
}

// Commands are the words that start, stop and describe this machine's part of
// a cluster.
func Commands(out, errOut io.Writer) []*cobra.Command {
	return []*cobra.Command{
		upCommand("up", "Start a cluster on this machine", config.Server, out, errOut),
		upCommand("server", "Run a server in the foreground (for service managers)", config.Server, out, errOut),
		upCommand("agent", "Join this machine to a cluster as a worker", config.Agent, out, errOut),
		downCommand(errOut), statusCommand(out), tokenCommand(out), nodeCommand(out, errOut), imagesCommand(out), roleCommand(),
	}
}

// machineFlags are those of up, server and agent.
func machineFlags(fs *pflag.FlagSet, cfg *config.Config) {
	fs.StringVar(&cfg.DataDir, "data-dir", cfg.DataDir, "where all state lives")
	fs.StringVar(&cfg.Name, "name", cfg.Name, "name of the cluster on this machine; a second cluster needs another")
	fs.StringVar(&cfg.NodeName, "node-name", cfg.NodeName, "name of this node")
	fs.TextVar(&cfg.AdvertiseAddress, "advertise-address", cfg.AdvertiseAddress, "this machine's address towards other nodes (default: that of the default route)")
	fs.IntVar(&cfg.AgentPort, "agent-port", cfg.AgentPort, "port of the node's kubelet API")
	fs.IntVar(&cfg.ForwardPort, "forward-port", cfg.ForwardPort, "port that takes logs by Fluent Forward")
	fs.IntVar(&cfg.RingPort, "ring-port", cfg.RingPort, "port on which nodes agree where copies of lines are kept, open when there are several (default: --agent-port + 1)")
	fs.StringVar(&cfg.ScrapeConfig, "scrape-config", cfg.ScrapeConfig, "file with scrape_configs of a prometheus.yml for this machine to scrape, watched; targets by static, file, dns and http discovery")
	logFlags(fs, cfg)
	metricFlags(fs, cfg)
	fs.StringVar(&cfg.RuntimeEndpoint, "runtime-endpoint", cfg.RuntimeEndpoint, "socket of an external CRI runtime (default: the embedded one)")
	if cfg.Kind == config.Agent {
		fs.StringVar(&cfg.Server, "server", cfg.Server, "URL of the cluster's API, for example https://10.0.0.11:6443")
		fs.BoolVar(&cfg.SeriesStore, "series-store", cfg.SeriesStore, "keep second copies of the server's series here, together with the other workers that are started with this")
		return
	}
	fs.IntVar(&cfg.APIPort, "api-port", cfg.APIPort, "port of the Kubernetes API")
	fs.IntVar(&cfg.WebPort, "web-port", cfg.WebPort, "port of the page and of the query APIs")
	fs.IntVar(&cfg.PeerPort, "peer-port", cfg.PeerPort, "port of etcd between servers")
	fs.Var(prefixFlag{&cfg.ClusterCIDR}, "cluster-cidr", "network of the pods")
	fs.Var(prefixFlag{&cfg.ServiceCIDR}, "service-cidr", "network of the Services")
	fs.StringVar(&cfg.ClusterDomain, "cluster-domain", cfg.ClusterDomain, "DNS domain of the cluster")
	fs.StringSliceVar(&cfg.TLSNames, "tls-san", cfg.TLSNames, "further names and addresses for the serving certificates")
	fs.StringVar(&cfg.RulesDir, "rules-dir", cfg.RulesDir, "directory with rule files in Prometheus' format, watched")
	fs.StringVar(&cfg.JoinTokenFile, "join-token-file", cfg.JoinTokenFile, "file in which a fresh join token is kept; whoever reads it may add one node at a time")
	fs.StringVar(&cfg.AlertConfig, "alert-config", cfg.AlertConfig, "file in Alertmanager's format, watched (default: Secret kube-system/perch-alertmanager)")
	fs.StringVar(&cfg.RemoteWrite, "remote-write", cfg.RemoteWrite, "file with the sections global and remote_write of a prometheus.yml, watched (default: Secret kube-system/perch-remote-write)")
	fs.BoolVar(&cfg.ExperimentalPromQL, "promql-experimental", cfg.ExperimentalPromQL, "PromQL with what Prometheus has behind feature flags: experimental functions and modifiers")
	fs.BoolVar(&cfg.AllServerSeries, "all-server-series", cfg.AllServerSeries, "store every series of the API server and etcd, about 10,000 more than rules and dashboards use")
}

type prefixFlag struct{ p *netip.Prefix }

func (f prefixFlag) String() string { return f.p.String() }
func (f prefixFlag) Type() string   { return "network" }
func (f prefixFlag) Set(text string) error {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("write for example 10.42.0.0/16: %w", err)
	}
	*f.p = p
	return nil
}

func upCommand(name, short string, kind config.Kind, out, errOut io.Writer) *cobra.Command {
	cfg := config.Default()
	cfg.Kind = kind
	var inBackground bool
	var token, tokenFile string
	c := &cobra.Command{Use: name, Short: short, Args: noArguments}
	machineFlags(c.Flags(), &cfg)
	c.Flags().BoolVar(&inBackground, "detach", false, "return when the node is ready and leave the cluster running")
	if kind == config.Agent {
		c.Flags().StringVar(&token, "token", "", "join token from `perch node token` (needed once)")
		c.Flags().StringVar(&tokenFile, "token-file", "", "file with a join token instead, waited for (see perch server --join-token-file)")
		c.MarkFlagsMutuallyExclusive("token", "token-file")
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := preflight.Root(); err != nil {
			return refused{err}
		}
		cfg, err := remembered(cfg, c.Flags())
		if err != nil {
			return refused{err}
		}
		if err := givenFiles(&cfg, c.Flags()); err != nil {
			return refused{err}
		}
		if !cfg.AdvertiseAddress.IsValid() {
			a, err := preflight.Address()
			if err != nil {
				return refused{err}
			}
			cfg.AdvertiseAddress = a
		}
		if err := cfg.Validate(); err != nil {
			return refused{err}
		}
		if kind == config.Server && !preflight.HasAddress(cfg.AdvertiseAddress) {
			return refused{fmt.Errorf("--advertise-address %s: no interface of this machine has it; leave the flag, or give one of its own addresses", cfg.AdvertiseAddress)}
		}
		ctx, stop := untilSignal()
		defer stop()
		if kind == config.Agent {
			next := givenToken(token)
			if tokenFile != "" {
				next = fileToken(tokenFile, errOut)
			}
			if cfg, err = join(ctx, cfg, next); err != nil {
				return err
			}
		}
		if !inBackground {
			if err := os.Chdir("/"); err != nil { // this process keeps no directory busy
				return fmt.Errorf("leave directory: %w", err)
			}
			return up(ctx, cfg, slog.New(slog.NewTextHandler(errOut, nil)))
		}
		began := time.Now()
		fmt.Fprintf(errOut, "starting %s on %s\n", kind, cfg.DataDir)
		if err := detach(ctx, cfg, withoutDetach(os.Args[1:]), errOut); err != nil {
			return err
		}
		fmt.Fprintf(errOut, "node %s is ready after %.1f s\n", cfg.NodeName, time.Since(began).Seconds())
		if kind == config.Server {
			return welcome(ctx, cfg, out)
		}
		return nil
	}
	return c
}

// remembered is the configuration of a data directory that was used before,
// with those flags changed that are given now.
func remembered(given config.Config, flags *pflag.FlagSet) (config.Config, error) {
	if _, err := os.Stat(given.Path("config.json")); err != nil {
		return given, nil
	}
	have, err := config.Load(given.DataDir)
	if err != nil {
		return given, err
	}
	if have.Kind != given.Kind {
		return given, fmt.Errorf("%s belongs to a machine that runs as %s: start it as that, or give another --data-dir", have.DataDir, have.Kind)
	}
	if !preflight.HasAddress(have.AdvertiseAddress) {
		have.AdvertiseAddress = netip.Addr{} // it moved; looked for anew
	}
	again := pflag.NewFlagSet("", pflag.ContinueOnError)
	machineFlags(again, &have)
	var errs error
	flags.Visit(func(f *pflag.Flag) {
		if again.Lookup(f.Name) == nil || f.Name == "data-dir" {
			return
		}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			errs = errors.Join(errs, again.Lookup(f.Name).Value.(pflag.SliceValue).Replace(many.GetSlice()))
			return
		}
		errs = errors.Join(errs, again.Set(f.Name, f.Value.String()))
	})
	return have, errs
}

func withoutDetach(args []string) []string {
	var out []string
	for _, a := range args {
		if a != "--detach" && !strings.HasPrefix(a, "--detach=") {
			out = append(out, a)
		}
	}
	return out
}

// welcome prints what a user needs next.
func welcome(ctx context.Context, cfg config.Config, out io.Writer) error {
	link, err := loginLink(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "page        %s\nkubeconfig  %s\n", link, cfg.Path("kubeconfig"))
	return nil
}

func dataDirFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "data-dir", config.Default().DataDir, "where all state lives")
}

func downCommand(errOut io.Writer) *cobra.Command {
	var dir string
	var purge bool
	c := &cobra.Command{Use: "down", Short: "Stop this machine's part of the cluster and all its pods", Args: noArguments}
	dataDirFlag(c, &dir)
	c.Flags().BoolVar(&purge, "purge", false, "remove the data directory too: all objects, metrics, logs and images")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(dir)
		if err != nil {
			return refused{err}
		}
		if os.Geteuid() != 0 {
			return refused{errors.New("perch down needs root: run it with sudo")}
		}
		if err := down(c.Context(), cfg, purge, errOut); err != nil {
			return err
		}
		fmt.Fprintln(errOut, "down")
		return nil
	}
	return c
}

func statusCommand(out io.Writer) *cobra.Command {
	var dir, format string
	c := &cobra.Command{Use: "status", Short: "Show the processes of this machine: state, age, memory, last error", Args: noArguments}
	dataDirFlag(c, &dir)
	c.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(dir)
		if err != nil {
			return err
		}
		roles, err := roleStatus(c.Context(), cfg, "/status/memory")
		if err != nil {
			return err
		}
		switch format {
		case "json":
			enc := json.NewEncoder(out)
			enc.SetIndent("", "  ")
			return enc.Encode(roles)
		case "table":
		default:
			return refused{fmt.Errorf("-o %s: use table or json", format)}
		}
		tw := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(tw, "ROLE\tSTATE\tPID\tAGE\tMEMORY\tRESTARTS\tLAST ERROR")
		for _, r := range roles {
			age := "-"
			if r.PID != 0 {
				age = time.Since(r.Started).Truncate(time.Second).String()
			}
			fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%dMi\t%d\t%s\n", r.Role, stateOf(r, time.Now()), r.PID, age, r.MemoryBytes>>20, r.Restarts, r.LastError)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		if err := showUse(c.Context(), cfg, out); err != nil {
			return err
		}
		if err := showCopy(c.Context(), cfg, out); err != nil {
			return err
		}
		return showStores(c.Context(), cfg, out)
	}
	return c
}

// stateOf is a role's state for people; what does not last is told with its
// beginning.
func stateOf(r supervisor.Status, now time.Time) string {
	if r.State == supervisor.Ready || r.Since.IsZero() {
		return string(r.State)
	}
	return fmt.Sprintf("%s since %s (%s)", r.State, r.Since.Local().Format(time.TimeOnly), now.Sub(r.Since).Truncate(time.Second))
}

func roleCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{Use: "role NAME", Short: "Run one role (the supervisor does this)", Hidden: true, Args: cobra.ExactArgs(1)}
	dataDirFlag(c, &dir)
	c.RunE = func(_ *cobra.Command, args []string) error { return runRole(dir, args[0]) }
	return c
}

// family is a word that only other words make a command.
func family(name, short string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return refused{fmt.Errorf("unknown command %q: see `perch %s --help`", args[0], name)}
		}
		return c.Help()
	}}
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return refused{fmt.Errorf("%q is too much: this command takes only flags", args[0])}
	}
	return nil
}
