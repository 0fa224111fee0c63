package store

import (
	"os"
	"runtime"
	"testing"

	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/wal"
)

// slowFile tells that the fsync of an entry has begun, and waits until it may go
// on.
type slowFile struct {
	*os.File
	header      bool // is durable
	begun, goOn chan struct{}
}

func (f *slowFile) Sync() error {
	if f.header {
		f.begun <- struct{}{}
		<-f.goOn
	}
	f.header = true
	return f.File.Sync()
}

// An append that is under way when the store is closed is stored and told so, or
// neither: its sender would send it again.
func TestCloseWaitsForWhatIsBeingWritten(t *testing.T) {
	cfg := small(t.TempDir())
	slow := &slowFile{begun: make(chan struct{}, 1), goOn: make(chan struct{})}
	cfg.CreateWAL = func(path string) (wal.File, error) {
		var err error
		slow.File, err = os.Create(path)
		return slow, err
	}
	s := open(t, cfg)
	appended, closed := make(chan error, 1), make(chan error, 1)
	st := streams(1)[0]
	go func() {
		appended <- s.Append(t.Context(), []record.Record{{Time: 1, Stream: st, Body: []byte("line 0")}}, nil)
	}()
	<-slow.begun
	go func() { closed <- s.Close() }()
	for refused := false; !refused; { // until Close has begun
		s.mu.RLock()
		refused = s.closed
		s.mu.RUnlock()
		runtime.Gosched()
	}
	for range 1000 {
		runtime.Gosched()
	}
	close(slow.goOn)
	if err := <-appended; err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := s.Append(t.Context(), []record.Record{{Time: 2, Stream: st, Body: []byte("late")}}, nil); err == nil {
		t.Error("a closed store took a line")
	}
	cfg.CreateWAL = nil
	s = open(t, cfg)
	wantLines(t, all(t, s, index.Need{}), 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
