package scrape

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"

	"perch/metrics/target"
)

// Status is one row of the target listing.
type Status struct {
	Node    string            `json:"node"` // that scrapes it
	Pool    string            `json:"pool"`
	From    string            `json:"from,omitempty"` // the object that asks for it: KIND/NAMESPACE/NAME
	URL     string            `json:"url"`
	Labels  map[string]string `json:"labels"`
	Health  string            `json:"health"` // up, down or unknown
	Last    time.Time         `json:"last"`
	Took    float64           `json:"took"`              // seconds
	Refused int               `json:"refused,omitempty"` // series of the newest answer for which the store has no room
	CutOff  string            `json:"cutOff,omitempty"`  // why the newest answer is not or not wholly stored, one of a few words
	Foreign int               `json:"foreign,omitempty"` // samples of the newest answer that said they are of a namespace that is not the target's
	Error   string            `json:"error,omitempty"`
}

// Summary is what became of one object that asks for scrapes.
type Summary struct {
	From    string   `json:"from"`
	Targets int      `json:"targets"`
	Up      int      `json:"up"`
	Why     []string `json:"why"` // what is left out or does nothing, and the errors of targets that are down
}

// Listing is everything that is scraped, and what is not and why.
type Listing struct {
	Targets []Status         `json:"targets"`
	LeftOut []target.Dropped `json:"leftOut"`
	Objects []Summary        `json:"objects"`
}

// whyLimit bounds the reasons of one object in a listing.
const whyLimit = 20

// Here lists the targets of this node.
func (l *Loop) Here() []Status {
	rows := []Status{}
	live := map[*scrape.Target]bool{}
	for pool, list := range l.active() {
		for _, t := range list {
			live[t] = true
			s := Status{Node: l.cfg.Node, Pool: pool, URL: l.shown(t), Labels: t.Labels(labels.NewBuilder(labels.EmptyLabels())).Map(),
				Health: string(t.Health()), Last: t.LastScrape(), Took: t.LastScrapeDuration().Seconds(), From: t.GetValue(fromLabel)}
			last := l.gate.of(t)
			s.Refused, s.Foreign = last.refused, last.foreign
			err := t.LastError()
			if err != nil {
				s.Error = cmp.Or(target.NoToken(err), err.Error())
			}
			if s.CutOff = cutOff(err, s.Refused); s.CutOff == cutSeries {
				s.Error = fmt.Sprintf("%d series refused: its namespace or this node has as many as it may", s.Refused)
			}
			if s.Foreign > 0 && s.Error == "" {
				s.Error = fmt.Sprintf("%d samples say that they are of namespace %q, which is not the target's: they are stored as %q, with the label exported_namespace; objects in kube-system and in namespaces with the label perch.io/rules=cluster may say so",
					s.Foreign, last.said, homeOf(t, nil))
			}
			rows = append(rows, s)
		}
	}
	l.gate.forget(live)
	slices.SortFunc(rows, byURL)
	return rows
}

// shown is a target's URL for people.
func (l *Loop) shown(t *scrape.Target) string {
	return strings.Replace(t.URL().String(), "."+l.word, ".socket", 1)
}

// active are the library's targets. One that has only changed its interval is a
// new one to the library: until its next scrape it says what it said last.
func (l *Loop) active() map[string][]*scrape.Target {
	out := l.manager.TargetsActive()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := make(map[string]*scrape.Target, len(l.newest))
	for _, list := range out {
		for _, t := range list {
			key := t.GetValue(keyLabel)
			if key == "" {
				continue
			}
			if was := l.newest[key]; was != nil && was != t && t.LastScrape().IsZero() && !was.LastScrape().IsZero() {
				t.Report(was.LastScrape(), was.LastScrapeDuration(), was.LastError())
				l.gate.move(was, t)
			}
			now[key] = t
		}
	}
	l.newest = now
	return out
}

func byURL(a, b Status) int {
	return cmp.Or(cmp.Compare(a.URL, b.URL), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Node, b.Node))
}

// List is the listing of this node and, on a server, of all others.
func (l *Loop) List() Listing {
	out := Listing{Targets: l.Here(), LeftOut: l.Dropped()}
	if l.parts.Others != nil {
		rows, left := l.parts.Others()
		out.Targets, out.LeftOut = append(out.Targets, rows...), append(out.LeftOut, left...)
		slices.SortFunc(out.Targets, byURL)
	}
	if out.LeftOut == nil {
		out.LeftOut = []target.Dropped{}
	}
	out.Objects = summaries(out.Targets, out.LeftOut)
	return out
}

// summaries say for each object how it stands.
func summaries(rows []Status, left []target.Dropped) []Summary {
	by := map[string]*Summary{}
	of := func(from string) *Summary {
		if by[from] == nil {
			by[from] = &Summary{From: from, Why: []string{}}
		}
		return by[from]
	}
	say := func(s *Summary, why string) {
		if len(s.Why) < whyLimit && !slices.Contains(s.Why, why) {
			s.Why = append(s.Why, why)
		}
	}
	for _, r := range rows {
		if r.From == "" {
			continue
		}
		s := of(r.From)
		s.Targets++
		if r.Health == string(scrape.HealthGood) {
			s.Up++
		}
		if r.Error != "" {
			say(s, r.URL+": "+r.Error)
		}
	}
	for _, d := range left {
		say(of(d.From), d.Reason)
	}
	out := make([]Summary, 0, len(by))
	for _, from := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[from])
	}
	return out
}

// Of is the part of a listing that is about namespaces: targets whose series are of
// one, and what became of the objects in one.
func (l Listing) Of(namespaces []string) Listing {
	of := func(from string) bool {
		parts := strings.SplitN(from, "/", 3)
		return len(parts) == 3 && slices.Contains(namespaces, parts[1])
	}
	out := Listing{Targets: []Status{}, LeftOut: []target.Dropped{}, Objects: []Summary{}}
	for _, t := range l.Targets {
		if slices.Contains(namespaces, t.Labels["namespace"]) {
			out.Targets = append(out.Targets, t)
		}
	}
	for _, d := range l.LeftOut {
		if of(d.From) {
			out.LeftOut = append(out.LeftOut, d)
		}
	}
	for _, s := range summaries(out.Targets, out.LeftOut) {
		if of(s.From) {
			out.Objects = append(out.Objects, s)
		}
	}
	return out
}

// Dropped are the objects that ask to be scraped and are not, with reasons.
func (l *Loop) Dropped() []target.Dropped {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.dropped)
}

// TargetsActive, TargetsDropped, TargetsDroppedCounts, ScrapePoolConfig and
// ScrapePools are what Prometheus' API asks; on a server the targets of other
// nodes are among them.
func (l *Loop) TargetsActive() map[string][]*scrape.Target {
	out := l.active()
	for pool, list := range out {
		for i, t := range list {
			if why := target.NoToken(t.LastError()); why != "" {
				s := Status{Pool: pool, URL: l.shown(t), Labels: t.Labels(labels.NewBuilder(labels.EmptyLabels())).Map(), Health: string(scrape.HealthBad),
					Last: t.LastScrape(), Took: t.LastScrapeDuration().Seconds(), Error: why}
				list[i] = s.target()
			}
		}
	}
	if l.parts.Others != nil {
		rows, _ := l.parts.Others()
		for _, s := range rows {
			out[s.Pool] = append(out[s.Pool], s.target())
		}
	}
	return out
}

// target shows a row of another node as Prometheus' API wants it.
func (s Status) target() *scrape.Target {
	b := labels.NewBuilder(labels.FromMap(s.Labels))
	if u, err := url.Parse(s.URL); err == nil {
		b.Set(model.SchemeLabel, u.Scheme).Set(model.AddressLabel, u.Host).Set(model.MetricsPathLabel, u.Path)
		for k, v := range u.Query() {
			b.Set(model.ParamLabelPrefix+k, v[0])
		}
	}
	all := b.Labels()
	discovered := model.LabelSet{}
	all.Range(func(x labels.Label) { discovered[model.LabelName(x.Name)] = model.LabelValue(x.Value) })
	t := scrape.NewTarget(all, &config.ScrapeConfig{JobName: s.Pool}, discovered, nil)
	if !s.Last.IsZero() {
		var err error
		if s.Health != string(scrape.HealthGood) {
			err = errors.New(cmp.Or(s.Error, "down"))
		}
		t.Report(s.Last, time.Duration(s.Took*float64(time.Second)), err)
	}
	return t
}

// TargetsDropped are targets dropped by relabelling.
func (l *Loop) TargetsDropped() map[string][]*scrape.Target { return l.manager.TargetsDropped() }

// TargetsDroppedCounts counts them.
func (l *Loop) TargetsDroppedCounts() map[string]int { return l.manager.TargetsDroppedCounts() }

// ScrapePoolConfig is the configuration of one pool.
func (l *Loop) ScrapePoolConfig(name string) (*config.ScrapeConfig, error) {
	c, err := l.manager.ScrapePoolConfig(name)
	if err != nil && l.parts.Others != nil {
		rows, _ := l.parts.Others()
		for _, s := range rows {
			if s.Pool == name {
				return &config.ScrapeConfig{JobName: name, ScrapeInterval: model.Duration(l.cfg.Interval), ScrapeTimeout: model.Duration(l.cfg.Timeout)}, nil
			}
		}
	}
	return c, err
}

// ScrapePools lists the pools.
func (l *Loop) ScrapePools() []string {
	return slices.Sorted(maps.Keys(l.TargetsActive()))
}
