package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestAFailingKeyComesBackUntilItSucceedsAndTermsCanBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		factory := informers.NewSharedInformerFactory(fake.NewClientset(node), 0)
		var calls []Key
		c := &Controller{
			Name:    "test",
			Sources: []Source{{Informer: factory.Core().V1().Nodes().Informer()}},
			Reconcile: func(_ context.Context, key Key) (time.Duration, error) {
				calls = append(calls, key)
				if len(calls)%3 != 0 {
					return 0, errors.New("not yet")
				}
				return 0, nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		for term := range 2 {
			termCtx, end := context.WithCancel(ctx)
			done := make(chan error, 1)
			go func() { done <- c.Run(termCtx, slog.New(slog.DiscardHandler), NewMetrics(nil)) }()
			<-time.After(time.Minute) // bubble time
			end()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if want := 3 * (term + 1); len(calls) != want {
				t.Fatalf("term %d: %d calls, want %d", term, len(calls), want)
			}
		}
		cancel()
		factory.Shutdown()
		synctest.Wait()
	})
}

func TestQueuesAreCountedUnderKubeControllerManagersNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		factory := informers.NewSharedInformerFactory(fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}), 0)
		hold, failed := make(chan struct{}), false
		c := &Controller{
			Name:    "test",
			Sources: []Source{{Informer: factory.Core().V1().Nodes().Informer()}},
			Reconcile: func(context.Context, Key) (time.Duration, error) {
				if !failed {
					failed = true
					return 0, errors.New("not yet")
				}
				<-hold
				return 0, nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		reg := prometheus.NewRegistry()
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, slog.New(slog.DiscardHandler), NewMetrics(reg)) }()
		<-time.After(10 * time.Second)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if strings.HasPrefix(f.GetName(), "workqueue_") && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetName() == "name" && m.GetLabel()[0].GetValue() == "test" {
					have[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		for name, want := range map[string]float64{
			"workqueue_adds_total": 2, "workqueue_retries_total": 1, "workqueue_depth": 0,
			"workqueue_queue_duration_seconds": 2, "workqueue_work_duration_seconds": 1,
		} {
			if have[name] != want {
				t.Errorf("%s is %g, want %g", name, have[name], want)
			}
		}
		for _, name := range []string{"workqueue_unfinished_work_seconds", "workqueue_longest_running_processor_seconds"} {
			if have[name] < 9 {
				t.Errorf("%s is %g, want more than 9: the second try is under way", name, have[name])
			}
		}
		close(hold)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		factory.Shutdown()
		synctest.Wait()
	})
}

func TestExpectations(t *testing.T) {
	now := time.Unix(0, 0)
	key := Key{Namespace: "a", Name: "b"}
	e := NewExpectations()
	if !e.Met(now, key) {
		t.Error("nothing expected is met")
	}
	e.ExpectCreates(now, key, 2)
	e.ExpectDeletes(now, key, "x")
	e.Created(key)
	e.Deleted(key, "x")
	if e.Met(now, key) {
		t.Error("one create is still missing")
	}
	e.Created(key)
	if !e.Met(now, key) {
		t.Error("all came back")
	}
	e.ExpectDeletes(now, key, "y")
	if e.Met(now, key) || !e.Met(now.Add(6*time.Minute), key) {
		t.Error("a lost echo holds back for five minutes, not longer")
	}
}
