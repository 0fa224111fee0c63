package source

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestOneAddressLeavesPlacesToOthers(t *testing.T) {
	p := NewPlaces(16)
	a := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, i}) }
	for i := range byte(8) {
		if !p.Take(a(i)) || !p.Take(a(i)) {
			t.Fatalf("address %d has no two places", i)
		}
		if p.Take(a(i)) {
			t.Fatalf("address %d has three places", i)
		}
	}
	if p.Take(a(9)) {
		t.Fatal("a seventeenth place")
	}
	p.Give(a(0))
	if !p.Take(a(9)) || p.Take(a(0)) {
		t.Error("a place that was given back is not free for another one")
	}
	if p = NewPlaces(1); !p.Take(a(0)) || len(p.used) != 1 {
		t.Error("one place is nobody's")
	}
	if p.Give(a(0)); len(p.used) != 0 || p.taken != 0 {
		t.Error("addresses without a place are remembered")
	}
}

func TestASenderWaitsForWhatItOwes(t *testing.T) {
	s, err := New(Limits{Lines: 100, Bytes: 1000, Burst: 10 * time.Second, Known: 2}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		what         string
		sender       string
		after        time.Duration
		lines, bytes int
		want         time.Duration
	}{
		{"a burst is free", "a", 0, 1000, 10, 0},
		{"one more line must wait its time", "a", 0, 100, 0, time.Second},
		{"asking costs nothing", "a", 0, 0, 0, time.Second},
		{"another sender is not held", "b", 0, 10, 0, 0},
		{"time pays the debt", "a", time.Second, 0, 0, 0},
		{"bytes count when they are dearer", "a", time.Second, 1, 3000, 3 * time.Second},
		{"a third sender pushes out the one silent for longest", "c", 2 * time.Second, 1, 1, 0},
		{"who was silent for longest is forgotten", "b", 2 * time.Second, 0, 0, 0},
		{"rest never gives more than a burst", "c", time.Hour, 1001, 0, 10 * time.Millisecond},
	} {
		if got := s.Take("test", c.sender, start.Add(c.after), c.lines, c.bytes); got.Round(time.Millisecond) != c.want {
			t.Errorf("%s: waits %s, want %s", c.what, got, c.want)
		}
	}
	for i := range 100 {
		s.Take("test", fmt.Sprint(i), start, 1, 1)
	}
	if len(s.senders) > 2 {
		t.Errorf("%d senders are remembered, want 2", len(s.senders))
	}
}

func TestWithoutSourcesNobodyWaits(t *testing.T) {
	var s *Sources
	if s.Take("test", "a", time.Now(), 1<<40, 1<<40) != 0 {
		t.Error("a limit where none is set")
	}
}
