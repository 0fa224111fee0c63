package door

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// served is a door with its connections, over HTTP/1.1.
func served(t *testing.T, d *Door) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(d)
	s.Listener = d.Crowd.Listen(s.Listener)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// begin sends the head of a request and the beginning of its body.
func begin(t *testing.T, s *httptest.Server, path, header string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", s.Listener.Addr().String(), s.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	lines := "\r\n"
	if header != "" {
		lines = header + "\r\n\r\n"
	}
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: perch.example\r\nContent-Length: 20\r\n%s{\"token\":", path, lines)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestABodyOfAStrangerHasSomeTimeToArrive(t *testing.T) {
	d, _ := open(t)
	d.Public("/file", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "file") }))
	d.Page(http.NotFoundHandler())
	d.Handle("POST /root", Path("post", "/root"), http.NotFoundHandler())
	d.arrival = 50 * time.Millisecond
	s := served(t, d)
	for _, path := range []string{"/ui/api/v1/login", "/logs/x", "/file", "/api/nothing", "/page", "/root"} {
		header := ""
		if path == "/root" { // known, but not let in
			header = "Authorization: Bearer dev"
		}
		if _, err := io.ReadAll(begin(t, s, path, header)); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the connection is open", path)
		}
	}
}

func TestWhoIsKnownMayTakeAnyTime(t *testing.T) {
	d, _ := open(t)
	begun := make(chan struct{})
	d.Handle("POST /slow", Anyone, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		if text, err := io.ReadAll(r.Body); err != nil || len(text) != 20 || r.Context().Err() != nil {
			t.Errorf("%q, %v, %v", text, err, r.Context().Err())
		}
		_, _ = io.WriteString(w, "thanks")
	}))
	d.Handle("GET /stream", Anyone, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			t.Error("a stream was cut off")
		case <-time.After(4 * d.arrival): // that nothing happens takes its time
		}
		_, _ = io.WriteString(w, "end")
	}))
	d.arrival = 50 * time.Millisecond
	s := served(t, d)
	c := begin(t, s, "/slow", "Authorization: Bearer dev")
	<-begun
	<-time.After(4 * d.arrival)
	if _, err := io.WriteString(c, `"dev"      }`[:11]); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got := text(t, r); got != "thanks" {
		t.Errorf("got %q", got)
	}
	ask, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.URL+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set("Authorization", "Bearer dev")
	tail, err := s.Client().Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Body.Close()
	if got := text(t, tail); got != "end" {
		t.Errorf("a stream ended with %q", got)
	}
}
