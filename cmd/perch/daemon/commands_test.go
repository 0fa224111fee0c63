package daemon

import (
	"slices"
	"testing"
)

func TestNoSpellingOfDetachReachesTheChild(t *testing.T) {
	for _, flag := range []string{"--detach", "--detach=true", "--detach=1", "--detach=T"} {
		if got := withoutDetach([]string{"up", flag, "--name", "a"}); !slices.Equal(got, []string{"up", "--name", "a"}) {
			t.Errorf("%s: the child would detach again: %q", flag, got)
		}
	}
}
