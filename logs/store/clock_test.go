package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAgesAreJudgedByAClockThatStays(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Unix(1e9, 0)
	type look struct {
		step, after time.Duration // of the clock beside the time that passed, and that time
		ahead       time.Duration
	}
	for name, looks := range map[string][]look{
		"a clock that goes on":                     {{0, time.Minute, 0}, {0, 5 * day, 0}},
		"small steps are believed":                 {{time.Minute, time.Minute, 0}, {-time.Minute, time.Minute, 0}, {leap, 0, 0}},
		"a leap is believed when it has stayed":    {{9 * day, time.Minute, 9 * day}, {0, leapHold - 1, 9 * day}, {0, 1, 0}, {0, time.Hour, 0}},
		"of a second leap too":                     {{9 * day, 0, 9 * day}, {9 * day, leapHold / 2, 18 * day}, {0, leapHold / 2, 18 * day}, {0, leapHold / 2, 0}},
		"one that is taken back was none":          {{9 * day, 0, 9 * day}, {-9 * day, time.Minute, 0}, {0, leapHold, 0}},
		"one that was believed and is set back":    {{9 * day, 0, 9 * day}, {0, leapHold, 0}, {-9 * day, time.Minute, 0}},
		"one that is taken back in part":           {{9 * day, 0, 9 * day}, {-4 * day, time.Minute, 5 * day}},
		"set back further than it leaped, at once": {{9 * day, 0, 9 * day}, {-12 * day, time.Minute, 0}},
	} {
		var c clock
		c.used(begin)
		wall, run := begin, time.Duration(0)
		for i, l := range looks {
			wall, run = wall.Add(l.step+l.after), run+l.after
			if at, ahead, leaped := c.judge(wall, run); ahead != l.ahead || !at.Equal(wall.Add(-ahead)) || leaped != (l.step > leap) {
				t.Errorf("%s: look %d: %s, %s ahead, leaped %v; want %s", name, i, at, ahead, leaped, l.ahead)
			}
		}
	}
	var c clock
	c.used(time.Time{}) // a store that was never used
	if _, ahead, _ := c.judge(begin, time.Second); ahead != 0 {
		t.Errorf("%s ahead of nothing", ahead)
	}
}

func TestAPartitionWithANameOfATimeToComeHasTheAgeOfItsBlocks(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, c := range []struct{ next, written, want time.Duration }{
		{-time.Hour, -time.Minute, -time.Hour}, {leap, 0, leap}, {9 * leap, -time.Minute, -time.Minute}, {9 * leap, 10 * leap, 9 * leap},
	} {
		if have := closedAt(now.Add(c.next), now.Add(c.written), now); !have.Equal(now.Add(c.want)) {
			t.Errorf("%+v: closed at %s", c, have.Sub(now))
		}
		want := c.next
		if c.next > leap {
			want = c.written
		}
		if have := begunAt(now.Add(c.next), now.Add(c.written), now); !have.Equal(now.Add(want)) {
			t.Errorf("%+v: begun at %s", c, have.Sub(now))
		}
	}
	if have := closedAt(now.Add(9*leap), time.Time{}, now); !have.Equal(now.Add(9 * leap)) {
		t.Errorf("closed at %s when nobody knows when it was written", have)
	}
}

const years = 10 * 365 * 24 * time.Hour

// A clock that is years ahead removes nothing at once; it does when it has stayed.
func TestAClockThatLeapsAheadRemovesNothingAtOnce(t *testing.T) {
	s := open(t, Default(t.TempDir()))
	if err := s.Append(t.Context(), batch(streams(2), 0, 10), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	ahead := time.Now().Add(years)
	s.clock.began = s.clock.began.Add(years) // of which nothing has passed
	s.maintain(t.Context(), ahead)
	if len(s.parts) != 2 {
		t.Errorf("%d partitions at once, want the one that is closed and the one being written", len(s.parts))
	}
	s.maintain(t.Context(), ahead.Add(leapHold))
	if len(s.parts) != 1 {
		t.Errorf("%d partitions after an hour, want the one being written", len(s.parts))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// So it is when the clock leaped while the store was closed.
func TestAStoreThatIsOpenedYearsLaterRemovesNothingAtOnce(t *testing.T) {
	cfg := Default(t.TempDir())
	s := open(t, cfg)
	if err := errors.Join(s.Append(t.Context(), batch(streams(1), 0, 10), nil), s.checkpoint(), s.Close()); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-years)
	for _, name := range []string{checkpointName, checkpointBefore} {
		if err := os.Chtimes(filepath.Join(cfg.Dir, name), then, then); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	s = open(t, cfg)
	now := time.Now()
	if at := s.judge(now); at.Sub(then) > time.Minute {
		t.Errorf("ages are judged by %s, %s after the store was used", at, at.Sub(then))
	}
	if at := s.judge(now.Add(leapHold)); !at.Equal(now.Add(leapHold).Round(0)) {
		t.Errorf("ages are judged by %s an hour later", at)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
