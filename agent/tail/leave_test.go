package tail

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// While the store takes nothing, files go that nobody has read: each of their lines is
// counted, and those of files that are open are stored later.
func TestLinesOfAFileThatIsRemovedUnreadAreCounted(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	var full atomic.Bool
	m.refuse = full.Load
	tl := start(t, dir, m)
	c, other := newWriter(t, dir, podName), newWriter(t, dir, "shop_web-2_uid-2")
	leave := func(path string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := tl.Leaving(ctx, path); err != nil {
			t.Error(err)
		}
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	c.say("stdout", "F", "one")
	other.say("stdout", "F", "two")
	m.until(t, 2)
	full.Store(true)
	c.say("stdout", "F", "three")
	eventually(t, "the store is not full", func() bool { return testutil.ToFloat64(tl.m.refused) > 0 })
	c.say("stdout", "F", "four") // not read, but the file is open
	c.rotate()
	for range 5 {
		c.say("stdout", "F", "unread")
	}
	c.raw("cut o")
	c.rotate()
	c.say("stdout", "F", "five")
	leave(filepath.Join(c.dir, "0.log.0001"))
	leave(filepath.Join(c.dir, "0.log.0002"))
	unseen := newWriter(t, dir, "shop_web-3_uid-3")
	unseen.say("stdout", "F", "of a pod that nobody has seen")
	leave(filepath.Join(unseen.dir, "0.log"))
	full.Store(false)
	m.until(t, 5)
	eventually(t, "not all is counted", func() bool { return tl.sum().read == 12 })
	if have := tl.sum(); have.stored != 5 || have.dropped[reasonGone] != 7 {
		t.Errorf("%+v", have)
	}
	// With a store that takes lines nothing is lost.
	other.say("stdout", "F", "six")
	leave(filepath.Join(other.dir, "0.log"))
	m.until(t, 6)
	eventually(t, "not all is counted", func() bool { return tl.sum().read == 13 })
	if have := tl.sum(); have.stored != 6 || have.dropped[reasonGone] != 7 {
		t.Errorf("%+v", have)
	}
	tl.stop()
	again := newLedger(quick(dir), m, prometheus.NewRegistry())
	if again.node.now != tl.ledger.node.now || again.containers[podName+"/app"].now.dropped[reasonGone] != 6 {
		t.Errorf("after a restart %+v", again.node.now)
	}
}
