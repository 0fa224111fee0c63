package crowd

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// door serves over TLS; who asks for /known is known.
func door(t *testing.T, most int, http2 bool) (*Crowd, *httptest.Server) {
	t.Helper()
	c := New("test", most, prometheus.NewRegistry())
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			c.Known(r.RemoteAddr)
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	s.Listener, s.EnableHTTP2 = c.Listen(s.Listener), http2
	s.StartTLS()
	t.Cleanup(s.Close)
	return c, s
}

// visitor has one connection.
func visitor(t *testing.T, s *httptest.Server) *http.Client {
	t.Helper()
	from := s.Client().Transport.(*http.Transport).Clone()
	t.Cleanup(from.CloseIdleConnections)
	return &http.Client{Transport: from, Timeout: time.Minute}
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// open connects and says nothing.
func open(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ended waits until the other side has closed a connection.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Fatalf("the connection is open: %v", err)
	}
}

func (c *Crowd) counts() (inside, strangers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.inside) != c.number {
		panic("BUG: a visit is not found by its address")
	}
	return c.number, c.strangers.Len()
}

func until(t *testing.T, what string, good func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !good(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("not within a minute: " + what)
		}
	}
}

func TestStrangersMakeRoomAndWhoIsKnownStays(t *testing.T) {
	for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(proto, func(t *testing.T) {
			c, s := door(t, 3, http2)
			us := visitor(t, s)
			if got := get(t, us, s.URL+"/known"); got != proto {
				t.Fatalf("over %s", got)
			}
			until(t, "we are known", func() bool { in, s := c.counts(); return in == 1 && s == 0 })
			first := open(t, s)
			until(t, "the first is in", func() bool { in, _ := c.counts(); return in == 2 })
			for range 20 {
				open(t, s)
			}
			ended(t, first)
			until(t, "the rest made room", func() bool { return testutil.ToFloat64(c.closed.WithLabelValues("stranger")) == 19 })
			if in, strangers := c.counts(); in != 3 || strangers != 2 {
				t.Errorf("%d inside, %d strangers", in, strangers)
			}
			// A newcomer who means well comes in, and we are still on our connection.
			if got := get(t, visitor(t, s), s.URL+"/known"); got != proto {
				t.Errorf("a newcomer got %q", got)
			}
			before, _ := c.counts()
			if got := get(t, us, s.URL+"/known"); got != proto {
				t.Errorf("we got %q", got)
			}
			if after, strangers := c.counts(); before != after || strangers != 1 {
				t.Errorf("%d inside, then %d, %d strangers", before, after, strangers)
			}
		})
	}
}

func TestANewcomerIsRefusedWhenAllAreKnown(t *testing.T) {
	c, s := door(t, 2, false)
	first := visitor(t, s)
	get(t, first, s.URL+"/known")
	get(t, visitor(t, s), s.URL+"/known")
	ended(t, open(t, s))
	if n := testutil.ToFloat64(c.closed.WithLabelValues("newcomer")); n != 1 {
		t.Errorf("%v newcomers were refused", n)
	}
	first.CloseIdleConnections()
	until(t, "there is room", func() bool { in, _ := c.counts(); return in == 1 })
	get(t, visitor(t, s), s.URL+"/known")
}

func TestAHandshakeThatFailsLeavesNoTrace(t *testing.T) {
	c, s := door(t, 2, false)
	for range 5 {
		if conn, err := tls.Dial("tcp", s.Listener.Addr().String(), nil); err == nil { // which does not believe the server
			_ = conn.Close()
			t.Fatal("the server is believed")
		}
	}
	until(t, "all are gone", func() bool { in, strangers := c.counts(); return in == 0 && strangers == 0 })
}
