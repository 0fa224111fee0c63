package remote_test

import (
	"context"
	"maps"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	upstream "github.com/prometheus/prometheus/storage/remote"

	"perch/metrics/family"
	"perch/metrics/remote"
	"perch/metrics/store"
)

// noted is a store that notes what comes with series.
type noted struct {
	*store.Store
	mu   sync.Mutex
	seen map[string]metadata.Metadata // by labels
}

func (n *noted) Appender(ctx context.Context) storage.Appender {
	return notes{n.Store.Appender(ctx), n}
}

type notes struct {
	storage.Appender
	of *noted
}

func (a notes) UpdateMetadata(ref storage.SeriesRef, l labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.of.seen[l.String()] = m
	return ref, nil
}

// runs runs a sender until the test ends.
func runs(t *testing.T, s *remote.Sender) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
}

// TestReceiversOfVersionTwoHaveTypeHelpAndUnitBesideEachSeries asks Prometheus'
// own receiver.
func TestReceiversOfVersionTwoHaveTypeHelpAndUnitBesideEachSeries(t *testing.T) {
	to := &noted{Store: openStore(t), seen: map[string]metadata.Metadata{}}
	door := httptest.NewServer(upstream.NewWriteHandler(quiet, prometheus.NewRegistry(), to, remoteapi.MessageTypes{remoteapi.WriteV2MessageType}, false, false, true))
	t.Cleanup(door.Close)
	var mu sync.Mutex
	told := []family.Told{
		{Source: family.Source{Namespace: family.Everyone}, Families: []family.Family{{Name: "x_total", Type: "counter", Help: "X of perch."}}},
		{Source: family.Source{Namespace: "blue", Job: "a"}, Families: []family.Family{{Name: "x_total", Type: "gauge", Help: "X of blue.", Unit: "bytes"}}},
		{Source: family.Source{Namespace: "red", Job: "a"}, Families: []family.Family{{Name: "x_total", Type: "counter", Help: "X of red."},
			{Name: "took_seconds", Type: "histogram", Help: "Time.", Unit: "seconds"}, {Name: "orders", Type: "counter", Help: "Orders."}, {Name: "load", Type: "gauge"}}},
	}
	from := openStore(t)
	s := remote.New(from, func() []family.Told {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}, quiet, prometheus.NewRegistry())
	from.OnCommit(s)
	if err := s.Apply("remote_write:\n- url: " + door.URL + "\n  protobuf_message: io.prometheus.write.v2.Request\n  metadata_config: {send_interval: 1s}\n" +
		"  queue_config: {batch_send_deadline: 50ms}\n"); err != nil {
		t.Fatal(err)
	}
	runs(t, s)
	series := func(pairs ...string) string { return labels.FromStrings(pairs...).String() }
	want := map[string]metadata.Metadata{
		series("__name__", "x_total", "namespace", "red", "job", "a"):                        {Type: "counter", Help: "X of red."},
		series("__name__", "x_total", "namespace", "blue", "job", "a"):                       {Type: "gauge", Help: "X of blue.", Unit: "bytes"},
		series("__name__", "x_total", "node", "n1"):                                          {Type: "counter", Help: "X of perch."},
		series("__name__", "took_seconds_bucket", "namespace", "red", "job", "a", "le", "1"): {Type: "histogram", Help: "Time.", Unit: "seconds"},
		series("__name__", "took_seconds_sum", "namespace", "red", "job", "a"):               {Type: "histogram", Help: "Time.", Unit: "seconds"},
		series("__name__", "orders_total", "namespace", "red", "job", "a"):                   {Type: "counter", Help: "Orders."},
		series("__name__", "load", "namespace", "red", "job", "a"):                           {Type: "gauge"},
		series("__name__", "load_sum", "namespace", "red", "job", "a"):                       {Type: "unknown"}, // a gauge has no sum
		series("__name__", "late", "namespace", "red"):                                       {Type: "unknown"},
	}
	all := [][]string{{"__name__", "x_total", "namespace", "red", "job", "a"}, {"__name__", "x_total", "namespace", "blue", "job", "a"}, {"__name__", "x_total", "node", "n1"},
		{"__name__", "took_seconds_bucket", "namespace", "red", "job", "a", "le", "1"}, {"__name__", "took_seconds_sum", "namespace", "red", "job", "a"},
		{"__name__", "orders_total", "namespace", "red", "job", "a"}, {"__name__", "load", "namespace", "red", "job", "a"}, {"__name__", "load_sum", "namespace", "red", "job", "a"}, {"__name__", "late", "namespace", "red"}}
	agree := func() {
		t.Helper()
		var have map[string]metadata.Metadata
		for end := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
			for _, pairs := range all {
				number(from, t, 1, pairs...)
			}
			to.mu.Lock()
			have = maps.Clone(to.seen)
			to.mu.Unlock()
			if maps.Equal(have, want) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the receiver has\n%v, want\n%v", have, want)
			}
		}
	}
	agree()
	mu.Lock() // a family that is known later
	told = append(told, family.Told{Source: family.Source{Namespace: "red"}, Families: []family.Family{{Name: "late", Type: "info", Help: "Late."}}})
	mu.Unlock()
	want[series("__name__", "late", "namespace", "red")] = metadata.Metadata{Type: "info", Help: "Late."}
	agree()
}
