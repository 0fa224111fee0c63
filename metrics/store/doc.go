// Package store owns the metric database of one process: the Prometheus TSDB
// in one directory, its retention, its limits and the lock on the directory.
//
// It never decides what to sample and never speaks HTTP.
//
// Invariants: a committed sample survives kill -9; a second process on the
// directory gets ErrInUse; no more than Config.SeriesLimit series are created,
// what is refused is counted.
//
// Wiring:
//
//	s, err := store.New(cfg, log, reg)      // opens and replays
//	defer s.Close(ctx)
//	inlet := s.Inlet("agent")               // one per writer, caches references
//	done, err := inlet.Append(ctx, samples)
//
// Store is a storage.Appendable, storage.AppendableV2,
// storage.SampleAndChunkQueryable and storage.ExemplarQueryable, so scrape,
// rules and PromQL take it as it is. All methods may be called concurrently,
// those of one Inlet may not.
//
// Start reading at New in store.go.
package store
