package store

import (
	"bytes"
	"testing"

	"perch/logs/record"
)

// A follower that stands still holds few bytes, however large the lines are, and
// goes on when it reads again.
func TestAFollowerThatStandsStillHoldsFewBytes(t *testing.T) {
	s := open(t, Default(t.TempDir()))
	f := s.Follow(4096, func(*record.Stream) bool { return true })
	st := streams(1)[0]
	add := func(body []byte) {
		t.Helper()
		if err := s.Append(t.Context(), []record.Record{{Time: 1, Stream: st, Body: body}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	large := bytes.Repeat([]byte("x"), record.MaxBody)
	const lines = 2 * followBytes / record.MaxBody
	for range lines {
		add(large)
	}
	waiting := len(f.Lines())
	if n := f.Dropped(); waiting < lines/2-2 || waiting > lines/2 || int(n) != lines-waiting {
		t.Errorf("%d large lines wait, %d were dropped", waiting, n)
	}
	for range waiting {
		n := <-f.Lines()
		f.Took(&n)
	}
	if n := f.waiting.Load(); n != 0 {
		t.Errorf("%d bytes are said to wait", n)
	}
	for range 100 {
		add([]byte("small"))
	}
	if n := f.Dropped(); n != 0 || len(f.Lines()) != 100 {
		t.Errorf("%d small lines wait, %d were dropped", len(f.Lines()), n)
	}
	f.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
