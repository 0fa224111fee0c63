package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/metrics/target"
)

// desk is who has the searches, asks what was found, and is told of changes.
type desk struct {
	t *testing.T
	*Loop

	mu      sync.Mutex
	list    []target.Search
	changes int
	asked   map[string][]time.Duration // since the start, by name
	answers map[string]func(context.Context) (answer, error)
	most    int // questions at once
	now     int

	wait     chan struct{} // a list is not there before it is closed
	listings int
}

func (d *desk) set(list ...target.Search) {
	d.mu.Lock()
	d.list = list
	d.mu.Unlock()
	d.Changed()
}

func (d *desk) answer(name string, f func(context.Context) (answer, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[name] = f
}

func (d *desk) wants(name string, want ...time.Duration) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.asked[name], want) {
		d.t.Errorf("%s was asked at %v, want %v", name, d.asked[name], want)
	}
}

// finds checks the targets and that the reasons have a text.
func (d *desk) finds(s target.Search, targets, failed string) {
	d.t.Helper()
	f, known := d.Found(s.Key())
	var all []string
	for _, g := range f.Groups {
		all = append(all, g.Targets...)
	}
	if !known || strings.Join(all, ",") != targets || (failed == "") != (f.Failed == "") || !strings.Contains(f.Failed, failed) {
		d.t.Errorf("%s: known %v, found %+v, want %q and failed %q", s.Key(), known, f, targets, failed)
	}
}

func (d *desk) told(want int) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changes != want {
		d.t.Errorf("told of %d changes, want %d", d.changes, want)
	}
	d.changes = 0
}

// run runs a loop whose searches answer with their own name, in a bubble.
func run(t *testing.T, cfg Config, f func(d *desk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		d := &desk{t: t, wait: make(chan struct{}), asked: map[string][]time.Duration{}, answers: map[string]func(context.Context) (answer, error){}}
		close(d.wait)
		reg := prometheus.NewRegistry()
		l, err := New(cfg, Parts{
			Searches: func(ctx context.Context) []target.Search {
				d.mu.Lock()
				list, wait := slices.Clone(d.list), d.wait
				d.listings++
				d.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-wait:
				}
				return list
			},
			Changed: func() { d.mu.Lock(); defer d.mu.Unlock(); d.changes++ },
			Machine: &net.Resolver{},
		}, slog.New(slog.DiscardHandler), reg)
		if err != nil {
			t.Fatal(err)
		}
		d.Loop = l
		begin := time.Now()
		l.open = func(s target.Search) (asker, error) {
			if s.Name == "unbuilt" {
				return nil, errors.New("no certificate")
			}
			return func(ctx context.Context) (answer, error) {
				d.mu.Lock()
				d.asked[s.Name] = append(d.asked[s.Name], time.Since(begin))
				d.now++
				d.most = max(d.most, d.now)
				f := d.answers[s.Name]
				d.mu.Unlock()
				defer func() { d.mu.Lock(); d.now--; d.mu.Unlock() }()
				if f != nil {
					return f(ctx)
				}
				return good(s.Name), nil
			}, nil
		}
		var end sync.WaitGroup
		end.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // it waits for the first tick
		f(d)
		stop()
		end.Wait() // and the bubble finds what goes on
	})
}

func good(name string) answer {
	return answer{groups: []target.Group{{Targets: []string{name}}}, bytes: 10}
}

func named(namespace, name string, every time.Duration) target.Search {
	return target.Search{From: "scrapeconfig/" + namespace + "/x", Namespace: namespace, Field: "f", Every: every, Name: name, Type: "A", Port: 1}
}

// pass lets time go by and all that is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestEachIsAskedAtOnceAndThenByItsInterval(t *testing.T) {
	run(t, Default(), func(d *desk) {
		slow, fast := named("red", "slow", time.Minute), named("red", "fast", 20*time.Second)
		d.set(slow, fast)
		if _, known := d.Found(slow.Key()); known {
			t.Error("found before it was asked")
		}
		pass(65*time.Second + time.Millisecond)
		d.wants("fast", 1*time.Second, 21*time.Second, 41*time.Second, 61*time.Second)
		d.wants("slow", 1*time.Second, 61*time.Second)
		d.finds(slow, "slow", "")
		d.told(2) // the same answer again is no change
	})
}

func TestAFailureKeepsWhatWasFoundAndIsTold(t *testing.T) {
	run(t, Default(), func(d *desk) {
		s := named("red", "a", 10*time.Second)
		d.set(s)
		pass(2 * time.Second)
		d.told(1)
		first, _ := d.Found(s.Key())
		d.answer("a", func(context.Context) (answer, error) { return answer{}, errors.New("it is broken\nsecret") })
		pass(25 * time.Second)
		d.finds(s, "a", "it is broken")
		if f, _ := d.Found(s.Key()); strings.Contains(f.Failed, "secret") || !f.Good.Equal(first.Good) {
			t.Errorf("found %+v, first %+v", f, first)
		}
		d.told(1)
		d.answer("a", func(context.Context) (answer, error) { return good("b"), nil })
		pass(10 * time.Second)
		d.finds(s, "b", "")
		d.told(1)
		d.answer("a", func(context.Context) (answer, error) { return answer{note: "nothing there"}, nil })
		pass(10 * time.Second)
		d.finds(s, "", "")
		d.told(1)
		if n := testutil.ToFloat64(d.metrics.asked.WithLabelValues("dns", "failed")); n < 2 {
			t.Errorf("%v failures counted", n)
		}
	})
}

func TestWhatChangesIsAskedAtOnceAndWhatVanishesIsForgotten(t *testing.T) {
	run(t, Default(), func(d *desk) {
		s, other := named("red", "a", time.Hour), named("red", "b", time.Hour)
		d.set(s)
		pass(2 * time.Second)
		d.wants("a", time.Second)
		s.Client = "other: credentials"
		d.answer("a", func(context.Context) (answer, error) { return answer{}, errors.New("refused") })
		d.set(s, other)
		pass(time.Second)
		d.wants("a", time.Second, 3*time.Second)
		d.finds(s, "a", "refused") // what the older ones found stays
		s.Lacks = "Secret red/x is not there"
		d.set(s)
		pass(time.Second)
		d.wants("a", time.Second, 3*time.Second)
		d.finds(s, "a", "is not there")
		if _, known := d.Found(other.Key()); known {
			t.Error("one that vanished is remembered")
		}
		s.Lacks = ""
		d.answer("a", nil)
		d.set(s)
		pass(time.Second)
		d.finds(s, "a", "")
		d.set(s, named("red", "unbuilt", time.Hour))
		pass(time.Second)
		d.finds(named("red", "unbuilt", time.Hour), "", "no certificate")
		d.set()
		pass(time.Second)
		if n := testutil.ToFloat64(d.metrics.searches) + testutil.ToFloat64(d.metrics.targets); n != 0 {
			t.Errorf("%v are left", n)
		}
	})
}

// TestAnAnswerToAnOlderQuestionDoesNotCount: it may come after the newer one was due.
func TestAnAnswerToAnOlderQuestionDoesNotCount(t *testing.T) {
	run(t, Default(), func(d *desk) {
		s := named("red", "a", time.Hour)
		d.answer("a", func(ctx context.Context) (answer, error) { <-ctx.Done(); return good("old"), nil })
		d.set(s)
		pass(2 * time.Second)
		d.answer("a", nil)
		s.Client = "other: credentials"
		d.set(s)
		pass(2 * time.Second)
		d.finds(s, "a", "")
		d.answer("a", func(ctx context.Context) (answer, error) { <-ctx.Done(); return good("gone"), nil })
		s.Client = "more: credentials"
		d.set(s)
		pass(2 * time.Second)
		d.set() // while it is asked
		pass(2 * time.Second)
		if _, known := d.Found(s.Key()); known {
			t.Error("an answer brought back what is gone")
		}
	})
}

// TestAnswersAreTakenWhileTheListIsNotThere: to read a Secret may take seconds, while
// the API is away.
func TestAnswersAreTakenWhileTheListIsNotThere(t *testing.T) {
	run(t, Default(), func(d *desk) {
		s := named("red", "a", 10*time.Second)
		d.set(s)
		pass(2 * time.Second)
		wait := make(chan struct{})
		d.mu.Lock()
		d.wait, d.listings = wait, 0
		d.mu.Unlock()
		d.answer("a", func(context.Context) (answer, error) { return good("later"), nil })
		other := named("red", "b", time.Hour)
		d.set(s, other)
		pass(60 * time.Second)
		d.finds(s, "later", "")
		d.mu.Lock()
		if d.listings != 1 {
			t.Errorf("%d lists are made at once", d.listings)
		}
		d.mu.Unlock()
		close(wait)
		pass(2 * time.Second)
		d.finds(other, "b", "")
		d.mu.Lock()
		d.wait = make(chan struct{}) // never: the loop's end does not wait for it
		d.mu.Unlock()
		d.Changed()
		pass(2 * time.Second)
	})
}

// TestASearchThatVanishesEndsItsQuestion, so that another one has its place.
func TestASearchThatVanishesEndsItsQuestion(t *testing.T) {
	cfg := Default()
	cfg.AtOnce, cfg.AtOnceOfOne = 1, 1
	run(t, cfg, func(d *desk) {
		d.answer("hangs", func(ctx context.Context) (answer, error) { <-ctx.Done(); return answer{}, ctx.Err() })
		d.set(named("red", "hangs", time.Hour))
		pass(2 * time.Second)
		next := named("red", "next", time.Hour)
		d.set(next)
		pass(2 * time.Second)
		d.finds(next, "next", "")
	})
}

func TestOneNamespaceDoesNotTakeTheRoomOfOthers(t *testing.T) {
	cfg := Default()
	cfg.AtOnce, cfg.AtOnceOfOne, cfg.Searches, cfg.OfOne = 3, 2, 12, 8
	run(t, cfg, func(d *desk) {
		hang := func(ctx context.Context) (answer, error) { <-ctx.Done(); return answer{}, ctx.Err() }
		var list []target.Search
		for i := range 10 {
			s := named("red", fmt.Sprint("hangs", i), time.Hour)
			d.answer(s.Name, hang)
			list = append(list, s)
		}
		blue := named("blue", "quick", time.Hour)
		d.answer("quick", func(context.Context) (answer, error) { time.Sleep(time.Millisecond); return good("quick"), nil })
		d.set(append(list, blue)...)
		pass(2 * time.Second)
		d.finds(blue, "quick", "")
		if d.most != 3 {
			t.Errorf("%d at once", d.most)
		}
		d.finds(list[9], "", "more than 8 places")
		pass(10 * time.Minute)
		for _, s := range list[:8] {
			d.finds(s, "", "deadline")
		}
		var more []target.Search
		for i := range 5 {
			more = append(more, named(fmt.Sprint("ns", i), "m", time.Hour))
		}
		// New ones come first in the list; those that are there stay.
		d.set(append(append(slices.Clone(more), list[:8]...), blue)...)
		pass(2 * time.Second)
		d.finds(blue, "quick", "")
		d.finds(more[2], "m", "")
		d.finds(more[3], "", "all objects together")
		if n := testutil.ToFloat64(d.metrics.leftOut); n != 2 {
			t.Errorf("%v are left out", n)
		}
		many := slices.Clone(list[:8])
		for i := range 10_000 {
			many = append(many, named("red", fmt.Sprint("more", i), time.Hour))
		}
		d.set(append(many, many...)...)
		pass(2 * time.Second)
		d.finds(many[len(many)-1], "", "more than 8 places")
		if n, places := testutil.ToFloat64(d.metrics.leftOut), len(d.out); n != 10_000 || places != 1 {
			t.Errorf("%v are left out, with %d reasons", n, places)
		}
	})
}

func TestThereIsRoomForSoMuchOfAnswers(t *testing.T) {
	for unit, limit := range map[string]func(*Config){
		"bytes":   func(c *Config) { c.KeptOfOne, c.Kept = 100, 150 },
		"targets": func(c *Config) { c.FoundOfOne, c.Found = 100, 150 },
	} {
		t.Run(unit, func(t *testing.T) {
			cfg := Default()
			limit(&cfg)
			run(t, cfg, func(d *desk) {
				a, b, c := named("red", "a", 10*time.Second), named("red", "b", 10*time.Second), named("blue", "c", 10*time.Second)
				big := func(name string, size int) {
					got := answer{groups: []target.Group{{Targets: []string{name}}}, bytes: int64(size)}
					if unit == "targets" {
						got = answer{groups: []target.Group{{Targets: slices.Repeat([]string{name}, size)}}, bytes: 1}
					}
					d.answer(name, func(context.Context) (answer, error) { return got, nil })
				}
				finds := func(s target.Search, n int, failed string) {
					t.Helper()
					if unit == "bytes" {
						n = min(n, 1)
					}
					d.finds(s, strings.Join(slices.Repeat([]string{s.Name}, n), ","), failed)
				}
				big("a", 90)
				d.set(a)
				pass(2 * time.Second)
				big("b", 20)
				big("c", 70)
				d.set(a, b, c)
				pass(2 * time.Second)
				finds(a, 90, "")
				finds(b, 0, `namespace "red" find would be more than 100 `+unit)
				finds(c, 0, "all objects find would be more than 150 "+unit)
				big("a", 10)
				pass(21 * time.Second)
				finds(b, 20, "")
				finds(c, 70, "")
			})
		})
	}
}
