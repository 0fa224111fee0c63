package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestLogsRefusesFlagsBeforeItAsksACluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere") // an error of which says that it was asked
	for line, want := range map[string]string{
		"web --since abc": "--since", "web --since 1h --since-time 2026-11-20T14:00:00Z": "not both", "web --tail -5": "--tail -5",
		"web --grep a(": "--grep", "web -o yaml": "-o yaml", "web --limit-bytes 0": "--limit-bytes", "web -f --until 1m": "--until",
		"web --at 1m --since 2m": "--at", "web --context -1": "--context",
	} {
		c := logsCommand(Streams{In: strings.NewReader(""), Out: new(bytes.Buffer), Err: new(bytes.Buffer)})
		c.SetArgs(strings.Fields(line))
		c.SilenceErrors, c.SilenceUsage = true, true
		err := c.Execute()
		var usage Usage
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("logs %s: %v, want a word about %s", line, err, want)
		}
	}
}
