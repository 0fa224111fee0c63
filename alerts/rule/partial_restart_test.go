package rule

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
)

// pods answers rules about a series down with a label for each pod.
type pods struct {
	mu      sync.Mutex
	names   []string
	partial error
}

func (p *pods) say(partial error, names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names, p.partial = names, partial
}

func (p *pods) query(_ context.Context, expr string, at time.Time) (out promql.Vector, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if expr != "down" {
		return nil, nil
	}
	for _, name := range p.names {
		out = append(out, promql.Sample{Metric: labels.FromStrings("__name__", "down", "pod", name), T: at.UnixMilli(), F: 1})
	}
	return out, p.partial
}

// run starts rules.
func run(t *testing.T, rs *Rules) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rs.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func until(t *testing.T, about string, good func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !good(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s, after a minute", about)
		}
	}
}

func TestAPartialAnswerAfterARestartResolvesNothing(t *testing.T) {
	const text = `groups: [{name: g, rules: [
		{alert: Down, expr: down, labels: {severity: page, team: '{{ $labels.pod }}'}},
		{alert: Down, expr: down, labels: {severity: ticket}},
		{alert: Slow, expr: down, for: 1s, annotations: {summary: '{{ $value }} of {{ $labels.pod }}'}}]}]`
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	d, answer := data(t), &pods{}
	stored := d.Query
	d.Query = answer.query
	var rs *Rules
	start := func() (stop func()) {
		rs = New(Config{Interval: 20 * time.Millisecond, ExternalURL: page}, d, func() []Source { return []Source{{Name: "f", Text: text}} },
			func(context.Context, ...Alert) error { return nil }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		return run(t, rs)
	}
	fires := func() string {
		var out []string
		for _, a := range rs.Manager().AlertingRules() {
			if a.LastError() != nil {
				t.Errorf("%s: %v", a.Name(), a.LastError())
			}
			for _, x := range a.ActiveAlerts() {
				if x.State == rules.StateFiring {
					out = append(out, a.Name()+" "+a.Labels().Get("severity")+" "+x.Labels.Get("pod"))
				}
			}
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	fire := func(about string, want string) {
		t.Helper()
		until(t, about+": "+want+" do not fire", func() bool { return fires() == want })
	}
	evaluated := func(times int) {
		t.Helper()
		for range times {
			began := time.Now()
			until(t, "no evaluation", func() bool {
				for _, g := range rs.Manager().RuleGroups() {
					if strings.HasPrefix(g.File(), "f") && g.GetLastEvaluation().After(began) {
						return true
					}
				}
				return false
			})
		}
	}
	inStore := func(want int) {
		t.Helper()
		until(t, "what fires is not stored", func() bool {
			v, err := stored(t.Context(), `ALERTS{alertstate="firing"}`, time.Now())
			return err == nil && len(v) == want
		})
	}
	const all = "Down page a, Down page b, Down ticket a, Down ticket b, Slow  a, Slow  b"
	const onlyA = "Down page a, Down ticket a, Slow  a"

	answer.say(nil, "a", "b", "c")
	stop := start()
	inStore(9)
	answer.say(nil, "a", "b") // c ends before
	inStore(6)
	stop()

	answer.say(ErrPartial, "a")
	stop = start()
	fire("after a restart", all)
	evaluated(10)
	fire("a while later", all)
	inStore(6)
	stop()

	stop = start() // once more, while the answer is still partial
	fire("after another restart", all)
	answer.say(nil, "a")
	fire("when the answer is whole", onlyA)
	answer.say(ErrPartial)
	evaluated(3)
	fire("when it is partial again", onlyA)
	stop()

	answer.say(nil)
	stop = start()
	defer stop()
	evaluated(3)
	answer.say(ErrPartial)
	evaluated(3)
	fire("when what fired before was not in the first whole answer", "")
}

func TestAnAlertIsHeldAsLongAsWhatIsMissingMayCome(t *testing.T) {
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	d, answer := data(t), &pods{}
	d.Query = answer.query
	rs := New(Config{Interval: time.Hour, ExternalURL: page}, d, nil, func(context.Context, ...Alert) error { return nil }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := rs.use([]Source{{Name: "f", Text: `groups: [{name: g, rules: [{alert: Down, expr: down}]}]`}}); err != nil {
		t.Fatal(err)
	}
	defer func() { // its groups wait for the manager to run
		go rs.manager.Run()
		rs.manager.Stop()
	}()
	began := time.Now()
	for _, step := range []struct {
		after   time.Duration
		partial error
		answer  string
		fire    string
	}{
		{0, nil, "a b", "a b"},
		{time.Minute, ErrPartial, "b", "a b"}, // the node of a is away
		{40 * time.Minute, ErrPartial, "b c", "a b c"},
		{70 * time.Minute, ErrPartial, "c", "a b c"}, // that of b too
		{76 * time.Minute, ErrPartial, "c", "b c"},
		{100 * time.Minute, ErrPartial, "b", "b c"}, // b is back, c goes
		{150 * time.Minute, ErrPartial, "", "b c"},
		{160 * time.Minute, ErrPartial, "a", "a b c"}, // who resolved may begin again
		{170 * time.Minute, ErrPartial, "", "a b c"},
		{175 * time.Minute, ErrPartial, "", "a b"},
		{225 * time.Minute, ErrPartial, "", "a"},
		{230 * time.Minute, nil, "", ""},
	} {
		answer.say(step.partial, strings.Fields(step.answer)...)
		rs.evaluate(t.Context(), rs.manager.RuleGroups()[0], began.Add(step.after))
		var fire []string
		for _, x := range rs.manager.AlertingRules()[0].ActiveAlerts() {
			fire = append(fire, x.Labels.Get("pod"))
		}
		slices.Sort(fire)
		if got := strings.Join(fire, " "); got != step.fire {
			t.Errorf("after %s: %q fire, want %q", step.after, got, step.fire)
		}
	}
}
