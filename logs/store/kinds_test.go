package store

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/index"
	"perch/logs/record"
)

// kept says which records are there, by kind: namespace and when they came.
func kept(t *testing.T, s *Store) map[string][]string {
	t.Helper()
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	have := map[string][]string{}
	for _, p := range v.Select(t.Context(), math.MinInt64, math.MaxInt64, func(*record.Stream) bool { return true }, index.Need{}) {
		l, err := p.Read(nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range l.Len() {
			have[p.Stream.Kind] = append(have[p.Stream.Kind], p.Stream.Namespace+" "+string(l.Body(i)))
		}
	}
	for _, list := range have {
		slices.Sort(list)
	}
	return have
}

func TestRecordsOfEveryKindGoAtTheAgeOfTheirNamespace(t *testing.T) {
	kinds := []string{record.KindLog, record.KindEvent, "audit", "alert"} // the store does not know them, so that none has rules of its own
	synctest.Test(t, func(t *testing.T) {
		cfg := small(t.TempDir())
		cfg.PartitionAge, cfg.RetentionAge, cfg.RetentionBytes = time.Hour, 24*time.Hour, 0
		cfg.Namespaces = func() map[string]Retention {
			return map[string]Retention{"debug": {Age: 2 * time.Hour}, "bank": {Age: 72 * time.Hour}}
		}
		s := open(t, cfg)
		begin := time.Now()
		for _, step := range []struct {
			at     time.Duration
			append string
			want   []string // of each kind
		}{
			{0, "first", []string{" first", "bank first", "debug first", "shop first"}},
			{20 * time.Hour, "second", []string{" first", " second", "bank first", "bank second", "debug first", "debug second", "shop first", "shop second"}},
			{23 * time.Hour, "", []string{" first", " second", "bank first", "bank second", "debug second", "shop first", "shop second"}},
			{40 * time.Hour, "third", []string{" first", " second", " third", "bank first", "bank second", "bank third", "debug third", "shop first", "shop second", "shop third"}},
			{41 * time.Hour, "", []string{" first", " second", " third", "bank first", "bank second", "bank third", "debug third", "shop first", "shop second", "shop third"}},
			{45 * time.Hour, "", []string{" second", " third", "bank first", "bank second", "bank third", "shop second", "shop third"}}, // though nothing was written since
			{63 * time.Hour, "", []string{" third", "bank first", "bank second", "bank third", "shop third"}},
			{93 * time.Hour, "", []string{"bank second", "bank third"}},
		} {
			time.Sleep(time.Until(begin.Add(step.at)))
			if step.append != "" {
				var records []record.Record
				for _, kind := range kinds {
					for _, namespace := range []string{"shop", "debug", "bank", ""} { // "": of the cluster, as a Node's events
						st := &record.Stream{Namespace: namespace, Pod: "p", Kind: kind}
						records = append(records, record.Record{Time: time.Now().UnixNano(), Stream: st, Body: []byte(step.append)})
					}
				}
				if err := s.Append(t.Context(), records, nil); err != nil {
					t.Fatal(err)
				}
				if err := s.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			now := time.Now()
			maintain(t, s, now)
			if err := s.rewriteDue(t.Context(), now, 0); err != nil {
				t.Fatal(err)
			}
			have := kept(t, s)
			if names := slices.Sorted(maps.Keys(have)); fmt.Sprint(names) != fmt.Sprint(slices.Sorted(slices.Values(kinds))) {
				t.Fatalf("after %s: kinds are %v", step.at, names)
			}
			for kind, list := range have {
				if !slices.Equal(list, step.want) {
					t.Errorf("after %s: of %s there are %q, want %q", step.at, kind, list, step.want)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLinesThatGoBeforeTheirAgeAreCounted(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.PartitionBytes, cfg.RetentionBytes = 4<<10, 20<<10
	s := open(t, cfg)
	appendAll(t, s, 0, 4000, streams(2))
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.retain(time.Now())
	if early, others := testutil.ToFloat64(s.m.removed.WithLabelValues(removedEarly)), testutil.ToFloat64(s.m.removed.WithLabelValues(removedForBytes)); early == 0 || others > 0 {
		t.Errorf("%v partitions went early, %v as they should", early, others)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
