package cluster

import (
	"strings"
	"testing"

	"perch/logs/query"
	"perch/logs/record"
)

// A line with the largest fields that a store keeps fits into the answer of a
// peer: else the node would be missing for everybody who asks for that time.
func TestALineWithLargeFieldsDoesNotMakeItsNodeMissing(t *testing.T) {
	a, b := newNode(t), newNode(t)
	large := line("b", "shop", 2, strings.Repeat("\xff", record.MaxBody))
	large.Fields = []record.Field{{Key: "dump", Value: strings.Repeat("\x01", 3<<20)}, {Key: "user", Value: "42"}}
	b.add(t, line("b", "shop", 1, "small"), large)
	var have []*query.Line
	sum, err := fan(a, b).Query(t.Context(), query.Request{To: 10}, func(l *query.Line) error { have = append(have, l); return nil })
	if err != nil || sum.Partial || len(sum.Missing) > 0 || len(have) != 2 {
		t.Fatal(err, sum, len(have))
	}
	if fields := string(have[0].Fields); !strings.Contains(fields, `[cut: 2097152 bytes more]"`) || !strings.Contains(fields, `"user":" …[cut: 2 bytes more]"`) {
		t.Errorf("%d bytes of fields end with %s", len(fields), fields[max(0, len(fields)-200):])
	}
}
