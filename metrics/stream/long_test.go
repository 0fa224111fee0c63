package stream

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
)

// Else the batch would be refused for ever, and nothing of its node would be sent again.
func TestSeriesThatNoReceiverTakesDoNotHoldUpTheOthers(t *testing.T) {
	dir := t.TempDir()
	from, into := newStore(t, dir), newStore(t, t.TempDir())
	_, srv := serve(t, NewReceiver("nodes", DefaultReceiver(), into, quiet, nil))
	many := labels.NewBuilder(name(2))
	for i := range maxLabels {
		many.Set(fmt.Sprint("l", i), "x")
	}
	now := time.Now().UnixMilli()
	batch := []Sample{{1, name(1), now, 1}, {2, many.Labels(), now, 2}, {3, labels.FromStrings("__name__", "m", "sql", strings.Repeat("x", maxText+1)), now, 3},
		{4, labels.FromStrings("__name__", "m", strings.Repeat("n", maxText+1), "x"), now, 4}, {5, labels.FromStrings("__name__", "m", "sql", strings.Repeat("x", maxText)), now, 5}}
	for i := range 1500 { // more than a receiver takes at once
		batch = append(batch, Sample{uint64(i + 10), labels.FromStrings("__name__", "wide", "i", fmt.Sprint(i), "sql", strings.Repeat(fmt.Sprint(i), 15_000/len(fmt.Sprint(i)))), now, 6})
	}
	batch = append(batch, Sample{9, name(9), now, 7})
	if done, err := from.Inlet("test").Append(t.Context(), batch); err != nil || done.Refused > 0 {
		t.Fatal(done, err)
	}
	cfg := DefaultForward(filepath.Join(t.TempDir(), "acked"))
	cfg.Interval, cfg.Retry = 5*time.Millisecond, 5*time.Millisecond
	client := NewClient("server", ClientConfig{URL: srv.URL}, http.DefaultClient, nil)
	f, err := NewForwarder(cfg, dir, client, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer start(t, f)()
	until(t, "all that a receiver takes", func() bool { return len(read(t, into)) == len(batch)-3 })
	until(t, "the count", func() bool { return testutil.ToFloat64(client.metrics.illegible) == 3 })
}

func TestABatchOfLongLabelsIsSentInParts(t *testing.T) {
	long := labels.FromStrings("a", strings.Repeat("x", wordy/4))
	b := Batch{Samples: make([]Sample, 9), Exemplars: []Exemplar{{With: long}, {Labels: long}}}
	for i := range b.Samples {
		b.Samples[i].Labels = long
	}
	var got []string
	for p := range parts(b) {
		got = append(got, fmt.Sprint(len(p.Samples), len(p.Exemplars)))
	}
	if want := "4 0,4 0,1 2"; strings.Join(got, ",") != want {
		t.Errorf("parts of samples and exemplars: %v, want %v", got, want)
	}
}
