package rule

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/rules"

	"perch/alerts/wording"
)

// Bounds of one source of a namespace: its rules are evaluated in the process of all.
const (
	maxGroups     = 100
	maxRules      = 2000
	leastInterval = time.Second
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

// tooOften says why a namespace's group is left out.
func tooOften(g rulefmt.RuleGroup) error {
	if every := time.Duration(g.Interval); every == 0 || every >= leastInterval {
		return nil
	}
	return fmt.Errorf("group %q: interval %s: rules of a namespace are evaluated every %s at most", g.Name, g.Interval, leastInterval)
}

// mayRun tells why a rule of a namespace is not run: its texts are made in the process
// of all, and what alerts were is believed after a restart.
func mayRun(g rulefmt.RuleGroup, r rulefmt.Rule) error {
	if r.Record == "ALERTS" || r.Record == "ALERTS_FOR_STATE" {
		return fmt.Errorf("a namespace's rules record no %s: these series say which alerts fire; record under another name, or write an alert", r.Record)
	}
	if r.Alert == "" {
		return nil
	}
	for what, texts := range map[string]map[string]string{"label": rules.FromMaps(g.Labels, r.Labels).Map(), "annotation": r.Annotations} {
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			if err := wording.Rule(texts[name]); err != nil {
				return fmt.Errorf("%s %s: %w", what, name, err)
			}
		}
	}
	return nil
}
