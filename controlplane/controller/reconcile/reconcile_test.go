package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

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
