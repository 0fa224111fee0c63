// Command perch is a cluster runtime that can see itself: one program that
// turns Linux machines into a Kubernetes-API cluster with metrics, logs and
// alerts built in.
//
// Start reading at run; the roles are in package daemon, the words that talk to
// a running cluster in package cli.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"perch/cmd/perch/cli"
	"perch/cmd/perch/daemon"
	"perch/cmd/perch/daemon/config"
)

func main() {
	if os.Getpid() == 1 {
		os.Exit(daemon.Init(os.Stderr))
	}
	os.Exit(run(os.Args))
}

func run(args []string) int {
	cli.FindKubeconfig(config.Default().DataDir)
	streams := cli.OS()
	if strings.TrimPrefix(filepath.Base(args[0]), "perch-") == "kubectl" {
		k := cli.Kubectl("kubectl", streams)
		k.SetArgs(args[1:])
		return finish(k.Execute())
	}
	root := &cobra.Command{
		Use:           "perch",
		Short:         "A Kubernetes-API cluster that can see itself",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return cli.Usage{Err: fmt.Errorf("%w: see `perch %s --help`", err, c.Name())}
	})
	root.AddGroup(&cobra.Group{ID: "machine", Title: "This machine:"}, &cobra.Group{ID: "see", Title: "See what happens:"})
	for _, c := range daemon.Commands(os.Stdout, os.Stderr) {
		c.GroupID = "machine"
		root.AddCommand(c)
	}
	for _, c := range cli.Commands(streams, ruleTools()) {
		c.GroupID = "see"
		root.AddCommand(c)
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpTemplate(help)
	if words := verbFirst(args[1:]); ours(root, words) {
		root.SetArgs(words)
		return finish(root.ExecuteContext(context.Background()))
	}
	k := cli.Kubectl("perch", streams)
	k.SetArgs(args[1:])
	k.SilenceErrors = true
	err := k.ExecuteContext(context.Background())
	if err != nil && strings.HasPrefix(err.Error(), "unknown command ") {
		err = cli.Usage{Err: err}
	}
	return finish(err)
}

const help = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}{{if not .HasParent}}
All of kubectl, under the same words:
  get, describe, apply, create, edit, delete, exec, port-forward, scale, rollout, run, explain, …
  (perch get --help is kubectl's help; called as kubectl, this program is kubectl)
{{end}}`

// ours tells whether the command belongs to perch rather than to kubectl.
func ours(root *cobra.Command, args []string) bool {
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" || args[0] == "help" && len(args) == 1 {
		return true
	}
	if args[0] == "top" && len(plain(args)) > 1 {
		return false // kubectl's top nodes, top pods
	}
	for _, c := range root.Commands() {
		if c.Name() == args[0] {
			return true
		}
	}
	return false
}

// takesValue says that a flag written without "=" has its value in the next
// argument.
func takesValue(flag string) bool {
	switch flag {
	case "-n", "--namespace", "--kubeconfig", "--context", "--cluster", "--user", "-s", "--server", "--token", "--as", "--as-group", "--data-dir",
		"-l", "--selector", "--sort-by", "-v", "--v", "--vmodule":
		return true
	}
	return false
}

// plain are the arguments that are no flags.
func plain(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if takesValue(args[i]) {
			i++
		} else if !strings.HasPrefix(args[i], "-") {
			out = append(out, args[i])
		}
	}
	return out
}

// verbFirst moves flags that stand before the verb behind it, as kubectl users
// write them: perch -n shop logs … is perch logs -n shop ….
func verbFirst(args []string) []string {
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			return slices.Concat(args[i:i+1], args[:i], args[i+1:])
		}
		if takesValue(args[i]) {
			i++
		}
	}
	return args
}

func finish(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "perch:", err)
	var usage cli.Usage
	if errors.As(err, &usage) {
		return cli.ExitCode(err)
	}
	return daemon.ExitCode(err)
}
