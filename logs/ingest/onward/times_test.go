package onward

import (
	"encoding/binary"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/block"
	"perch/logs/record"
)

// An EventTime has 32 bits of seconds; some values of those that are out of its range
// are marks of other things.
func TestTimesOutOfRangeAreTheFirstOrTheLast(t *testing.T) {
	o, err := New(Default("127.0.0.1:1", "n1"), nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	last := time.Unix(math.MaxUint32-2, 999_999_999) // then come two marks
	for _, c := range []struct{ at, want time.Time }{
		{time.Unix(1795339481, 999_999_999), time.Unix(1795339481, 999_999_999)},
		{time.Unix(0, 0), time.Unix(0, 0)},
		{time.Unix(-1, 5), time.Unix(0, 0)},
		{time.Unix(0, math.MinInt64), time.Unix(0, 0)},
		{last, last},
		{last.Add(1), last},
		{time.Unix(0, math.MaxInt64), last},
	} {
		var l block.Lines
		l.Add(&record.Record{Time: c.at.UnixNano(), Body: []byte("x")})
		body, n := o.pack(&record.Stream{}, &l, 0, 1)
		if n != 1 || body[0] != 0x92 || body[1] != 0xd7 || body[2] != 0 {
			t.Fatalf("%d entries: % x", n, body)
		}
		have := time.Unix(int64(binary.BigEndian.Uint32(body[3:])), int64(binary.BigEndian.Uint32(body[7:])))
		if ns := binary.BigEndian.Uint32(body[7:]); !have.Equal(c.want) || ns >= 1e9 {
			t.Errorf("%s is sent as %s, want %s", c.at.UTC(), have.UTC(), c.want.UTC())
		}
	}
}
