package share

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/prometheus/model/labels"
)

// Replication is in how many stores a series is: in the server's, and in one of
// those that Places knows.
const Replication = 2

// tokens of a store in the ring: with 128 stores differ by a few per cent in what
// they get.
const tokens = 128

// Places says in which of the further stores a series is: dskit's ring over a set
// that does not change. The same names always give the same places.
type Places struct{ ring *ring.Ring }

// NewPlaces needs a name or more.
func NewPlaces(names []string) (*Places, error) {
	if len(names) == 0 {
		return nil, errors.New("place series: there is no store")
	}
	desc := ring.NewDesc()
	for _, n := range names {
		h := fnv.New64a()
		_, _ = h.Write([]byte(n)) // cannot fail
		own := ring.NewRandomTokenGeneratorWithSeed(int64(h.Sum64())).GenerateTokens(tokens, nil)
		desc.AddIngester(n, n, "", own, ring.ACTIVE, time.Time{}, false, time.Time{}, nil)
	}
	// Who is away keeps its place, so no heartbeat is too old.
	r, err := ring.NewWithStoreClientAndStrategy(ring.Config{HeartbeatTimeout: math.MaxInt64, ReplicationFactor: Replication - 1, SubringCacheDisabled: true},
		"series", "series", fixed{desc}, ring.NewIgnoreUnhealthyInstancesReplicationStrategy(), nil, log.NewNopLogger())
	if err != nil {
		return nil, fmt.Errorf("place series: %w", err)
	}
	// It reads its members when it starts, and needs nothing running after.
	if err := services.StartAndAwaitRunning(context.Background(), r); err != nil {
		return nil, fmt.Errorf("place series: %w", err)
	}
	if err := services.StopAndAwaitTerminated(context.Background(), r); err != nil {
		return nil, fmt.Errorf("place series: %w", err)
	}
	return &Places{r}, nil
}

var anyOperation = ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil)

// Of names the store of a series.
func (p *Places) Of(l labels.Labels) string {
	h := labels.StableHash(l)
	set, err := p.ring.Get(uint32(h>>32)^uint32(h), anyOperation, nil, nil, nil)
	if err != nil || len(set.Instances) == 0 {
		panic(fmt.Sprintf("BUG: no place for a series: %v", err)) // all are healthy for ever
	}
	return set.Instances[0].Id
}

// fixed is a key-value store with one value that stays.
type fixed struct{ desc *ring.Desc }

func (f fixed) List(context.Context, string) ([]string, error) { return nil, nil }
func (f fixed) Get(context.Context, string) (any, error)       { return f.desc, nil }
func (f fixed) Delete(context.Context, string) error           { return nil }
func (f fixed) CAS(context.Context, string, func(any) (any, bool, error)) error {
	return nil
}
func (f fixed) WatchKey(ctx context.Context, _ string, _ func(any) bool) { <-ctx.Done() }
func (f fixed) WatchPrefix(ctx context.Context, _ string, _ func(string, any) bool) {
	<-ctx.Done()
}
