package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	"k8s.io/kubectl/pkg/cmd/util"
)

// Streams are the three files of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// OS are the process's own streams.
func OS() Streams { return Streams{os.Stdin, os.Stdout, os.Stderr} }

// Usage marks an error of the command line itself: exit code 2.
type Usage struct{ Err error }

func (u Usage) Error() string { return u.Err.Error() }
func (u Usage) Unwrap() error { return u.Err }

// ExitCode is 0, 1 (failed) or 2 (wrong usage).
func ExitCode(err error) int {
	var u Usage
	switch {
	case err == nil:
		return 0
	case errors.As(err, &u):
		return 2
	default:
		return 1
	}
}

// Commands are perch's own words that need a running cluster.
func Commands(s Streams, tools RuleTools) []*cobra.Command {
	all := []*cobra.Command{logsCommand(s), queryCommand(s), topCommand(s), alertsCommand(s), targetsCommand(s), rulesCommand(s, tools), silenceCommand(s), uiCommand(s), versionCommand(s)}
	for _, c := range all {
		run := c.RunE
		c.RunE = func(c *cobra.Command, args []string) error {
			err := run(c, args)
			if knowsNone(err) {
				return noCluster()
			}
			return err
		}
	}
	return all
}

// Kubectl is the embedded kubectl; name is what its help calls it.
func Kubectl(name string, s Streams) *cobra.Command {
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	c := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     os.Args,
		ConfigFlags:   flags,
		IOStreams:     genericiooptions.IOStreams{In: s.In, Out: s.Out, ErrOut: s.Err},
	})
	c.Use = name
	verbosity(c.PersistentFlags())
	util.BehaviorOnFatal(func(msg string, code int) {
		msg, code = fatal(name, msg, code)
		if msg != "" {
			fmt.Fprintln(s.Err, strings.TrimSuffix(msg, "\n"))
		}
		os.Exit(code)
	})
	if name != "kubectl" { // whose own exit codes scripts may know
		said := c.FlagErrorFunc()
		c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return Usage{said(c, err)} })
	}
	return c
}

// colour tells whether w wants colours: a terminal, unless NO_COLOR or
// FORCE_COLOR says otherwise.
func colour(w io.Writer) bool {
	if os.Getenv("NO_COLOR") != "" {
		return false
	}
	if os.Getenv("FORCE_COLOR") != "" {
		return true
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil {
			return n
		}
	}
	return 100
}
