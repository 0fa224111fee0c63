package daemon

import (
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTheFirstListOfEventsIsStoredInItsOrder: the position that is stored with an
// event must say that those before it are stored too.
func TestTheFirstListOfEventsIsStoredInItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := make(chan *corev1.Event)
		var handed atomic.Bool
		event := func(version int) *corev1.Event {
			return &corev1.Event{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(version)}}
		}
		go func() {
			for _, v := range []int{9, 4, 7} {
				queue <- event(v)
			}
			time.Sleep(20 * eventsWindow) // more of the list is to come
			queue <- event(5)
			handed.Store(true)
			time.Sleep(20 * eventsWindow)
			queue <- event(12)
		}()
		for _, want := range [][]int64{{5, 7, 9}, {12}} {
			var got []int64
			for _, e := range eventsAfter(4, gatherEvents(t.Context(), queue, handed.Load)) {
				got = append(got, e.version)
			}
			if !slices.Equal(got, want) {
				t.Errorf("stored together: %v, want %v", got, want)
			}
		}
	})
}

func TestLongEventsAreStoredFewAtOnce(t *testing.T) {
	for _, c := range []struct {
		what      string
		n, length int // events and bytes of each
		want      []int
	}{
		{"short ones", eventsAtOnce + 1, 100, []int{eventsAtOnce, 1}},
		{"long ones", 9, 250_000, []int{4, 4, 1}},
		{"longer than a batch", 2, 2 << 20, []int{1, 1}},
	} {
		event := &corev1.Event{Message: strings.Repeat("x", c.length), InvolvedObject: corev1.ObjectReference{Name: strings.Repeat("n", 50)}}
		var got []int
		for rest := slices.Repeat([]versionedEvent{{event, 1}}, c.n); len(rest) > 0; {
			n := atOnce(rest)
			got, rest = append(got, n), rest[n:]
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
