package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"perch/metrics/promapi"
)

// Of however many nodes, a query holds as many values as it may, asks few at once, and
// says what it lacks.
func TestSecondsOfManyNodesAreBounded(t *testing.T) {
	doors := map[string]string{}
	for i := range 100 {
		doors[fmt.Sprintf("n%02d", i)] = "x"
	}
	turns := make(chan struct{}, secondsAtOnce)
	var now, most, asked atomic.Int32
	list, missing := gatherSeconds(t.Context(), doors, turns, func(_ context.Context, node string) ([]promapi.Second, error) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		asked.Add(1)
		if node == "n07" {
			return nil, errors.New("it is away")
		}
		return []promapi.Second{{T: make([]int64, 180_000), V: make([]float64, 180_000)}}, nil
	})
	values := 0
	for _, s := range list {
		values += len(s.T)
	}
	if values > secondsValues || values < secondsValues-180_000 || most.Load() > secondsAtOnce || asked.Load() > 6+secondsAtOnce+1 {
		t.Errorf("%d values, %d nodes at once, %d asked", values, most.Load(), asked.Load())
	}
	if n := len(missing); n == 0 || !strings.Contains(missing[n-1], "more than the 1000000 that one query takes") || len(turns) != 0 {
		t.Errorf("missing %q", missing)
	}
	list, missing = gatherSeconds(t.Context(), map[string]string{"a": "", "b": ""}, turns, func(_ context.Context, node string) ([]promapi.Second, error) {
		if node == "b" {
			return nil, errors.New("it is away")
		}
		return []promapi.Second{{T: []int64{1}, V: []float64{1}}}, nil
	})
	if len(list) != 1 || len(missing) != 1 || missing[0] != "b" {
		t.Errorf("%v, missing %v", list, missing)
	}
}
