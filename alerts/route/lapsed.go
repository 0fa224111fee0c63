package route

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/silence/silencepb"
)

// Silence is one as it was written.
type Silence struct {
	ID, By, Comment string
	Starts, Ends    time.Time
	Matchers        []Matcher
}

// Matcher is what a silence demands of one label.
type Matcher struct {
	Name, Value string
	Regex, Not  bool // name=~"value" with Regex, name!="value" with Not
}

// Lapsed lists the silences that ended by themselves because their time was over,
// as long as they are known (Config.Retention). Those that somebody ended or put
// another in the place of are not among them: the library marks them by an end at
// the moment of their last change.
func (r *Router) Lapsed(ctx context.Context) ([]Silence, error) {
	ended, _, err := r.silences.Query(ctx, silence.QState(silence.SilenceStateExpired))
	if err != nil {
		return nil, fmt.Errorf("ask for ended silences: %w", err)
	}
	var out []Silence
	for _, s := range ended {
		if !s.EndsAt.AsTime().After(s.UpdatedAt.AsTime()) {
			continue
		}
		x := Silence{ID: s.Id, By: s.CreatedBy, Comment: s.Comment, Starts: s.StartsAt.AsTime(), Ends: s.EndsAt.AsTime()}
		for _, set := range s.MatcherSets {
			for _, m := range set.Matchers {
				x.Matchers = append(x.Matchers, Matcher{m.Name, m.Pattern,
					m.Type == silencepb.Matcher_REGEXP || m.Type == silencepb.Matcher_NOT_REGEXP, m.Type == silencepb.Matcher_NOT_EQUAL || m.Type == silencepb.Matcher_NOT_REGEXP})
			}
		}
		out = append(out, x)
	}
	return out, nil
}
