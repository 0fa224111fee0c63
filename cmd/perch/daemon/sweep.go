package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"perch/agent/image/load"
	"perch/agent/network"
	"perch/agent/proxy"
	"perch/agent/runtime"
	"perch/agent/runtime/containerd"
	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/supervisor"
)

// sweep removes what a cluster's pods and network left on the machine. It works
// whether the roles ran or not, and may be repeated.
func sweep(ctx context.Context, cfg config.Config) error {
	log := slog.New(slog.DiscardHandler) // what matters comes back as an error
	_, err := runtime.Cleanup(ctx, runtime.CleanupConfig{
		Dir: cfg.DataDir, Endpoint: cfg.CRISocket(), StateDirs: containerd.StateDirs(cfg.DataDir), SocketDir: containerd.SocketDir(cfg.DataDir),
		CgroupRoot: cfg.CgroupRoot(), External: cfg.RuntimeEndpoint != "",
	}, log)
	errs := []error{err, network.Cleanup(cfg.Name, cfg.Path("cni")), proxy.Cleanup(cfg.Name)}
	sockets, err := filepath.Glob(cfg.Path("run", "*.sock*"))
	errs = append(errs, err)
	for _, s := range sockets {
		errs = append(errs, os.RemoveAll(s))
	}
	if errors.Join(errs...) == nil { // nothing is left that would be this cluster's
		errs = append(errs, os.RemoveAll(networks(cfg).Mark))
	}
	return errors.Join(errs...)
}

// readiness tells how far the start is, and whether the node is ready.
func readiness(ctx context.Context, cfg config.Config) (stage string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	roles, err := roleStatus(ctx, cfg, "/status")
	if err != nil {
		return "starting the supervisor", false
	}
	stage, since := waitsFor(roles)
	if stage != "" {
		return stage, false
	}
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Path("pki", "node.kubeconfig"))
	if err != nil {
		return "waiting for the node's identity", false
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return "waiting for the node's identity", false
	}
	node, err := client.CoreV1().Nodes().Get(ctx, cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return "waiting for the node to register", false
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if c.LastHeartbeatTime.Time.Before(since) {
				return "waiting for the node's heartbeat", false
			}
			if c.Status != corev1.ConditionTrue {
				return "waiting for the node: " + c.Message, false
			}
			// The node's word is a few seconds old; a role may have ended since.
			if roles, err = roleStatus(ctx, cfg, "/status"); err != nil {
				return "starting the supervisor", false
			}
			if stage, again := waitsFor(roles); stage != "" || again != since {
				return cmp.Or(stage, "waiting for the node's heartbeat"), false
			}
			return "node ready", true
		}
	}
	return "waiting for the node", false
}

// waitsFor tells which role is not ready, or since when those run that decide
// about the node, in whole seconds as its heartbeats are: one before that says
// nothing about them.
func waitsFor(roles []supervisor.Status) (stage string, since time.Time) {
	for _, r := range roles {
		if r.State != supervisor.Ready {
			stage = string(r.State) + " " + r.Role
			if r.State == supervisor.Silent || r.State == supervisor.Stopped {
				stage = r.Role + " is " + string(r.State)
			}
			if r.LastError != "" {
				stage += " (" + r.LastError + ")"
			}
			return stage, time.Time{}
		}
		if t := r.Started.Truncate(time.Second); (r.Role == "agent" || r.Role == "runtime") && t.After(since) {
			since = t
		}
	}
	return "", since
}

func imagesCommand(out io.Writer) *cobra.Command {
	root := family("images", "List, load and remove this machine's container images")
	var dir string
	open := func(c *cobra.Command) (*load.Loader, error) {
		cfg, err := config.Load(dir)
		if err != nil {
			return nil, err
		}
		return load.Open(c.Context(), cfg.CRISocket())
	}
	add := &cobra.Command{Use: "load FILE.tar…", Short: "Import OCI or Docker archives", Args: atLeastOne("archive"), RunE: func(c *cobra.Command, args []string) error {
		l, err := open(c)
		if err != nil {
			return err
		}
		defer l.Close()
		for _, name := range args {
			f, err := os.Open(name)
			if err != nil {
				return refused{err}
			}
			got, err := l.Import(c.Context(), f)
			f.Close()
			if err != nil {
				return fmt.Errorf("load %s: %w", name, err)
			}
			for _, i := range got {
				fmt.Fprintf(out, "loaded %s  %d MB\n", i.Name, i.Size>>20)
			}
		}
		return nil
	}}
	list := &cobra.Command{Use: "ls", Short: "List images", Args: noArguments, RunE: func(c *cobra.Command, _ []string) error {
		l, err := open(c)
		if err != nil {
			return err
		}
		defer l.Close()
		all, err := l.List(c.Context())
		if err != nil {
			return err
		}
		tw := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(tw, "IMAGE\tSIZE\tDIGEST")
		for _, i := range all {
			fmt.Fprintf(tw, "%s\t%d MB\t%.19s\n", i.Name, i.Size>>20, i.Digest)
		}
		return tw.Flush()
	}}
	drop := &cobra.Command{Use: "rm IMAGE…", Short: "Remove images", Args: atLeastOne("image"), RunE: func(c *cobra.Command, args []string) error {
		l, err := open(c)
		if err != nil {
			return err
		}
		defer l.Close()
		for _, name := range args {
			if err := l.Remove(c.Context(), name); err != nil {
				return err
			}
		}
		return nil
	}}
	for _, c := range []*cobra.Command{add, list, drop} {
		dataDirFlag(c, &dir)
		root.AddCommand(c)
	}
	return root
}

func atLeastOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return refused{fmt.Errorf("name at least one %s", what)}
		}
		return nil
	}
}
