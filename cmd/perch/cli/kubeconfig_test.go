package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/tools/clientcmd"
)

func TestWithoutAClusterEachCommandSaysSoInOneSentence(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	FindKubeconfig(t.TempDir())
	for _, name := range []string{"logs", "query", "top", "alerts", "targets", "rules", "silence", "ui", "version"} {
		for _, c := range Commands(Streams{In: strings.NewReader(""), Out: new(bytes.Buffer), Err: new(bytes.Buffer)}, RuleTools{}) {
			if c.Name() != name {
				continue
			}
			args := map[string][]string{"logs": {"x"}, "query": {"up"}}[name]
			c.SilenceErrors, c.SilenceUsage = true, true
			c.SetArgs(args)
			if err := c.ExecuteContext(context.Background()); err == nil || !strings.HasPrefix(err.Error(), "no cluster is known: set KUBECONFIG") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	t.Setenv("KUBECONFIG", "/nowhere")
	if err := noCluster(); !strings.Contains(err.Error(), "KUBECONFIG is /nowhere") {
		t.Error(err)
	}
}

func TestErrorsOfTheEmbeddedKubectl(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	for _, c := range []struct {
		name, msg, want string
		code            int
	}{
		{"perch", "error: " + clientcmd.ErrEmptyConfig.Error(), "perch: no cluster is known", 1},
		{"perch", "error: " + genericclioptions.ErrEmptyConfig.Error(), "perch: no cluster is known", 1},
		{"perch", `error: unknown command "fly"` + "\nSee 'perch config -h' for help and examples", "error: unknown command", 2},
		{"kubectl", `error: unknown command "fly"`, "error: unknown command", 1}, // as the real one
		{"perch", "Error from server (NotFound): pods \"x\" not found", "Error from server", 1},
	} {
		if msg, code := fatal(c.name, c.msg, 1); !strings.HasPrefix(msg, c.want) || code != c.code {
			t.Errorf("%s, %q: %q, %d", c.name, c.msg, msg, code)
		}
	}
}
