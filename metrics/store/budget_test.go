package store

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
)

func TestANamespaceOverItsBudgetLosesItsNewestSeriesAlone(t *testing.T) {
	cfg := Default()
	cfg.Dir, cfg.NamespaceLimit = t.TempDir(), 3
	reg := prometheus.NewRegistry()
	s, err := New(cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	in := s.Inlet("test")
	write := func(namespace string, n int, at int64) Appended {
		var batch []Sample
		for i := range n {
			batch = append(batch, Sample{Labels: labels.FromStrings("__name__", "x", "namespace", namespace, "i", strconv.Itoa(i)), T: at, V: 1})
		}
		done, err := in.Append(context.Background(), batch)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if got := write("greedy", 5, 1000); got.Stored != 3 || got.Refused != 2 {
		t.Errorf("greedy: %+v, want 3 stored", got)
	}
	if got := write("modest", 2, 1000); got.Refused != 0 {
		t.Errorf("modest: %+v, want all stored", got)
	}
	if got := write("greedy", 3, 2000); got.Refused != 0 {
		t.Errorf("what greedy has goes on: %+v", got)
	}
	if got := write("", 9, 1000); got.Refused != 0 {
		t.Errorf("without a namespace: %+v", got)
	}
	over := s.Offenders()
	if len(over) != 1 || over[0].Namespace != "greedy" || over[0].Series != 3 || over[0].Refused != 2 || over[0].Last != `{__name__="x", i="3", namespace="greedy"}` {
		t.Errorf("offenders %+v", over)
	}
	if n := testutil.ToFloat64(s.metrics.overrun.WithLabelValues("greedy")); n != 2 {
		t.Errorf("counted %v", n)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	// What was counted is known again after a restart.
	if s, err = New(cfg, slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(context.Background()) }()
	in = s.Inlet("test")
	if got := write("greedy", 4, 3000); got.Stored != 3 || got.Refused != 1 {
		t.Errorf("after a restart: %+v, want the fourth refused", got)
	}
}

func TestWhoComesToAFullStoreIsNamed(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.SeriesLimit = 2 })
	var batch []Sample
	for i, namespace := range []string{"first", "", "late", "late", ""} {
		batch = append(batch, Sample{Labels: labels.FromStrings("__name__", "x", "namespace", namespace, "i", strconv.Itoa(i)), T: 1000, V: 1})
	}
	if got, err := s.Inlet("test").Append(context.Background(), batch); err != nil || got.Stored != 2 || got.Refused != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	if n, none := testutil.ToFloat64(s.metrics.crowded.WithLabelValues("late")), testutil.ToFloat64(s.metrics.crowded.WithLabelValues("(none)")); n != 2 || none != 1 {
		t.Errorf("counted %v of late and %v of no namespace", n, none)
	}
	over := s.Offenders()
	if len(over) != 2 || over[0].Namespace != "" || over[0].Refused != 1 || over[1].Namespace != "late" || over[1].Refused != 2 || over[1].Series != 0 || over[1].All != 2 {
		t.Errorf("offenders %+v", over)
	}
}

// What is counted together has a name that no namespace has.
func TestNoNamespaceIsBlamedForTheRest(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.SeriesLimit = 1 })
	var batch []Sample
	for i := range maxNamed + 11 { // the first is taken
		batch = append(batch, Sample{Labels: labels.FromStrings("__name__", "x", "namespace", "n"+strconv.Itoa(i)), T: 1000, V: 1})
	}
	if _, err := s.Inlet("test").Append(context.Background(), batch); err != nil {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(s.metrics.crowded.WithLabelValues("(others)")); n != 10 || len(s.Offenders()) != maxNamed {
		t.Errorf("%v counted together, %d by name", n, len(s.Offenders()))
	}
}

// The database asks in the middle of an append, which a panic would leave open.
func TestANamespaceThatIsNoTextIsRefusedToo(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.NamespaceLimit = 1 })
	var batch []Sample
	for i := range 3 {
		batch = append(batch, Sample{Labels: labels.FromStrings("__name__", "x", "namespace", "a\xff", "i", strconv.Itoa(i)), T: 1000, V: 1})
	}
	if got, err := s.Inlet("test").Append(context.Background(), batch); err != nil || got.Stored != 1 || got.Refused != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if n := testutil.ToFloat64(s.metrics.overrun.WithLabelValues("a\uFFFD")); n != 2 {
		t.Errorf("%g were counted, want 2", n)
	}
}

// Who was refused a series long ago makes room for who is now, in names and in metrics.
func TestWhoIsRefusedNowIsNamedAlsoAfterManyOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(prometheus.NewRegistry())
		b := newBudget(Config{SeriesLimit: 1}, slog.New(slog.DiscardHandler), m)
		b.open.Store(true)
		b.PostCreation(labels.FromStrings("__name__", "x"))
		refuse := func(namespace string) {
			t.Helper()
			if err := b.PreCreation(labels.FromStrings("__name__", "x", "namespace", namespace)); err == nil {
				t.Fatal("it was taken")
			}
		}
		named := func(namespace string) bool {
			return slices.ContainsFunc(b.offenders(), func(o Offender) bool { return o.Namespace == namespace })
		}
		for i := range maxNamed {
			refuse("n" + strconv.Itoa(i))
			time.Sleep(time.Second)
		}
		refuse("late")
		if named("late") {
			t.Error("late is named while all others are refused series too")
		}
		time.Sleep(quiet - 10*time.Second)
		refuse("n0") // goes on
		refuse("late")
		if !named("late") || !named("n0") || named("n1") || len(b.offenders()) != maxNamed {
			t.Errorf("%d are named: late %v, who goes on %v, who is quiet longest %v", len(b.offenders()), named("late"), named("n0"), named("n1"))
		}
		if n := testutil.CollectAndCount(m.crowded); n != maxNamed+1 { // and the rest
			t.Errorf("%d counted by name", n)
		}
	})
}

func TestNamespacesLeaveRoomForWhatPerchSays(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.SeriesLimit = 200 })
	write := func(namespace string, n int) Appended {
		t.Helper()
		var batch []Sample
		for i := range n {
			batch = append(batch, Sample{Labels: labels.FromStrings("__name__", "x", "namespace", namespace, "i", strconv.Itoa(i)), T: 1000, V: 1})
		}
		got, err := s.Inlet("test").Append(context.Background(), batch)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := write("shop", 300); got.Stored != 196 {
		t.Errorf("a namespace: %+v", got)
	}
	if got := write("", 10); got.Stored != 4 { // that its series are refused can be said
		t.Errorf("the cluster: %+v", got)
	}
}
