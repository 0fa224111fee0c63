package daemon

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

func TestAServerThatHasJustBegunSaysWhatItsAnswersLack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
		began := time.Now()
		l := newLacking("s1", f, began.Add(-time.Minute).UnixMilli(), began)
		var synced, refuses bool
		l.synced = []cache.InformerSynced{func() bool { return true }, func() bool { return synced }}
		l.gather = func(context.Context) error {
			if refuses {
				return errors.New("no room")
			}
			return nil
		}
		var until time.Time
		l.stopped = func(time.Time) time.Time { return until }
		silent := []string{"n1"}
		l.silent = func(want []string, _ time.Time, _ time.Duration) []string {
			return slices.DeleteFunc(slices.Clone(want), func(n string) bool { return !slices.Contains(silent, n) })
		}
		for _, n := range []string{"s1", "n1", "n2"} {
			if err := f.Core().V1().Nodes().Informer().GetIndexer().Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}}); err != nil {
				t.Fatal(err)
			}
		}
		lacks := func(about, want string) {
			t.Helper()
			if got := strings.Join(l.now(t.Context()), ", "); got != want {
				t.Errorf("%s: %q is lacking, want %q", about, got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			_ = l.run(ctx) // nil always
			close(ended)
		}()
		waited := make(chan time.Duration, 1)
		go func() {
			l.wait(ctx, firstEvaluation, slog.New(slog.DiscardHandler))
			waited <- time.Since(began)
		}()
		time.Sleep(10 * time.Second)
		lacks("objects are not read", unreadObjects)
		synced, refuses = true, true
		time.Sleep(time.Second)
		lacks("their state is not stored", unreadObjects)
		refuses = false
		time.Sleep(time.Second)
		lacks("one worker has not sent", "n1")
		silent = nil
		time.Sleep(time.Second)
		lacks("all is there", "")
		until = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
		lacks("the clock was set back", "the store of this server, which takes none until 2026-11-23T10:00:00Z: its clock was ahead, or is behind now")
		if d := <-waited; d < 12*time.Second || d > 13*time.Second {
			t.Errorf("rules waited for %s", d)
		}
		cancel()
		<-ended
	})
}

func TestAfterALongOutageAServersOwnNumbersAreMissingForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			newest time.Duration // before now; 0: none
			few    time.Duration
		}{{0, 0}, {time.Minute, 0}, {5 * time.Minute, fewSamples}, {time.Hour, fewSamples}} {
			began, newest := time.Now(), int64(math.MinInt64)
			if c.newest > 0 {
				newest = began.Add(-c.newest).UnixMilli()
			}
			l := newLacking("s1", informers.NewSharedInformerFactory(fake.NewClientset(), 0), newest, began)
			l.silent = func([]string, time.Time, time.Duration) []string { return nil }
			l.stopped = func(time.Time) time.Time { return time.Time{} }
			l.sampled.Store(true)
			if got := l.now(t.Context()); (len(got) == 1 && got[0] == "s1") != (c.few > 0) {
				t.Errorf("%s away: %v is lacking", c.newest, got)
			}
			l.wait(t.Context(), firstEvaluation, slog.New(slog.DiscardHandler))
			if d := time.Since(began); d < c.few || d > c.few+time.Second {
				t.Errorf("%s away: rules waited for %s", c.newest, d)
			}
		}
	})
}

func TestRulesDoNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLacking("s1", informers.NewSharedInformerFactory(fake.NewClientset(), 0), math.MinInt64, time.Now())
		began := time.Now()
		l.wait(t.Context(), firstEvaluation, slog.New(slog.DiscardHandler)) // the API does not answer
		if d := time.Since(began); d != firstEvaluation {
			t.Errorf("they waited for %s", d)
		}
	})
}
