package store

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
)

// describedAtOnce bounds what is written to the WAL in one commit.
const describedAtOnce = 1000

// Describe writes type, help and unit of series in memory to the WAL, for those
// who read them there beside the samples, and returns the newest series it saw.
// It looks at series that are newer than since (0: all), which after an error is
// what it returns. What is in the WAL already is not written again; where of knows
// nothing, nothing changes. A described series costs some 150 bytes of memory
// more, and as much of the WAL.
func (s *Store) Describe(ctx context.Context, since uint64, of func(labels.Labels) (metadata.Metadata, bool)) (newest uint64, err error) {
	ix, err := s.db.Head().Index()
	if err != nil {
		return since, fmt.Errorf("describe series: %w", err)
	}
	defer ix.Close()
	name, value := index.AllPostingsKey()
	all, err := ix.Postings(ctx, name, value)
	if err != nil {
		return since, fmt.Errorf("describe series: %w", err)
	}
	newest = since
	var b labels.ScratchBuilder
	app, waits := s.Appender(ctx), 0
	for ok := all.Seek(storage.SeriesRef(since + 1)); ok; ok = all.Next() {
		if err := ix.Series(all.At(), &b, nil); err != nil {
			continue // it is gone
		}
		l := b.Labels()
		if m, known := of(l); known {
			if _, err := app.UpdateMetadata(all.At(), l, m); err == nil { // else it is gone since
				waits++
			}
		}
		if waits == describedAtOnce {
			if err := app.Commit(); err != nil {
				return since, fmt.Errorf("describe series: %w", err)
			}
			app, waits = s.Appender(ctx), 0
		}
		newest = max(newest, uint64(all.At()))
	}
	if err := app.Commit(); err != nil {
		return since, fmt.Errorf("describe series: %w", err)
	}
	return newest, nil
}
