package door

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// cluster knows two users and two namespaces.
type cluster struct{ asked map[string]int }

func (c cluster) User(_ context.Context, token string) (User, error) {
	if c.asked != nil {
		c.asked[token]++
	}
	switch token {
	case "joiner":
		return User{Name: "system:bootstrap:abc123", Groups: []string{"system:bootstrappers", "system:authenticated"}}, nil
	case "secretary":
		return User{Name: "secretary"}, nil
	case "root":
		return User{Name: "root", Groups: []string{"system:masters"}}, nil
	case "dev":
		return User{Name: "dev"}, nil
	case "prometheus":
		return User{Name: "prometheus"}, nil
	case "scraper":
		return User{Name: "system:serviceaccount:kube-system:perch-scrape"}, nil
	case "pusher":
		return User{Name: "system:serviceaccount:kube-system:pusher"}, nil
	case "":
		return User{}, errors.New("spec.token: required")
	}
	return User{}, ErrUnknown
}

func (cluster) Allowed(_ context.Context, u User, r Right) (bool, error) {
	if u.Name == "secretary" {
		return r == Right{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "kube-system", Name: "perch-admin"}, nil
	}
	if u.Name == "prometheus" || strings.HasSuffix(u.Name, ":perch-scrape") {
		return r == Right{Verb: "get", Path: "/metrics"}, nil
	}
	return u.Name == "dev" && r.Resource == "pods" && r.Namespace == "shop", nil
}

func (cluster) Namespaces(context.Context) ([]string, error) { return []string{"shop", "bank"}, nil }

func open(t *testing.T) (*Door, *Sessions) {
	t.Helper()
	return openFor(t, cluster{})
}

func openFor(t *testing.T, c cluster) (*Door, *Sessions) {
	t.Helper()
	mint := func(context.Context, time.Duration) (string, error) { return "root", nil }
	s, err := NewSessions(filepath.Join(t.TempDir(), "key"), mint, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	d := New(c, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(ScopeOf(r.Context())) })
	d.Handle("/logs/", Logs, show)
	d.Handle("/prometheus/", Metrics, show)
	d.Handle("/stream", Node, show)
	d.Handle("/alertmanager/", Alerts, show)
	return d, s
}

func ask(d *Door, method, path, body string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "https://perch.example"+path, strings.NewReader(body))
	r.TLS = nil
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNobodyIsLetInWithoutAName(t *testing.T) {
	d, _ := open(t)
	for _, path := range []string{"/logs/x", "/prometheus/x", "/stream", "/ui/api/v1/me"} {
		if r := ask(d, "GET", path, ""); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", path, r.Status)
		}
		if r := ask(d, "GET", path, "", "Authorization", "Bearer "); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s with an empty token: %s", path, r.Status)
		}
		if r := ask(d, "GET", path, "", "Authorization", "Bearer wrong"); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s with a wrong token: %s", path, r.Status)
		}
	}
}

func TestScopeIsWhatTheAuthorizerAllows(t *testing.T) {
	d, _ := open(t)
	for _, path := range []string{"/logs/x", "/prometheus/x"} {
		if got := text(t, ask(d, "GET", path, "", "Authorization", "Bearer dev")); !strings.Contains(got, `"All":false,"Namespaces":["shop"],"Hidden":1`) {
			t.Errorf("%s for dev: %s", path, got)
		}
		if got := text(t, ask(d, "GET", path, "", "Authorization", "Bearer root")); !strings.Contains(got, `"All":true`) {
			t.Errorf("%s for root: %s", path, got)
		}
	}
	for who, want := range map[string]string{"prometheus": `"All":false,"Namespaces":null,"Hidden":2`, "root": `"All":true`, "dev": "dev may not get /metrics"} {
		if got := text(t, ask(d, "GET", "/alertmanager/x", "", "Authorization", "Bearer "+who)); !strings.Contains(got, want) {
			t.Errorf("alerts for %s: %s", who, got)
		}
	}
	if r := ask(d, "GET", "/stream", "", "Authorization", "Bearer dev"); r.StatusCode != http.StatusForbidden {
		t.Errorf("dev as a node: %s", r.Status)
	}
}

// TestTheTokenThatMonitorsSendReadsMetricsAndNothingElse: who may write a monitor has it.
func TestTheTokenThatMonitorsSendReadsMetricsAndNothingElse(t *testing.T) {
	d, _ := open(t)
	show := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	d.Handle("GET /metrics", Path("get", "/metrics"), show)
	d.Handle("POST /loki/api/v1/push", Push("/loki/api/v1/push"), show)
	d.Handle("POST /prometheus/api/v1/write", Write("/prometheus/api/v1/write"), show)
	d.Handle("/k8s/", Anyone, show)
	for path, method := range map[string]string{"/loki/api/v1/push": "POST", "/prometheus/api/v1/write": "POST", "/alertmanager/x": "GET", "/prometheus/x": "GET", "/k8s/api": "GET"} {
		if r := ask(d, method, path, "", "Authorization", "Bearer scraper"); r.StatusCode != http.StatusForbidden || !strings.Contains(text(t, r), "reads /metrics and nothing else") {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	for path, token := range map[string]string{"/loki/api/v1/push": "pusher", "/prometheus/api/v1/write": "pusher"} {
		if r := ask(d, "POST", path, "", "Authorization", "Bearer "+token); r.StatusCode != http.StatusOK {
			t.Errorf("%s for another account: %s", path, r.Status)
		}
	}
	if r := ask(d, "GET", "/metrics", "", "Authorization", "Bearer scraper"); r.StatusCode != http.StatusOK {
		t.Errorf("/metrics: %s", r.Status)
	}
}

func TestABadTokenIsNobodyAndOtherPagesLogNobodyIn(t *testing.T) {
	d, _ := open(t)
	for name, tc := range map[string]struct {
		body   string
		header []string
		want   int
	}{
		"nothing given":       {`{}`, nil, 401},
		"an empty token":      {`{"token":""}`, nil, 401},
		"our own page":        {`{"token":"dev"}`, []string{"Origin", "https://perch.example"}, 200},
		"a program":           {`{"token":"dev"}`, nil, 200},
		"a page elsewhere":    {`{"token":"dev"}`, []string{"Origin", "https://evil.example"}, 403},
		"a form in an iframe": {`{"token":"dev"}`, []string{"Origin", "null"}, 403},
	} {
		r := ask(d, "POST", "/ui/api/v1/login", tc.body, tc.header...)
		if r.StatusCode != tc.want || (tc.want != 200 && len(r.Cookies()) > 0) {
			t.Errorf("%s: %s, want %d", name, r.Status, tc.want)
		}
	}
	if r := ask(d, "GET", "/logs/x", "", "Authorization", "Bearer "); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("an empty bearer token: %s", r.Status)
	}
}

func TestWhatADataRouteAnswersNeverRunsAsOurPage(t *testing.T) {
	d, _ := open(t)
	r := ask(d, "GET", "/logs/x", "", "Authorization", "Bearer dev")
	if policy := r.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "sandbox") || !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("policy %q", policy)
	}
}

func login(t *testing.T, d *Door, code string) *http.Response {
	t.Helper()
	return ask(d, "POST", "/ui/api/v1/login", `{"code":"`+code+`"}`)
}

func TestALoginCodeWorksOnceAndItsSessionOnlyFromOurOwnPage(t *testing.T) {
	d, s := open(t)
	code := s.Code()
	r := login(t, d, code)
	if r.StatusCode != http.StatusOK {
		t.Fatalf("login: %s %s", r.Status, text(t, r))
	}
	c := r.Cookies()[0]
	if !strings.HasPrefix(c.Name, "__Host-") || c.Path != "/" || c.Domain != "" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie: %+v", c)
	}
	if r := login(t, d, code); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("second use of the code: %s", r.Status)
	}
	cookie := c.Name + "=" + c.Value
	for name, tc := range map[string]struct {
		header []string
		want   int
	}{
		"our page":           {[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		"our page, by post":  {[]string{"Origin", "https://perch.example"}, 200},
		"another page":       {[]string{"Origin", "https://evil.example"}, 403},
		"another page's get": {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		"no sign of a page":  {nil, 403},
		"a followed link":    {[]string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
	} {
		if r := ask(d, "GET", "/logs/x", "", append([]string{"Cookie", cookie}, tc.header...)...); r.StatusCode != tc.want {
			t.Errorf("%s: %s, want %d", name, r.Status, tc.want)
		}
	}
	if r := ask(d, "GET", "/logs/x", "", "Cookie", cookie+"x", "Sec-Fetch-Site", "same-origin"); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("forged cookie: %s", r.Status)
	}
}

func TestTheProxySpeaksInTheCallersNameAndNeverImpersonates(t *testing.T) {
	var got http.Header
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		io.WriteString(w, r.URL.Path)
	}))
	defer api.Close()
	u, err := url.Parse(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := open(t)
	d.Handle("/k8s/", Anyone, Proxy("/k8s", u, http.DefaultTransport, slog.New(slog.DiscardHandler)))
	r := ask(d, "GET", "/k8s/api/v1/pods", "", "Authorization", "Bearer dev", "Impersonate-User", "root", "Cookie", "a=b")
	if path := text(t, r); path != "/api/v1/pods" {
		t.Errorf("path %q", path)
	}
	if got.Get("Authorization") != "Bearer dev" || got.Get("Impersonate-User") != "" || got.Get("Cookie") != "" {
		t.Errorf("headers %v", got)
	}
}

func TestHandlersBehindTheDoorSeeNoOrigin(t *testing.T) {
	d, _ := open(t)
	d.Handle("/origin", Anyone, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "origin:"+r.Header.Get("Origin"))
	}))
	if got := text(t, ask(d, "POST", "/origin", "", "Authorization", "Bearer root", "Origin", "https://perch.example")); got != "origin:" {
		t.Errorf("got %q", got)
	}
}

func TestABrowserThatOpensMetricsGetsThePageAndAScraperTheNumbers(t *testing.T) {
	d, _ := open(t)
	say := func(word string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, word) })
	}
	d.Public("/", say("page"))
	d.Handle("GET /metrics", Anyone, say("numbers"))
	if got := text(t, ask(d, "GET", "/metrics?ns=shop", "", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")); got != "page" {
		t.Errorf("a browser got %q", got)
	}
	if got := text(t, ask(d, "GET", "/metrics", "", "Authorization", "Bearer root")); got != "numbers" {
		t.Errorf("a scraper got %q", got)
	}
}

func TestAJoinTokenIsNobody(t *testing.T) {
	d, _ := open(t)
	for _, path := range []string{"/logs/x", "/prometheus/x", "/stream", "/ui/api/v1/me"} {
		if r := ask(d, "GET", path, "", "Authorization", "Bearer joiner"); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	if r := ask(d, "POST", "/ui/api/v1/login", `{"token":"joiner"}`); r.StatusCode != http.StatusUnauthorized || len(r.Cookies()) > 0 {
		t.Errorf("login: %s", r.Status)
	}
}

func TestAnUnknownTokenIsAskedForOnceInAWhileAndCostsNoKnownOne(t *testing.T) {
	c := cluster{asked: map[string]int{}}
	d, _ := openFor(t, c)
	known := func() int { return ask(d, "GET", "/ui/api/v1/me", "", "Authorization", "Bearer dev").StatusCode }
	if code := known(); code != http.StatusOK {
		t.Fatalf("dev: %d", code)
	}
	for range 5 {
		if r := ask(d, "GET", "/logs/x", "", "Authorization", "Bearer wrong"); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("wrong: %s", r.Status)
		}
	}
	for i := range 3 * maxUnknown {
		ask(d, "GET", "/logs/x", "", "Authorization", "Bearer wrong"+strconv.Itoa(i))
	}
	if r := ask(d, "GET", "/logs/x", "", "Authorization", "Bearer "+strings.Repeat("x", maxToken+1)); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token of 16 kB: %s", r.Status)
	}
	if code := known(); code != http.StatusOK || c.asked["dev"] != 1 || c.asked["wrong"] != 1 || len(c.asked) != 2+3*maxUnknown {
		t.Errorf("after the flood: dev %d, asked %d times; wrong asked %d times; %d tokens asked", code, c.asked["dev"], c.asked["wrong"], len(c.asked))
	}
	if n := len(d.unknown.Keys()); n > maxUnknown {
		t.Errorf("%d unknown tokens are remembered", n)
	}
}

func TestALoginCodeNeedsTheRightToTheTokenItStandsFor(t *testing.T) {
	d, s := open(t)
	d.Handle("POST /ui/api/v1/code", Has(Right{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "kube-system", Name: "perch-admin"}),
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s.Code()) }))
	for token, want := range map[string]int{"root": 200, "secretary": 200, "dev": 403, "wrong": 401, "joiner": 401} {
		r := ask(d, "POST", "/ui/api/v1/code", "", "Authorization", "Bearer "+token)
		if r.StatusCode != want {
			t.Errorf("%s: %s, want %d", token, r.Status, want)
		}
	}
}

func TestAPathOfAnAPIThatDoesNotExistIsNeverAnsweredWithThePage(t *testing.T) {
	_, s := open(t)
	d := New(cluster{}, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	d.Handle("/logs/api/v1/", Logs, http.NotFoundHandler())
	d.Page(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	for _, path := range []string{"/api/v1/pods", "/apis/apps/v1", "/api", "/openapi/v2", "/version", "/healthz", "/metrics/x", "/logsx/../apis", "/logs/x", "/logs/api/v2/x", "/alertmanager/x", "/ui/api/v1/nothing", "/perch/v1/nothing", "/debug/pprof/"} {
		r := ask(d, "GET", path, "")
		if r.StatusCode == http.StatusMovedPermanently || r.StatusCode == http.StatusTemporaryRedirect {
			r = ask(d, "GET", r.Header.Get("Location"), "")
		}
		if got := text(t, r); r.StatusCode != http.StatusNotFound || r.Header.Get("Content-Type") != "application/json" || !strings.Contains(got, `"errorType":"not_found"`) {
			t.Errorf("%s: %s %s", path, r.Status, got)
		}
	}
	for _, path := range []string{"/", "/logs", "/metrics", "/pods", "/pods/shop/api-1", "/alerts", "/apiary", "/a/main.js"} {
		if got := text(t, ask(d, "GET", path, "")); got != "page" {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestWhatABrowserSendsByItselfIsTakenFromOurOwnPageOnly(t *testing.T) {
	d, _ := open(t)
	node := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}}}}}
	for _, by := range []string{"certificate", "password", "bearer"} {
		for name, tc := range map[string]struct {
			header []string
			want   int
		}{
			"a program":          {nil, 200},
			"our page":           {[]string{"Sec-Fetch-Site", "same-origin"}, 200},
			"our page, by post":  {[]string{"Origin", "https://perch.example", "Sec-Fetch-Site", "same-origin"}, 200},
			"a followed link":    {[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
			"another page":       {[]string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
			"an old browser":     {[]string{"Origin", "https://evil.example"}, 403},
			"another page's get": {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
			"another port":       {[]string{"Sec-Fetch-Site", "same-site"}, 403},
			"a form in a frame":  {[]string{"Origin", "null"}, 403},
		} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				r := httptest.NewRequest(method, "https://perch.example/logs/x", nil)
				r.TLS = nil
				want := tc.want
				switch by {
				case "certificate":
					r.TLS = node
				case "password":
					r.SetBasicAuth("any", "root")
				case "bearer": // no browser sends one by itself
					r.Header.Set("Authorization", "Bearer root")
					want = 200
				}
				if name == "a followed link" && method == http.MethodPost && by != "bearer" {
					want = 403
				}
				for i := 0; i < len(tc.header); i += 2 {
					r.Header.Set(tc.header[i], tc.header[i+1])
				}
				w := httptest.NewRecorder()
				if d.ServeHTTP(w, r); w.Code != want {
					t.Errorf("%s of %s with a %s: %d, want %d", method, name, by, w.Code, want)
				}
			}
		}
	}
}
