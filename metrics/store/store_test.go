package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

func open(t testing.TB, dir string, change func(*Config)) *Store {
	t.Helper()
	cfg := Default()
	cfg.Dir = dir
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func series(name string, i int) labels.Labels {
	return labels.FromStrings("__name__", name, "i", strconv.Itoa(i))
}

// read returns "labels: v@t v@t" per series, sorted.
func read(t testing.TB, s *Store, name string) []string {
	t.Helper()
	q, err := s.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name))
	var out []string
	for set.Next() {
		line := set.At().Labels().Get("i") + ":"
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			at, v := it.At()
			line += fmt.Sprintf(" %g@%d", v, at)
		}
		out = append(out, line)
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}

func TestSamplesComeBackAfterReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	now := time.Now().UnixMilli()
	in := s.Inlet("test")
	for k := range int64(3) {
		done, err := in.Append(t.Context(), []Sample{{7, series("a", 0), now + k, float64(k)}, {8, series("a", 1), now + k, 1}})
		if err != nil || done != (Appended{Stored: 2}) {
			t.Fatal(done, err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(read(t, open(t, dir, nil), "a"), "\n")
	want := fmt.Sprintf("0: 0@%d 1@%d 2@%d\n1: 1@%d 1@%d 1@%d", now, now+1, now+2, now, now+1, now+2)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAStoreWhoseClockWasAheadSaysUntilWhenItTakesNothing(t *testing.T) {
	now := time.Now()
	s := open(t, t.TempDir(), nil)
	worker := open(t, t.TempDir(), func(c *Config) { c.OutOfOrder = 10 * time.Minute })
	if until := s.Stopped(now); !until.IsZero() {
		t.Errorf("without samples it takes nothing until %s", until)
	}
	in := s.Inlet("test")
	put := func(at time.Time) Appended {
		t.Helper()
		got, err := in.Append(t.Context(), []Sample{{0, series("a", int(at.Unix())), at.UnixMilli(), 1}})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	put(now)
	for _, at := range []time.Time{now.Add(-s.cfg.OutOfOrder / 2), now, now.Add(time.Hour)} {
		if until := s.Stopped(at); !until.IsZero() {
			t.Errorf("at %s it takes nothing until %s", at, until)
		}
	}
	app := worker.Appender(t.Context())
	if _, err := app.Append(0, series("a", 0), now.Add(20*time.Minute).UnixMilli(), 1); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := worker.Inlet("test").Append(t.Context(), []Sample{{0, series("a", 1), now.UnixMilli(), 1}})
	if until := worker.Stopped(now); err != nil || got.Stored != 1 || !until.IsZero() {
		t.Errorf("a new series of a worker: %+v, %v; it takes nothing until %s", got, err, until)
	}
	app = s.Appender(t.Context()) // as of an hour when the clock was a day ahead
	if _, err := app.Append(0, series("a", 0), now.Add(24*time.Hour).UnixMilli(), 1); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := put(now.Add(time.Second)); got.Stored != 0 {
		t.Fatalf("a sample of now: %+v", got)
	}
	if until, want := s.Stopped(now), now.Add(24*time.Hour-s.cfg.OutOfOrder).Truncate(time.Millisecond); !until.Equal(want) {
		t.Errorf("until %s, want %s", until, want)
	}
}

func TestRefusedSamplesAreCountedAndTheRestIsStored(t *testing.T) {
	now := time.Now().UnixMilli()
	hour := time.Hour.Milliseconds()
	for _, c := range []struct {
		name   string
		batch  []Sample
		want   Appended
		reason string
	}{
		{"a sample older than the window", []Sample{{1, series("a", 0), now - 3*hour, 1}, {2, series("a", 1), now, 1}}, Appended{Stored: 1, Refused: 1}, "too_old"},
		{"a sample of a clock that is ahead", []Sample{{1, series("a", 0), now + hour, 1}, {2, series("a", 1), now + hour/12, 1}}, Appended{Stored: 1, Refused: 1, Ahead: 1}, "too_new"},
		{"another value for the same time", []Sample{{1, series("a", 9), now, 2}, {2, series("a", 1), now, 1}}, Appended{Stored: 1, Refused: 1}, "conflict"},
		{"a series without labels", []Sample{{1, labels.EmptyLabels(), now, 2}, {2, series("a", 1), now, 1}}, Appended{Stored: 1, Refused: 1}, "invalid"},
		{"the same sample again", []Sample{{1, series("a", 9), now, 1}}, Appended{Stored: 1, Refused: 0}, ""},
		{"a late sample inside the window", []Sample{{1, series("a", 9), now - hour, 1}}, Appended{Stored: 1, Refused: 0}, ""},
		{"one series more than allowed", []Sample{{1, series("b", 1), now, 1}, {2, series("b", 2), now, 1}, {3, series("b", 3), now, 1}}, Appended{Stored: 2, Refused: 1}, "series_limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir(), func(c *Config) { c.SeriesLimit = 3 })
			in := s.Inlet("test")
			if _, err := in.Append(t.Context(), []Sample{{0, series("a", 9), now, 1}}); err != nil {
				t.Fatal(err)
			}
			got, err := in.Append(t.Context(), c.batch)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
			if c.reason != "" && testutil.ToFloat64(s.metrics.refused.WithLabelValues(c.reason)) != 1 {
				t.Errorf("refusal for %q not counted", c.reason)
			}
		})
	}
}

func TestAStaleMarkerFreesTheReference(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	in := s.Inlet("test")
	now := time.Now().UnixMilli()
	_, err := in.Append(t.Context(), []Sample{{1, series("a", 0), now, 1}})
	if err != nil || len(in.refs) != 1 {
		t.Fatal(err, in.refs)
	}
	_, err = in.Append(t.Context(), []Sample{{1, series("a", 0), now + 1, math.Float64frombits(value.StaleNaN)}})
	if err != nil || len(in.refs) != 0 {
		t.Fatal(err, in.refs)
	}
}

func TestASecondInstanceIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, nil)
	cfg := Default()
	cfg.Dir = dir
	if _, err := New(cfg, slog.New(slog.DiscardHandler), nil); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

func TestADamagedWALIsRepairedAndReported(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	now := time.Now().UnixMilli()
	in := s.Inlet("test")
	for k := range int64(100) {
		if _, err := in.Append(t.Context(), []Sample{{1, series("a", 0), now + k, float64(k)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	segment := filepath.Join(dir, "wal", "00000000")
	text, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	for k := 1000; k < 1010; k++ {
		text[k] ^= 0xff
	}
	if err := os.WriteFile(segment, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	if !s.Repaired() || testutil.ToFloat64(s.metrics.repairs) != 1 {
		t.Error("repair not reported")
	}
	if got := read(t, s, "a"); len(got) != 1 || !strings.Contains(got[0], "@") {
		t.Errorf("samples before the damage are gone: %v", got)
	}
}

func TestCommittedSamplesSurviveKill(t *testing.T) {
	if dir := os.Getenv("PERCH_STORE_VICTIM"); dir != "" {
		victim(t, dir)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCommittedSamplesSurviveKill$")
	cmd.Env = append(os.Environ(), "PERCH_STORE_VICTIM="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for scan := bufio.NewScanner(out); scan.Scan(); {
		if n, err := strconv.ParseInt(scan.Text(), 10, 64); err == nil {
			last = n
		}
		if last >= 500 {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if last < 500 {
		t.Fatalf("victim committed only %d", last)
	}
	got := read(t, open(t, dir, nil), "a")
	if len(got) != 20 {
		t.Fatalf("%d series survived", len(got))
	}
	for _, line := range got {
		if n := int64(strings.Count(line, "@")); n < last {
			t.Errorf("%d of %d committed samples survived", n, last)
		}
	}
}

// victim commits batches and says so until it is killed.
func victim(t *testing.T, dir string) {
	s := open(t, dir, nil)
	in := s.Inlet("test")
	start := time.Now().UnixMilli()
	for k := int64(1); ; k++ {
		var batch []Sample
		for i := range 20 {
			batch = append(batch, Sample{uint64(i + 1), series("a", i), start + k, float64(k)})
		}
		if _, err := in.Append(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString(strconv.FormatInt(k, 10) + "\n")
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir(), nil)
	in := s.Inlet("bench")
	batch := make([]Sample, 15_000)
	for i := range batch {
		batch[i] = Sample{uint64(i + 1), series("a", i), 0, 0}
	}
	now := time.Now().UnixMilli()
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		now += 5000
		for i := range batch {
			batch[i].T, batch[i].V = now, float64(now+int64(i))
		}
		if _, err := in.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpu()-began).Seconds()/float64(b.N*len(batch))*1e6, "cpu-s/Msample")
}

// cpu is what this process has used by now: it holds on a busy machine.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestTheReplayThatIsToldIsTheOneThatWas(t *testing.T) {
	dir := t.TempDir()
	for range 3 { // each opening begins a segment
		s := open(t, dir, func(*Config) {})
		if _, err := s.Inlet("test").Append(t.Context(), []Sample{{Labels: series("m", 0), T: time.Now().UnixMilli(), V: 1}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, func(*Config) {})
	first, last, err := wlog.Segments(filepath.Join(dir, "wal"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.WALReplayStatus(); err != nil || got.Min != first || got.Max != last || got.Current != last || last < 3 {
		t.Errorf("told %d to %d, at %d, %v; segments are %d to %d", got.Min, got.Max, got.Current, err, first, last)
	}
}
