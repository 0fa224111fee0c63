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

// Many followers that stand still hold few bytes together, and give them back.
func TestAllFollowersTogetherHoldFewBytes(t *testing.T) {
	s := open(t, Default(t.TempDir()))
	var all []*Follower
	const followers = 2 * followAll / followBytes
	for range followers {
		all = append(all, s.Follow(4096, func(*record.Stream) bool { return true }))
	}
	st, large := streams(1)[0], bytes.Repeat([]byte("x"), record.MaxBody)
	for range followBytes / record.MaxBody {
		if err := s.Append(t.Context(), []record.Record{{Time: 1, Stream: st, Body: large}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	waiting, dropped := int64(0), int64(0)
	for _, f := range all {
		waiting += f.waiting.Load()
		dropped += f.Dropped()
	}
	if waiting > followAll || waiting < followAll/2 || waiting != s.following() || dropped == 0 {
		t.Errorf("%d bytes wait, or %d; %d lines were dropped", waiting, s.following(), dropped)
	}
	for _, f := range all {
		f.Close()
	}
	if n := s.following(); n != 0 {
		t.Errorf("%d bytes are said to wait for nobody", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What a follower asks of a stream may take as long as it likes, lines are taken
// meanwhile; it is asked once of a stream, and before its lines if they are old.
func TestNobodyWaitsForWhatAFollowerAsks(t *testing.T) {
	s := open(t, Default(t.TempDir()))
	st := streams(3)
	add := func(i int) {
		t.Helper()
		if err := s.Append(t.Context(), []record.Record{{Time: 1, Stream: st[i], Body: []byte("x")}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	add(0)
	asked := map[string]int{}
	goOn := make(chan struct{})
	f := s.Follow(100, func(x *record.Stream) bool {
		if asked[x.Pod]++; x.Pod == st[1].Pod {
			<-goOn
		}
		return x.Pod != st[0].Pod
	})
	for range 10 {
		add(0)
		add(1)
		add(2)
	}
	if n := len(f.Lines()); n != 20 {
		t.Errorf("%d lines wait, want those of the two streams that were not refused", n)
	}
	close(goOn)
	f.Close()
	for n := range f.Lines() {
		if !f.Took(&n) {
			t.Errorf("a line of %s is not wanted", n.Stream.Pod)
		}
	}
	for i, x := range st {
		if asked[x.Pod] != 1 {
			t.Errorf("stream %d was asked about %d times", i, asked[x.Pod])
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
