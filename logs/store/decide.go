package store

import "time"

// decideRoll says whether the current partition is closed before the next
// block.
func decideRoll(now, start time.Time, bytes int64, blocks int, cfg Config) bool {
	return blocks > 0 && (now.Sub(start) >= cfg.PartitionAge || bytes >= cfg.PartitionBytes)
}

// partitionUse is what retention looks at.
type partitionUse struct {
	name  string
	end   time.Time // when it was closed
	bytes int64
}

// removal is a partition to remove and why.
type removal struct {
	name   string
	reason string
}

// decideRemovals names the partitions to remove. closed is oldest first and
// leaves out the one being written, whose bytes are current.
func decideRemovals(now time.Time, closed []partitionUse, current int64, cfg Config) []removal {
	total := current
	for _, p := range closed {
		total += p.bytes
	}
	var out []removal
	for _, p := range closed {
		switch {
		case cfg.RetentionAge > 0 && now.Sub(p.end) > cfg.RetentionAge:
			out = append(out, removal{p.name, "age"})
		case cfg.RetentionBytes > 0 && total > cfg.RetentionBytes:
			out = append(out, removal{p.name, "bytes"})
		default:
			return out
		}
		total -= p.bytes
	}
	return out
}
