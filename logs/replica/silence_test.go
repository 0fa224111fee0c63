package replica

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// Its copy would be locked until TCP notices, some minutes later.
func TestAShipmentOfAMachineThatDiedEnds(t *testing.T) {
	f := openFollower(t)
	f.k.cfg.Silence = 50 * time.Millisecond
	body, owner := io.Pipe()
	defer owner.Close()
	status := make(chan int, 1)
	go func() {
		resp, err := http.Post(f.door.URL+Prefix+"owner/a", "", body)
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	if _, err := owner.Write([]byte{0}); err != nil { // and no more
		t.Fatal(err)
	}
	select {
	case s := <-status:
		if s == http.StatusOK {
			t.Error("half a shipment was taken")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the shipment lasts")
	}
	h, err := f.k.take(copyKey{"owner", "a"}, false)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Unlock()
}
