package daemon

import (
	"testing"

	metricstore "perch/metrics/store"
)

func TestEventsOfRefusedSeriesSayWhichLimit(t *testing.T) {
	for _, c := range []struct {
		o             metricstore.Offender
		kind, message string
	}{
		{metricstore.Offender{Namespace: "shop", Series: 3, Refused: 2, Last: "{x}"}, "Namespace",
			"node n1 keeps 3 series of this namespace, as many as it may; 2 new ones were refused, the last {x}"},
		{metricstore.Offender{Namespace: "shop", Series: 3, Refused: 2, Last: "{x}", All: 9}, "Namespace",
			"node n1 keeps 9 series, as many as it may; 2 new ones of this namespace were refused, the last {x}"},
		{metricstore.Offender{Refused: 2, Last: "{x}", All: 9}, "Node",
			"node n1 keeps 9 series, as many as it may; 2 new ones of no namespace were refused, the last {x}"},
	} {
		if e := seriesRefused("n1", c.o); e.Object.Kind != c.kind || e.Message != c.message {
			t.Errorf("%s: %s", e.Object.Kind, e.Message)
		}
	}
}
