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
)

func TestAnAlertWhoseRuleIsGoneHasEnded(t *testing.T) {
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var sources []Source
	told := map[string]string{}
	var ended []string // in this order
	have := func(now ...Source) {
		mu.Lock()
		defer mu.Unlock()
		sources = now
	}
	state := func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		return told[name]
	}
	rs := New(Config{Interval: 50 * time.Millisecond, ExternalURL: page}, data(t), func() []Source {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(sources)
	}, func(_ context.Context, in ...Alert) error {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range in {
			name := a.Labels["alertname"] + a.Labels["severity"]
			if told[name] = "firing"; !a.Ends.After(time.Now()) {
				told[name] = "ended"
				ended = append(ended, name)
			}
		}
		return nil
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	defer run(t, rs)()
	defer func() {
		if t.Failed() {
			mu.Lock()
			defer mu.Unlock()
			t.Log(told)
		}
	}()
	const deleted, moved, mended, kept = `{alert: Deleted, expr: vector(1)}`, `{alert: Moved, expr: vector(1)}`, `{alert: Mended, expr: vector(1)}`, `{alert: Kept, expr: vector(1)}`
	group := func(name string, rules ...string) string {
		return "groups: [{name: " + name + ", rules: [" + strings.Join(rules, ", ") + "]}]"
	}
	fails := Source{Name: "f", Text: group("two", `{alert: Fails, expr: 'label_replace(vector(1), "a", "b", "c", "(")'}`)}
	have(Source{Name: "a", Text: group("g", deleted, kept)}, Source{Name: "b", Text: group("g", `{alert: Edited, expr: vector(1), labels: {severity: page}}`)},
		Source{Name: "c", Text: group("one", moved)}, Source{Name: "d", Text: group("g", mended)}, Source{Name: "e", Text: group("g", `{alert: Whole, expr: vector(1)}`)},
		Source{Name: "f", Text: group("one", `{alert: Fails, expr: vector(1)}`)})
	until(t, "not all fire", func() bool {
		return state("Deleted") == "firing" && state("Editedpage") == "firing" && state("Moved") == "firing" && state("Mended") == "firing" && state("Kept") == "firing" && state("Whole") == "firing" && state("Fails") == "firing"
	})
	have(Source{Name: "a", Text: group("g", `{alert: Kept, expr: vector(2)}`)}, Source{Name: "b", Text: group("g", `{alert: Edited, expr: vector(1), labels: {severity: ticket}}`)},
		Source{Name: "c", Text: group("two", moved)}, Source{Name: "d", Text: "groups: ["}, fails)
	until(t, "what is gone has not ended", func() bool {
		return state("Deleted") == "ended" && state("Editedpage") == "ended" && state("Whole") == "ended"
	})
	have(Source{Name: "a", Text: group("g", kept)}, Source{Name: "d", Text: group("g", mended, deleted)}, fails)
	until(t, "the last is not ended, or what is back does not fire", func() bool {
		return state("Editedticket") == "ended" && state("Moved") == "ended" && state("Deleted") == "firing"
	})
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(ended)
	if want := []string{"Deleted", "Editedpage", "Editedticket", "Moved", "Whole"}; !slices.Equal(ended, want) {
		t.Errorf("told to have ended: %q, want %q", ended, want)
	}
}
