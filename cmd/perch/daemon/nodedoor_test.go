package daemon

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/agent/probe"
)

func TestProbesOfPodsThatAreGoneHaveNoSeries(t *testing.T) {
	p := newProbeNumbers()
	stays := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "stays", UID: "1"}}
	again := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "again", UID: "3"}} // the second of its name
	observe := func(r probe.Result) {
		r.Namespace, r.Container, r.Took = "red", "c", time.Millisecond
		p.observe(r)
	}
	observe(probe.Result{Pod: "stays", UID: "1", OK: true})
	observe(probe.Result{Pod: "again", UID: "2"})
	observe(probe.Result{Pod: "again", UID: "3", OK: true})
	observe(probe.Result{Pod: "short", UID: "4", OK: true}) // came and went between two looks
	observe(probe.Result{Pod: "short", UID: "4"})
	for range 2 {
		p.keep([]*corev1.Pod{stays, again})
		if total, took := testutil.CollectAndCount(p.total), testutil.CollectAndCount(p.took); total != 2 || took != 2 {
			t.Errorf("%d counters and %d durations are left, want those of two pods", total, took)
		}
		observe(probe.Result{Pod: "short", UID: "4"}) // its last probe ends late
	}
	p.keep(nil)
	if n := testutil.CollectAndCount(p.reg); n != 0 {
		t.Errorf("%d series without any pod", n)
	}
}
