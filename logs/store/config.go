package store

import (
	"errors"
	"fmt"
	"time"

	"perch/logs/wal"
)

// Config says where lines are kept and how many. Zero is not a default; use
// Default.
type Config struct {
	Dir             string
	BlockBytes      int                         // a head is cut at this size
	HeadAge         time.Duration               // and at this age
	HeadBytes       int                         // memory of all heads together; the largest are cut early
	WALBytes        int64                       // the heads that hold back the write-ahead log beyond this are cut
	PartitionAge    time.Duration               // a partition is closed after this time, or after an eighth of RetentionAge
	PartitionBytes  int64                       // or at this size of its blocks
	RetentionAge    time.Duration               // a partition is removed so long after it was closed; 0 keeps it
	RetentionBytes  int64                       // the oldest closed partitions go beyond this; 0 keeps them
	SealBytes       int                         // blocks of closed partitions are merged up to this size
	Namespaces      func() map[string]Retention // of those with one of their own, asked at each look; nil: there are none
	LearnBlocks     int                         // sample blocks for a vocabulary
	CheckpointEvery time.Duration

	// CreateWAL makes write-ahead segments; nil means real files. For fault tests.
	CreateWAL func(path string) (wal.File, error)
}

// Retention is how much of one namespace is kept; 0 means what holds for all. A
// namespace kept longer than others stays when they go, a shorter one goes
// first. Bytes are compressed, the oldest go first, and only those of closed
// partitions: one is closed early when that is the reason why there are too many.
type Retention struct {
	Age   time.Duration `json:"age"`
	Bytes int64         `json:"bytes"`
}

// policy is what retention goes by at one moment.
type policy struct {
	age        time.Duration
	bytes      int64
	namespaces map[string]Retention
}

func (c Config) policy() policy {
	p := policy{age: c.RetentionAge, bytes: c.RetentionBytes}
	if c.Namespaces != nil {
		p.namespaces = c.Namespaces()
	}
	return p
}

// Default returns the configuration for a small machine.
func Default(dir string) Config {
	return Config{
		Dir: dir, BlockBytes: 256 << 10, HeadAge: 10 * time.Minute, HeadBytes: 48 << 20, WALBytes: 256 << 20,
		PartitionAge: 6 * time.Hour, PartitionBytes: 1 << 30, RetentionAge: 7 * 24 * time.Hour, RetentionBytes: 8 << 30,
		SealBytes: 512 << 10, LearnBlocks: 64, CheckpointEvery: 2 * time.Second,
	}
}

// within makes what cannot be removed at once, the partition being written and the
// write-ahead log, a small part of the bytes and of the time that may be kept.
func (c Config) within() Config {
	if c.RetentionBytes > 0 {
		part := max(c.RetentionBytes/8, leastPart)
		c.PartitionBytes, c.WALBytes = min(c.PartitionBytes, part), min(c.WALBytes, part)
	}
	if c.RetentionAge > 0 {
		c.PartitionAge = min(c.PartitionAge, max(c.RetentionAge/8, leastSpan))
	}
	return c
}

// leastPart and leastSpan bound how small partitions are made for that.
const (
	leastPart = 4 << 20
	leastSpan = 5 * time.Minute
)

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("logs directory is empty"))
	}
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("logs %s is %d, want more than 0", name, v))
		}
	}
	positive("block bytes", int64(c.BlockBytes))
	positive("head age", int64(c.HeadAge))
	positive("head bytes", int64(c.HeadBytes))
	positive("write-ahead bytes", c.WALBytes)
	positive("partition age", int64(c.PartitionAge))
	positive("partition bytes", c.PartitionBytes)
	positive("sealed block bytes", int64(c.SealBytes))
	positive("learn blocks", int64(c.LearnBlocks))
	positive("checkpoint interval", int64(c.CheckpointEvery))
	if c.RetentionAge < 0 || c.RetentionBytes < 0 {
		errs = append(errs, errors.New("logs retention is negative"))
	}
	return errors.Join(errs...)
}
