package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestFlagsBeforeOrAfterTheVerbChooseTheSameCommand(t *testing.T) {
	root := &cobra.Command{Use: "perch"}
	for _, name := range []string{"logs", "top", "up"} {
		root.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	for _, test := range []struct {
		args []string
		ours bool
	}{
		{nil, true},
		{[]string{"--help"}, true},
		{[]string{"logs", "web", "-n", "shop"}, true},
		{[]string{"-n", "shop", "logs", "web"}, true},
		{[]string{"-n", "logs", "get", "pods"}, false},
		{[]string{"top"}, true},
		{[]string{"top", "-n", "shop"}, true},
		{[]string{"-n", "shop", "top", "--sort-by", "memory"}, true},
		{[]string{"top", "pods"}, false},
		{[]string{"-n", "shop", "top", "pods"}, false},
		{[]string{"top", "-n", "shop", "pods"}, false},
		{[]string{"get", "pods"}, false},
		{[]string{"-v", "6", "get", "pods"}, false},
		{[]string{"-v", "6", "top"}, true},
	} {
		if got := ours(root, verbFirst(slices.Clone(test.args))); got != test.ours {
			t.Errorf("%q is perch's own: %v, want %v", test.args, got, test.ours)
		}
	}
}

func TestAWordOrAFlagThatIsUnknownEndsWithCodeTwo(t *testing.T) {
	for _, line := range []string{"fly", "--fly", "get --fly", "logs --fly", "status --fly", "status fly", "up fly", "node fly", "node token fly", "images fly", "images ls fly", "ui fly"} {
		if code := run(append([]string{"perch"}, strings.Fields(line)...)); code != 2 {
			t.Errorf("perch %s: exit code %d", line, code)
		}
	}
}
