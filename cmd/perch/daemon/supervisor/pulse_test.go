package supervisor

import (
	"context"
	"net"
	"testing"
	"time"
)

func TestAPartThatAnswersAgainIsNoLongerNamed(t *testing.T) {
	hears, tells, err := channel()
	if err != nil {
		t.Fatal(err)
	}
	defer hears.Close()
	c, err := net.FileConn(tells)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tells.Close()
	p := NewPulse(Notifier{conn: c.(*net.UnixConn)}, 5*time.Millisecond)
	answer, late := make(chan struct{}), make(chan struct{}, 1)
	late <- struct{}{}
	p.Check("sums", func(context.Context) error {
		<-answer
		return nil
	})
	p.Check("books", func(ctx context.Context) error {
		select {
		case <-late: // the first time
			return context.DeadlineExceeded
		default:
			return nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	until := func(word, rest string) {
		t.Helper()
		if err := hears.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := receive(hears)
			if err != nil {
				t.Fatalf("no %s %s: %v", word, rest, err)
			}
			if m.word == word && m.rest == rest {
				return
			}
		}
	}
	until("alive", "") // before anything was asked
	until("stuck", "sums")
	close(answer)
	until("stuck", "books") // it said itself that its time was over
	until("alive", "")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
