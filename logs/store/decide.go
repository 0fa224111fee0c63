package store

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"perch/logs/block"
)

// decideRoll says whether the current partition is closed before the next
// block: it is old, large, or has as many blocks as are held in memory at once.
func decideRoll(now, start time.Time, bytes int64, blocks int, cfg Config) bool {
	return blocks > 0 && (now.Sub(start) >= cfg.PartitionAge || bytes >= cfg.PartitionBytes || blocks >= mostBlocks)
}

// A namespace with bytes of its own loses blocks of closed partitions only. The one
// being written is closed for it when that has one part in rollPart of these bytes, but
// no more than rollMost times in the time for which partitions are written.
const (
	rollPart = 8
	rollMost = 12
)

// decideRollFor names the namespace, if any, for which the partition being written is
// closed before its time: it has more than it may, and much of that is here. open are
// the bytes of the partition's namespaces.
func decideRollFor(now, start time.Time, closed []partitionUse, open map[string]int64, by policy, cfg Config) (string, bool) {
	if now.Sub(start) < cfg.PartitionAge/rollMost {
		return "", false
	}
	for _, name := range slices.Sorted(maps.Keys(open)) {
		most, used := by.namespaces[name].Bytes, open[name]
		for _, p := range closed {
			used += p.namespaces[name]
		}
		if most > 0 && used > most && open[name] >= most/rollPart {
			return name, true
		}
	}
	return "", false
}

// maxSealed large heads may wait before appenders cut blocks themselves.
const maxSealed = 8

// decideHelp says whether appenders cut blocks themselves: so many large heads wait for
// that, or heads take so much memory, those that wait included. Thousands of small ones
// that are sealed because they are old take no more than before: nobody waits for them.
func decideHelp(large, bytes int, cfg Config) bool {
	return large > maxSealed || bytes > cfg.HeadBytes
}

// A block with less content than smallBlock goes into one record with others, up
// to bundleBytes together: alone it would take twice the space and the work.
const (
	smallBlock  = 64 << 10
	bundleBytes = 256 << 10
	blockHead   = 128 // about what a block takes beside its content; so their number is bounded too
)

// small is the content of blocks that are written with others: those that are not
// cut because they are full.
func (c Config) small() int { return min(smallBlock, c.BlockBytes/2) }

// together is how many heads at the front of a queue, at least one, are written
// as one record.
func together(queue []*head, small int) int {
	total := 0
	for n, h := range queue {
		total += h.content() + blockHead
		if h.content() >= small || total > bundleBytes {
			return max(1, n)
		}
	}
	return len(queue)
}

// partitionUse is what retention looks at.
type partitionUse struct {
	name       string
	start      time.Time
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
	leave  map[string]int64  // of namespaces to drop: bytes of the newest blocks that stay
	reason string
}

// split says which blocks stay, in their order, and counts the others by reason.
func (r rewrite) split(metas []*block.Meta) (kept []*block.Meta, dropped map[string]int) {
	newest := slices.DeleteFunc(slices.Clone(metas), func(m *block.Meta) bool { return r.leave[m.Stream.Namespace] == 0 })
	slices.SortStableFunc(newest, func(a, b *block.Meta) int { return cmp.Compare(b.Max, a.Max) })
	stays, left := map[*block.Meta]bool{}, maps.Clone(r.leave)
	for _, m := range newest {
		if left[m.Stream.Namespace] -= m.Size(); left[m.Stream.Namespace] >= 0 {
			stays[m] = true
		}
	}
	dropped = map[string]int{}
	for _, m := range metas {
		if reason, drop := r.drop[m.Stream.Namespace]; drop && !stays[m] {
			dropped[reason]++
			continue
		}
		kept = append(kept, m)
	}
	return kept, dropped
}

// decideRewrite names the closed partition to write anew next, if any. closed
// is oldest first. A partition which has most of what its namespace may keep loses
// the oldest blocks only.
func decideRewrite(now time.Time, closed []partitionUse, by policy) (rewrite, bool) {
	used := map[string]int64{} // by newer partitions too
	out := make([]rewrite, len(closed))
	for i, p := range slices.Backward(closed) {
		out[i] = rewrite{p.name, map[string]string{}, map[string]int64{}, "namespaces are due"}
		for name, bytes := range p.namespaces {
			newer, most := used[name], by.namespaces[name].Bytes
			used[name] += bytes
			if age := by.of(name); age > 0 && now.Sub(p.end) > age {
				out[i].drop[name] = "age"
			} else if most > 0 && used[name] > most {
				out[i].drop[name] = "bytes"
				if newer < most/2 {
					out[i].leave[name] = (most - newer) / 8 * 7 // written anew they may take more
				}
			}
		}
	}
	for i, p := range closed {
		switch {
		case now.Before(p.retry):
		case len(out[i].drop) > 0:
			return out[i], true
		case !p.sealed:
			return rewrite{name: p.name, reason: "closed"}, true
		}
	}
	return rewrite{}, false
}
