package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type world struct {
	mu    sync.Mutex
	out   [][]Alert
	turns []Transition
	asked []string
	slow  time.Duration
	fail  error
}

func (w *world) sources() Sources {
	wait := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.slow):
			return w.fail
		}
	}
	return Sources{
		Lines: func(ctx context.Context, query string, _, to time.Time, limit int) ([]Line, error) {
			w.mu.Lock()
			w.asked = append(w.asked, query)
			w.mu.Unlock()
			if err := wait(ctx); err != nil {
				return nil, err
			}
			var out []Line
			for i := range limit {
				out = append(out, Line{to.Add(time.Duration(i-limit) * time.Second), fmt.Sprintf("line %d of %s", i, query)})
			}
			return out, nil
		},
		Values: func(ctx context.Context, expr string, _ time.Time) ([]Value, error) {
			if err := wait(ctx); err != nil {
				return nil, err
			}
			l := map[string]string{}
			if strings.HasPrefix(expr, "kube_pod_owner") {
				l = map[string]string{"namespace": "shop", "owner_kind": "ReplicaSet", "owner_name": "web-5d"}
			}
			if strings.HasPrefix(expr, "kube_replicaset_owner") {
				l = map[string]string{"owner_kind": "Deployment", "owner_name": "web"}
			}
			return []Value{{l, 64 << 20}}, nil
		},
	}
}

func run(t *testing.T, w *world, before []Alert, cfg func(*Config)) (*Courier, func()) {
	t.Helper()
	page, err := url.Parse("https://perch.example:9443")
	if err != nil {
		t.Fatal(err)
	}
	conf := Default(page)
	if cfg != nil {
		cfg(&conf)
	}
	c := New(conf, w.sources(), before, func(_ context.Context, in ...Alert) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.out = append(w.out, in)
		return nil
	}, func(_ context.Context, turn Transition) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.turns = append(w.turns, turn)
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func crash(pod string, ends time.Duration) Alert {
	return Alert{Labels: map[string]string{"alertname": "Crash", "namespace": "shop", "pod": pod, "container": "web"}, Annotations: map[string]string{"summary": "it ended"},
		Starts: time.Now(), Ends: time.Now().Add(ends)}
}

func TestAnAlertCarriesItsEvidenceToItsEndAndIsNotedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		c, stop := run(t, w, nil, nil)
		first := crash("web-1", time.Hour)
		for _, a := range []Alert{first, first} { // the second is the reminder each minute
			if err := c.Send(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		<-time.After(time.Minute)
		end := first
		end.Ends = time.Now()
		if err := c.Send(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		if len(w.out) != 3 || len(w.turns) != 2 || !w.turns[0].Firing || w.turns[1].Firing {
			t.Fatalf("handed on %d, noted %+v", len(w.out), w.turns)
		}
		for _, batch := range w.out {
			a := batch[0].Annotations
			size := 0
			for k, v := range a {
				size += len(k) + len(v)
			}
			if size > 8<<10 {
				t.Errorf("%d bytes of annotations", size)
			}
			for note, want := range map[string]string{
				"summary": "it ended", noteLines: "line 19 of kind:log", noteEvents: "kind:event", noteChanges: "Deployment/web",
				noteValues: "memory 64Mi", noteLink: "https://perch.example:9443/pods/shop/web-1?", noteLogs: "container%3A%22web%22",
			} {
				if !strings.Contains(a[note], want) {
					t.Errorf("%s = %q, want %q", note, a[note], want)
				}
			}
		}
		if first.Annotations[noteLines] != "" {
			t.Error("changed the rules' own map")
		}
	})
}

func TestSlowOrBrokenSourcesDelayAnAlertByTheDeadlineAtMost(t *testing.T) {
	for name, w := range map[string]*world{"slow": {slow: time.Hour}, "broken": {fail: errors.New("disk is gone")}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, stop := run(t, w, nil, nil)
				began := time.Now()
				if err := c.Send(t.Context(), crash("web-1", time.Hour)); err != nil {
					t.Fatal(err)
				}
				<-time.After(c.cfg.Look + time.Millisecond)
				synctest.Wait()
				w.mu.Lock()
				if len(w.out) != 1 || w.out[0][0].Annotations[noteLink] == "" || w.out[0][0].Annotations[noteMissing] == "" {
					t.Errorf("after %s: %+v", time.Since(began), w.out)
				}
				w.mu.Unlock()
				stop()
			})
		})
	}
}

func TestAStormGoesOutWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{slow: 10 * time.Millisecond}
		c, stop := run(t, w, nil, func(c *Config) { c.Known, c.Queue = 50, 8 })
		var storm []Alert
		for i := range 100 {
			storm = append(storm, crash(fmt.Sprint("web-", i), time.Hour))
		}
		if err := c.Send(t.Context(), storm...); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		stop()
		if len(w.out) != 1 || len(w.out[0]) != 100 {
			t.Fatalf("handed on %d", len(w.out))
		}
		with := 0
		for _, a := range w.out[0] {
			if a.Annotations[noteLines] != "" {
				with++
			}
		}
		if with != c.cfg.Batch || len(w.turns) != c.cfg.Known {
			t.Errorf("%d with lines, %d noted", with, len(w.turns))
		}
	})
}

func TestWhatFiredBeforeARestartBeginsNoSecondTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		old := crash("web-1", time.Hour)
		old.Annotations = map[string]string{noteLines: "as it was"}
		c, stop := run(t, w, []Alert{old}, nil)
		if err := c.Send(t.Context(), crash("web-1", time.Hour)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		if len(w.turns) != 0 || len(w.out) != 1 || w.out[0][0].Annotations[noteLines] != "as it was" {
			t.Errorf("noted %v, handed on %+v", w.turns, w.out)
		}
	})
}

func TestAnAlertThatIsNotToldAnyMoreHasEndedAndMayBeginAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		before := crash("web-1", 2*time.Minute)
		before.Annotations = map[string]string{noteLines: "as it was"}
		c, stop := run(t, w, []Alert{before}, nil)
		began := time.Now()
		send := func(a Alert) {
			t.Helper()
			if err := c.Send(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		send(crash("web-2", time.Minute))
		<-time.After(50 * time.Second)
		send(crash("web-2", 4*time.Minute)) // it is told again, so it goes on
		<-time.After(10 * time.Minute)
		send(crash("web-1", time.Hour))
		stop()
		var got []string
		for _, x := range w.turns {
			got = append(got, fmt.Sprint(x.Labels["pod"], " ", x.Firing, " ", x.At.Sub(began)))
		}
		if want := "web-2 true 0s, web-1 false 2m0s, web-2 false 4m50s, web-1 true 10m50s"; strings.Join(got, ", ") != want {
			t.Errorf("noted %s, want %s", strings.Join(got, ", "), want)
		}
		if last := w.out[len(w.out)-1][0].Annotations[noteLines]; last == "as it was" || last == "" {
			t.Errorf("the second time it has the lines %q", last)
		}
	})
}
