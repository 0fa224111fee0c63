package rule

import (
	"fmt"

	"github.com/prometheus/prometheus/model/rulefmt"
)

// Bounds of one source of a namespace: its rules are evaluated in the process of all.
const (
	maxGroups = 100
	maxRules  = 2000
)

// tooMany says why a namespace's source is left out whole.
func tooMany(groups *rulefmt.RuleGroups) error {
	if n := len(groups.Groups); n > maxGroups {
		return fmt.Errorf("it has %d groups, one object of a namespace may have %d: write several", n, maxGroups)
	}
	n := 0
	for _, g := range groups.Groups {
		n += len(g.Rules)
	}
	if n > maxRules {
		return fmt.Errorf("it has %d rules, one object of a namespace may have %d: write several", n, maxRules)
	}
	return nil
}
