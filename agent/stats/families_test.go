package stats

import (
	"testing"
	"time"
)

func TestFamiliesAreThoseOfTheText(t *testing.T) {
	told := map[string]string{}
	Families(func(name, help string, _ Kind) { told[name] = help })
	s := newStats(t, mount(t), withProcesses(t))
	s.Round(time.Unix(1484, 0))
	s.look(time.Unix(1484, 0))
	s.Round(time.Unix(1500, 0))
	n := 0
	for _, f := range s.gatherCadvisor() {
		n++
		if help, ok := told[f.GetName()]; !ok || help == "" {
			t.Errorf("family %s: %q", f.GetName(), help)
		}
	}
	if n < 20 {
		t.Errorf("the text has %d families", n)
	}
}
