package door

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// TestWhoIsHandedOnMaySendWhileTheAnswerComes has a server answer the first line of
// a request before the second is sent.
func TestWhoIsHandedOnMaySendWhileTheAnswerComes(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		both := http.NewResponseController(w)
		if err := both.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			_, _ = w.Write([]byte(lines.Text() + "\n")) // the client sees it
			_ = both.Flush()
		}
	}))
	defer echo.Close()
	defer echo.CloseClientConnections() // if the test fails
	u, err := url.Parse(echo.URL)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := open(t)
	d.Handle("/k8s/", Anyone, Proxy("/k8s", u, http.DefaultTransport, slog.New(slog.DiscardHandler)))
	front := httptest.NewServer(d)
	defer front.Close()
	defer front.CloseClientConnections()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	body, send := io.Pipe()
	defer context.AfterFunc(ctx, func() { send.CloseWithError(ctx.Err()) })() // the client waits for it
	go func() { _, _ = send.Write([]byte("one\n")) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, front.URL+"/k8s/x", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer dev")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal("the first line is not answered: ", err)
	}
	defer resp.Body.Close()
	got := bufio.NewScanner(resp.Body)
	for i, want := range []string{"one", "two"} {
		if i > 0 {
			if _, err := send.Write([]byte(want + "\n")); err != nil {
				t.Fatal(err)
			}
			send.Close()
		}
		if !got.Scan() || got.Text() != want {
			t.Fatalf("got %q (%v), want %q", got.Text(), got.Err(), want)
		}
	}
	if got.Scan() || got.Err() != nil {
		t.Errorf("then got %q and %v", got.Text(), got.Err())
	}
}
