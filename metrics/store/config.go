package store

import (
	"errors"
	"time"
)

// Config says where the database is and how large it may grow.
type Config struct {
	Dir string // created with mode 0700

	Retention time.Duration // age at which a block is deleted
	MaxBytes  int64         // disk budget of blocks and WAL; 0 = none

	// ReserveBytes of the file system are left free: the database does not
	// bear a full disk, so that samples are refused before.
	ReserveBytes int64

	// SeriesLimit bounds the series in memory, about 3 KB each: they have to fit
	// into the role's memory. When it is reached new series are refused, counted and
	// named; known ones go on.
	SeriesLimit int

	// NamespaceLimit bounds the series with one value of the label namespace,
	// so that one application cannot take what all need. Its new series are
	// refused, counted and named; 0 = none.
	NamespaceLimit int

	Exemplars int // the newest that are kept, about 200 bytes each; 0 = none

	// BlockDuration is the span of a block; memory holds 1.5 of it.
	BlockDuration time.Duration

	// OutOfOrder is how much older than the newest sample one may be. It
	// bounds how long a node may be cut off and still fill its gap later.
	OutOfOrder time.Duration

	WALSegmentBytes int // at most this much is lost when power fails
	StripeSize      int // of the series map; a power of two
}

// Default is for a small server: 15 days, 8 GiB, 200,000 series in the 800 MiB that
// its role has for everything.
func Default() Config {
	return Config{
		Retention:       15 * 24 * time.Hour,
		MaxBytes:        8 << 30,
		ReserveBytes:    64 << 20, // four segments of the WAL
		SeriesLimit:     200_000,
		NamespaceLimit:  100_000,
		Exemplars:       10_000,
		BlockDuration:   time.Hour,
		OutOfOrder:      70 * time.Minute, // an outage of 60 minutes and the way back
		WALSegmentBytes: 16 << 20,
		StripeSize:      1024,
	}
}

// DefaultWorker is for a node whose samples travel on to a server: the store is
// the buffer for an outage and serves local decisions.
func DefaultWorker() Config {
	c := Default()
	c.Retention = 2 * time.Hour
	c.MaxBytes = 1 << 30
	c.SeriesLimit = 100_000
	c.NamespaceLimit = 50_000
	c.Exemplars = 1000 // the stream to the server takes them from the WAL, where only those are that are kept
	c.OutOfOrder = 10 * time.Minute
	c.StripeSize = 512
	return c
}

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs error
	wrong := func(bad bool, text string) {
		if bad {
			errs = errors.Join(errs, errors.New(text))
		}
	}
	wrong(c.Dir == "", "metrics store: no directory given")
	wrong(c.BlockDuration < time.Minute, "metrics store: block duration is below one minute")
	wrong(c.Retention < c.BlockDuration, "metrics store: retention is shorter than one block")
	wrong(c.ReserveBytes < 0, "metrics store: reserve is negative")
	wrong(c.SeriesLimit < 1, "metrics store: series limit must be at least 1")
	wrong(c.NamespaceLimit < 0, "metrics store: namespace limit is negative")
	wrong(c.Exemplars < 0, "metrics store: exemplars are negative")
	wrong(c.OutOfOrder < 0, "metrics store: out-of-order window is negative")
	wrong(c.StripeSize < 1 || c.StripeSize&(c.StripeSize-1) != 0, "metrics store: stripe size is not a power of two")
	wrong(c.WALSegmentBytes < 1<<20 || c.WALSegmentBytes%(32<<10) != 0, "metrics store: WAL segment must be at least 1 MiB and a multiple of 32 KiB")
	return errs
}
