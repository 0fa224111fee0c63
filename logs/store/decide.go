package store

import (
	"slices"
	"time"
)

// decideRoll says whether the current partition is closed before the next
// block.
func decideRoll(now, start time.Time, bytes int64, blocks int, cfg Config) bool {
	return blocks > 0 && (now.Sub(start) >= cfg.PartitionAge || bytes >= cfg.PartitionBytes)
}

// partitionUse is what retention looks at.
type partitionUse struct {
	name       string
	end        time.Time // when it was closed
	bytes      int64
	namespaces map[string]int64 // bytes of blocks of each; nil when none has a retention of its own
	sealed     bool
	retry      time.Time // not written anew before
}

// of is how long a namespace is kept; 0 is for ever.
func (p policy) of(namespace string) time.Duration {
	if r := p.namespaces[namespace]; r.Age > 0 {
		return r.Age
	}
	return p.age
}

// due tells whether everything in the partition is too old.
func (p partitionUse) due(now time.Time, by policy) bool {
	longest := by.age
	if len(p.namespaces) > 0 {
		longest = 0
		for name := range p.namespaces {
			age := by.of(name)
			if age == 0 {
				return false
			}
			longest = max(longest, age)
		}
	}
	return longest > 0 && now.Sub(p.end) > longest
}

// ages tells whether something in the partition has an age to reach.
func (p partitionUse) ages(by policy) bool {
	for name := range p.namespaces {
		if by.namespaces[name].Age > 0 {
			return true
		}
	}
	return by.age > 0
}

// Why a partition is removed.
const (
	removedForAge   = "age"
	removedForBytes = "bytes" // no age is set, so that is how it should be
	removedEarly    = "early" // bytes too, before its age: there is less than was asked for
)

// removal is a partition to remove and why.
type removal struct {
	name   string
	reason string
}

// decideRemovals names the partitions to remove. closed is oldest first and
// leaves out the one being written, whose bytes are current.
func decideRemovals(now time.Time, closed []partitionUse, current int64, by policy) []removal {
	total := current
	for _, p := range closed {
		total += p.bytes
	}
	var out []removal
	for _, p := range closed {
		switch {
		case p.due(now, by):
			out = append(out, removal{p.name, removedForAge})
		case by.bytes > 0 && total > by.bytes && !p.ages(by):
			out = append(out, removal{p.name, removedForBytes})
		case by.bytes > 0 && total > by.bytes:
			out = append(out, removal{p.name, removedEarly})
		default:
			continue
		}
		total -= p.bytes
	}
	return out
}

// rewrite is a partition to write anew: sealed, without the blocks of some
// namespaces.
type rewrite struct {
	name   string
	drop   map[string]string // namespace → reason
	reason string
}

// decideRewrite names the closed partition to write anew next, if any. closed
// is oldest first.
func decideRewrite(now time.Time, closed []partitionUse, by policy) (rewrite, bool) {
	used := map[string]int64{} // by newer partitions too
	drops := make([]map[string]string, len(closed))
	for i, p := range slices.Backward(closed) {
		for name, bytes := range p.namespaces {
			used[name] += bytes
			reason := ""
			if age := by.of(name); age > 0 && now.Sub(p.end) > age {
				reason = "age"
			} else if most := by.namespaces[name].Bytes; most > 0 && used[name] > most {
				reason = "bytes"
			}
			if reason == "" {
				continue
			}
			if drops[i] == nil {
				drops[i] = map[string]string{}
			}
			drops[i][name] = reason
		}
	}
	for i, p := range closed {
		switch {
		case now.Before(p.retry):
		case len(drops[i]) > 0:
			return rewrite{p.name, drops[i], "namespaces are due"}, true
		case !p.sealed:
			return rewrite{p.name, nil, "closed"}, true
		}
	}
	return rewrite{}, false
}
