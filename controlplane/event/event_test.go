package event

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func pod(name string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: name, UID: "u-" + "1"}
}

func TestRepeatedFactsBecomeOneEventWithACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		r, err := New(Default(), client.CoreV1(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _ = r.Run(ctx) }()
		for range 3 {
			r.Tell(Record{Component: "scheduler", Object: pod("a"), Type: Warning, Reason: "FailedScheduling", Message: "0/1 nodes are available"})
		}
		r.Tell(Record{Component: "scheduler", Object: pod("a"), Reason: "Scheduled", Message: "bound"})
		synctest.Wait()
		list, err := client.CoreV1().Events("shop").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string]int32{}
		for _, e := range list.Items {
			counts[e.Reason] = e.Count
		}
		if len(list.Items) != 2 || counts["FailedScheduling"] != 3 || counts["Scheduled"] != 1 {
			t.Errorf("have %v in %d events, want FailedScheduling 3 and Scheduled 1 in 2", counts, len(list.Items))
		}
		if got := testutil.ToFloat64(r.metrics.told.WithLabelValues("FailedScheduling", Warning)); got != 3 {
			t.Errorf("perch_events_total is %v, want 3", got)
		}
		cancel()
		synctest.Wait()
	})
}

func TestAFullQueueDropsTheObjectAndCountsIt(t *testing.T) {
	cfg := Default()
	cfg.Queue = 1
	r, err := New(cfg, fake.NewClientset().CoreV1(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.Tell(Record{Object: pod("a"), Reason: "R"})
	}
	if got := testutil.ToFloat64(r.metrics.dropped.WithLabelValues("queue_full")); got != 2 {
		t.Errorf("dropped %v, want 2", got)
	}
}

func TestBucket(t *testing.T) {
	start := time.Unix(0, 0)
	var b bucket
	var ok bool
	for i := range 3 {
		if b, ok = b.take(start, 2, time.Minute); ok != (i < 2) {
			t.Fatalf("take %d: allowed %v", i, ok)
		}
	}
	if _, ok = b.take(start.Add(time.Minute), 2, time.Minute); !ok {
		t.Error("a minute later one more must be allowed")
	}
}

func TestLongMessagesAndNamesAreCut(t *testing.T) {
	if got := cut(strings.Repeat("é", 2000)); len(got) > messageLimitBytes || !strings.HasSuffix(got, "...") {
		t.Errorf("cut to %d bytes", len(got))
	}
	o := objectOf(time.Unix(1, 0), Record{Object: corev1.ObjectReference{Kind: "Node", Name: strings.Repeat("n", 300)}}, "", 7)
	if len(o.Name) > nameLimitBytes || o.Namespace != metav1.NamespaceDefault {
		t.Errorf("name of %d bytes in %q", len(o.Name), o.Namespace)
	}
}
