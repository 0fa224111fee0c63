package evidence

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/alerts/route"
)

// letter is one mail as a server got it.
type letter struct {
	from, to string
	text     []byte
}

// postOffice is a mail server that takes everything.
func postOffice(t *testing.T) (string, <-chan letter) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan letter, 100)
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with its client
				defer c.Close()
				if x, ok := receive(c); ok {
					got <- x
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

func receive(c net.Conn) (x letter, got bool) {
	in := bufio.NewReader(c)
	say := func(text string) { _, _ = io.WriteString(c, text+"\r\n") } // a client that is gone ends the loop
	say("220 post office")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return x, got
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO":
			say("250 post office")
		case "MAIL":
			x.from = rest
			say("250 ok")
		case "RCPT":
			x.to += rest
			say("250 ok")
		case "DATA":
			say("354 go on")
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return x, false
				}
				if line == ".\r\n" {
					break
				}
				x.text = append(x.text, strings.TrimPrefix(line, ".")...)
			}
			got = true
			say("250 ok")
		case "QUIT":
			say("221 bye")
			return x, got
		default:
			say("502 what?")
		}
	}
}

// parts are the readable parts of a mail by their type, and its subject.
func (x letter) parts(t *testing.T) map[string]string {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(x.text))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	if out["subject"], err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		out[kind] = string(text)
	}
}

// TestEvidenceReachesReceiversOfEachKind takes an alert from its rule to receivers
// that are no webhooks: the courier and the router of the server, a configuration as
// people write it, and servers that answer as the real ones do.
func TestEvidenceReachesReceiversOfEachKind(t *testing.T) {
	type request struct{ path, auth, body string }
	requests := make(chan request, 100)
	answers := map[string]string{ // by the beginning of the path; the first part is the receiver
		"/pagerduty/": `{"status":"success","message":"Event processed","dedup_key":"k"}`, "/opsgenie/": `{"result":"Request will be processed"}`,
		"/telegram/": `{"ok":true,"result":{"message_id":1,"chat":{"id":7}}}`, "/discord/": "", "/slack/": "ok",
	}
	services := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		requests <- request{r.URL.Path, r.Header.Get("Authorization"), string(body)}
		for prefix, text := range answers {
			if strings.HasPrefix(r.URL.Path, prefix) {
				w.Header().Set("Content-Type", "application/json")
				if prefix == "/pagerduty/" || prefix == "/opsgenie/" {
					w.WriteHeader(http.StatusAccepted)
				}
				_, _ = io.WriteString(w, text) // the client is gone otherwise
			}
		}
	}))
	defer services.Close()
	smtp, letters := postOffice(t)
	page, err := url.Parse("https://perch.example:9443")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	router, err := route.New(route.Config{Dir: t.TempDir(), ExternalURL: page.JoinPath("alertmanager")}, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	const said = "{{ range .Alerts }}{{ .Annotations.perch_lines }} see {{ .Annotations.perch_link }}{{ end }}"
	if err := router.Apply(strings.NewReplacer("SERVICES", services.URL, "SMTP", smtp, "SAID", said).Replace(`
global: {smtp_smarthost: 'SMTP', smtp_from: perch@example.com, smtp_require_tls: false, opsgenie_api_url: 'SERVICES/opsgenie/', opsgenie_api_key: og-key}
route: {receiver: everybody}
receivers:
- name: everybody
  email_configs: [{to: kim@example.com, html: '<p>SAID</p>', text: 'SAID', headers: {subject: '{{ .CommonLabels.alertname }} in {{ .CommonLabels.namespace }}'}}]
  pagerduty_configs: [{routing_key: pd-key, url: 'SERVICES/pagerduty/v2/enqueue', description: 'SAID', details: {lines: 'SAID'}}]
  opsgenie_configs: [{description: 'SAID', priority: P2}]
  telegram_configs: [{api_url: 'SERVICES/telegram', bot_token: tg-token, chat_id: 7, message: 'SAID', parse_mode: ''}]
  discord_configs: [{webhook_url: 'SERVICES/discord/hook', message: 'SAID'}]
  slack_configs: [{api_url: 'SERVICES/slack/hook', channel: '#shop', text: 'SAID'}]
`)); err != nil {
		t.Fatal(err)
	}
	w := &world{}
	c := New(Default(page), w.sources(), nil, func(ctx context.Context, in ...Alert) error {
		out := make([]route.Alert, len(in))
		for i, a := range in {
			out[i] = route.Alert(a)
		}
		return router.Receive(ctx, out...)
	}, func(context.Context, Transition) {}, log, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- router.Run(ctx) }()
	go func() { ended <- c.Run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	if err := c.Send(ctx, crash("web-1", time.Hour)); err != nil {
		t.Fatal(err)
	}
	const line, link = `line 19 of kind:log namespace:`, "https://perch.example:9443/pods/shop/web-1?"
	holds := func(who, text string, wants ...string) {
		t.Helper()
		text = strings.NewReplacer(`\u0026`, "&", `\"`, `"`, "&#34;", `"`, "&amp;", "&").Replace(text)
		for _, want := range append(wants, line, link) {
			if !strings.Contains(text, want) {
				t.Errorf("%s: want %q in\n%s", who, want, text)
			}
		}
	}
	limit := time.After(time.Minute)
	left := map[string]bool{"mail": true, "pagerduty": true, "opsgenie": true, "telegram": true, "discord": true, "slack": true}
	for len(left) > 0 {
		select {
		case x := <-letters:
			if !left["mail"] {
				continue
			}
			delete(left, "mail")
			if !strings.Contains(x.from, "perch@example.com") || !strings.Contains(x.to, "kim@example.com") {
				t.Errorf("mail from %s to %s", x.from, x.to)
			}
			p := x.parts(t)
			if p["subject"] != "Crash in shop" {
				t.Errorf("subject %q", p["subject"])
			}
			holds("mail as text", p["text/plain"])
			holds("mail as HTML", p["text/html"], "<p>")
		case r := <-requests:
			who := strings.Split(r.path, "/")[1]
			if !left[who] {
				continue
			}
			delete(left, who)
			switch who {
			case "pagerduty":
				holds(r.path, r.body, `"routing_key":"pd-key"`, `"event_action":"trigger"`, `"lines":`)
			case "opsgenie":
				holds(r.path, r.body, `"priority":"P2"`)
				if r.auth != "GenieKey og-key" || r.path != "/opsgenie/v2/alerts" {
					t.Errorf("opsgenie: %s %s", r.path, r.auth)
				}
			case "telegram":
				holds(r.path, r.body, `"chat_id":"7"`)
				if r.path != "/telegram/bottg-token/sendMessage" {
					t.Errorf("telegram: %s", r.path)
				}
			default:
				holds(r.path, r.body)
			}
		case <-limit:
			t.Fatal("nothing came to: ", fmt.Sprint(left))
		}
	}
}
