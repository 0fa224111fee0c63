package store

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// described lists the helps in the WAL.
func described(t *testing.T, dir string) (out []string) {
	t.Helper()
	segments, err := wlog.NewSegmentsReader(filepath.Join(dir, "wal"))
	if err != nil {
		t.Fatal(err)
	}
	defer segments.Close()
	dec := record.NewDecoder(labels.NewSymbolTable(), nil)
	for r := wlog.NewReader(segments); r.Next(); {
		if dec.Type(r.Record()) != record.Metadata {
			continue
		}
		list, err := dec.Metadata(r.Record(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			out = append(out, m.Help)
		}
	}
	slices.Sort(out)
	return out
}

func TestSeriesAreDescribedOnceInTheWAL(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	put := func(i int) {
		t.Helper()
		if done, err := s.Inlet("test").Append(t.Context(), []Sample{{Labels: series("x", i), T: 1000, V: 1}}); err != nil || done.Stored != 1 {
			t.Fatal(done, err)
		}
	}
	help := "A."
	var asked []string
	of := func(l labels.Labels) (metadata.Metadata, bool) {
		asked = append(asked, l.Get("i"))
		return metadata.Metadata{Type: "gauge", Help: help}, l.Get("i") != "2"
	}
	describe := func(since uint64, wantAsked, wantWAL []string) uint64 {
		t.Helper()
		asked = nil
		newest, err := s.Describe(t.Context(), since, of)
		if err != nil {
			t.Fatal(err)
		}
		if have := described(t, dir); !slices.Equal(have, wantWAL) || !slices.Equal(asked, wantAsked) {
			t.Errorf("asked for %v, want %v; in the WAL are %v, want %v", asked, wantAsked, have, wantWAL)
		}
		return newest
	}
	put(1)
	newest := describe(0, []string{"1"}, []string{"A."})
	put(2)
	put(3)
	newest = describe(newest, []string{"2", "3"}, []string{"A.", "A."})
	describe(newest, nil, []string{"A.", "A."})
	describe(0, []string{"1", "2", "3"}, []string{"A.", "A."})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	describe(0, []string{"1", "2", "3"}, []string{"A.", "A."})
	help = "B."
	describe(0, []string{"1", "2", "3"}, []string{"A.", "A.", "B.", "B."})
	s.room.reserve, s.room.looked = 1<<62, time.Time{}
	if newest, err := s.Describe(context.Background(), 1, of); !errors.Is(err, ErrFull) || newest != 1 {
		t.Errorf("on a full disk: %d, %v", newest, err)
	}
}
