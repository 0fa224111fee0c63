package door

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"

	"perch/cmd/perch/daemon/crowd"
)

// reviewTTL is how long an answer of the API server about a token or a right is
// believed: a revoked right stops to work this much later.
const reviewTTL = 10 * time.Second

// maxReviews bounds the cache; when it is full the least recently used answer
// goes, which costs one more review.
const maxReviews = 4096

// A token that nobody has is remembered for unknownTTL, so that a client that
// repeats it does not ask the API server each time; maxUnknown of them, apart
// from the good ones, which a flood of bad ones must not drive out.
const (
	unknownTTL = 3 * time.Second
	maxUnknown = 1024
)

// arrival is how long a request may take to arrive before it is known whose it is.
const arrival = 30 * time.Second

// maxConnections of all callers together; strangers make room.
const maxConnections = 2048

// maxToken is how long a token may be in bytes; the API's are below 2 kB.
const maxToken = 16 << 10

// User is a caller as the API server knows it.
type User struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
	token  string   // to act as this user at the API; empty for certificates
}

// Right is one question to the authorizer; either Resource or Path is set.
type Right struct {
	Verb, Resource, Subresource, Namespace, Name string
	Path                                         string
}

// Reviewer asks the API server.
type Reviewer interface {
	// User returns who a bearer token belongs to, or ErrUnknown.
	User(ctx context.Context, token string) (User, error)
	Allowed(ctx context.Context, u User, r Right) (bool, error)
	// Namespaces lists all namespaces of the cluster.
	Namespaces(ctx context.Context) ([]string, error)
}

// ErrUnknown says that nobody has this token.
var ErrUnknown = errors.New("the token is unknown or has expired: get a new one with `perch token`")

// Scope is what a caller may see of data that belongs to namespaces.
type Scope struct {
	All        bool     // also data without a namespace
	Namespaces []string // sorted; if not All
	Hidden     int      // how many namespaces the caller may not see
}

// ScrapeAccount is the ServiceAccount in kube-system whose token monitors have sent to
// their targets. Whoever may write a monitor has it, so it is no account like others
// of its namespace here, whatever it is allowed.
const ScrapeAccount = "perch-scrape"

const scraper = "system:serviceaccount:" + metav1.NamespaceSystem + ":" + ScrapeAccount

type scopeKey struct{}
type userKey struct{}
type intoKey struct{}

// NamespaceHeader names the namespace that pushed lines are to land in.
const NamespaceHeader = "Perch-Namespace"

// Into is the namespace that the caller chose for what it pushes, if it did.
// Only routes that need Push have looked whether it may.
func Into(ctx context.Context) string {
	ns, _ := ctx.Value(intoKey{}).(string)
	return ns
}

// ScopeOf returns the scope of a request; without one nothing may be seen.
func ScopeOf(ctx context.Context) Scope {
	s, _ := ctx.Value(scopeKey{}).(Scope)
	return s
}

// WithScope is for callers that did not come through the door: perch itself on
// its unix socket.
func WithScope(ctx context.Context, s Scope) context.Context {
	return context.WithValue(ctx, scopeKey{}, s)
}

// UserOf returns the caller of a request.
func UserOf(ctx context.Context) User {
	u, _ := ctx.Value(userKey{}).(User)
	return u
}

// WithUser returns a context whose caller is u.
func WithUser(ctx context.Context, u User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// Need says what a route asks of its caller.
type Need func(d *Door, ctx context.Context, u User) (context.Context, error)

// Door routes requests by path.
type Door struct {
	api      Reviewer
	sessions *Sessions
	log      *slog.Logger
	mux      *http.ServeMux
	reviews  *cache.LRUExpireCache
	unknown  *cache.LRUExpireCache // hashes of tokens
	requests *prometheus.CounterVec
	arrival  time.Duration

	// Crowd is the door's connections: its listener is to be bounded by it.
	Crowd *crowd.Crowd
}

// New returns a door without routes.
func New(api Reviewer, sessions *Sessions, log *slog.Logger, reg prometheus.Registerer) *Door {
	d := &Door{api: api, sessions: sessions, log: log, mux: http.NewServeMux(), reviews: cache.NewLRUExpireCache(maxReviews), unknown: cache.NewLRUExpireCache(maxUnknown),
		arrival: arrival, Crowd: crowd.New("web", maxConnections, reg),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_door_requests_total",
			Help: "Requests at the web door by how they ended: served, unauthenticated, forbidden, unavailable."}, []string{"result"})}
	reg.MustRegister(d.requests)
	sessions.routes(d)
	return d
}

// Handle adds a route for callers that meet the need.
func (d *Door) Handle(pattern string, need Need, h http.Handler) {
	d.mux.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := d.user(r)
		if err != nil {
			d.refuse(w, err)
			return
		}
		if u.Name == scraper && r.URL.Path != "/metrics" {
			d.refuse(w, refusal{http.StatusForbidden, u.Name + " reads /metrics and nothing else, because monitors have its token sent to what they name"})
			return
		}
		d.Crowd.Known(r.RemoteAddr)
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // what has none needs none
		ctx := WithUser(r.Context(), u)
		if into := r.Header.Get(NamespaceHeader); into != "" {
			ctx = context.WithValue(ctx, intoKey{}, into)
		}
		ctx, err = need(d, ctx, u)
		if err != nil {
			d.refuse(w, err)
			return
		}
		d.requests.WithLabelValues("served").Inc()
		// What a pod answers to the API's proxy must not run as our page.
		w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
		r = r.WithContext(ctx)
		r.Header.Del("Origin") // the door has checked it, and shares nothing with other origins
		h.ServeHTTP(w, r)
	}))
}

// Public adds a route for anybody: the page's own files, which hold no data.
func (d *Door) Public(pattern string, h http.Handler) { d.mux.Handle(pattern, h) }

// Page adds the page, which answers every path that no other route has and that
// does not look like one of an API: a program that asks for those must not take
// a page for its answer.
func (d *Door) Page(h http.Handler) {
	d.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !apiLike(r.URL.Path) {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": "not_found",
			"error": r.URL.Path + " is not here: this door has /k8s/ (the Kubernetes API), /prometheus/api/v1/, /alertmanager/api/v2/, /logs/api/v1/, /ui/api/v1/ and /metrics"}) // the client is gone if this fails
	})
}

// apiLike tells whether a path is one that programs ask for. The page's own
// start with logs and metrics, too, but have no second part there.
func apiLike(path string) bool {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "api", "apis", "openapi", "version", "healthz", "livez", "readyz", "debug", "k8s", "prometheus", "alertmanager", "ui", "perch":
		return true
	case "logs", "metrics":
		return rest != ""
	}
	return false
}

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Strict-Transport-Security", "max-age=31536000")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Referrer-Policy", "same-origin")
	d.hurry(w)
	if r.URL.Path == "/metrics" && r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		// Scrapers want the door's numbers here, a person who opens or reloads
		// the address in a browser wants the page of that name.
		page := r.Clone(r.Context())
		page.URL.Path = "/"
		r = page
	}
	d.mux.ServeHTTP(w, r)
}

// hurry gives a request's body some time to arrive, also one that nobody reads: the
// server waits for its end before it answers. Handle lifts it for who is known.
func (d *Door) hurry(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d.arrival)) // what has none ends with its client
}

type refusal struct {
	code int
	text string
}

func (r refusal) Error() string { return r.text }

func (d *Door) refuse(w http.ResponseWriter, err error) {
	d.hurry(w)
	var no refusal
	switch {
	case errors.As(err, &no):
	case errors.Is(err, ErrUnknown):
		no = refusal{http.StatusUnauthorized, err.Error()}
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "5")
		no = refusal{http.StatusServiceUnavailable, err.Error()}
	default:
		d.log.Warn("caller could not be reviewed", "err", err)
		no = refusal{http.StatusServiceUnavailable, "the API server does not answer, so nobody can be let in now: try again, or look at `perch status`"}
	}
	d.requests.WithLabelValues(map[int]string{401: "unauthenticated", 403: "forbidden", 503: "unavailable"}[no.code]).Inc()
	if no.code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="perch"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(no.code)
	// Both the Prometheus clients' and our own page's error shape.
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": "auth", "error": no.text})
}

// user finds out who is calling.
func (d *Door) user(r *http.Request) (User, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if token == "" { // the API server calls that its own fault
			return User{}, ErrUnknown
		}
		return d.review(r.Context(), token)
	}
	if foreign(r) { // what follows a browser sends by itself
		return User{}, refusal{http.StatusForbidden, "a page of another origin sent this request with what the browser keeps for this one"}
	}
	if _, token, ok := r.BasicAuth(); ok { // some shippers of logs know nothing else; the name does not matter
		return d.review(r.Context(), token)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return userOfCertificate(r.TLS.VerifiedChains[0][0]), nil
	}
	if c, err := r.Cookie(cookieName); err == nil {
		if !sameSite(r) {
			return User{}, refusal{http.StatusForbidden, "a page of another origin sent this request with the session's cookie"}
		}
		token, err := d.sessions.open(c.Value)
		if err != nil {
			return User{}, refusal{http.StatusUnauthorized, "the session has ended: log in again with the link that `perch ui` prints"}
		}
		return d.review(r.Context(), token)
	}
	return User{}, refusal{http.StatusUnauthorized, "who is asking? Send a bearer token (`perch token` prints one), a client certificate, or log in with the link that `perch ui` prints"}
}

func userOfCertificate(c *x509.Certificate) User {
	return User{Name: c.Subject.CommonName, Groups: append(slices.Clone(c.Subject.Organization), "system:authenticated")}
}

// joiners are machines that hold a join token: good for joining, at the API, and
// for nothing else.
const joiners = "system:bootstrappers"

func (d *Door) review(ctx context.Context, token string) (User, error) {
	if token == "" || len(token) > maxToken {
		return User{}, ErrUnknown
	}
	hash := sha256.Sum256([]byte(token))
	key := "token\x00" + string(hash[:])
	if u, ok := d.reviews.Get(key); ok {
		return u.(User), nil
	}
	if _, ok := d.unknown.Get(hash); ok {
		return User{}, ErrUnknown
	}
	u, err := d.api.User(ctx, token)
	if err == nil && slices.Contains(u.Groups, joiners) {
		err = ErrUnknown
	}
	if errors.Is(err, ErrUnknown) {
		d.unknown.Add(hash, struct{}{}, unknownTTL)
	}
	if err != nil {
		return User{}, err
	}
	u.token = token
	d.reviews.Add(key, u, reviewTTL)
	return u, nil
}

func (d *Door) allowed(ctx context.Context, u User, r Right) (bool, error) {
	if slices.Contains(u.Groups, "system:masters") {
		return true, nil
	}
	key := strings.Join([]string{"right", u.Name, strings.Join(u.Groups, ","), r.Verb, r.Resource, r.Subresource, r.Namespace, r.Name, r.Path}, "\x00")
	if ok, hit := d.reviews.Get(key); hit {
		return ok.(bool), nil
	}
	ok, err := d.api.Allowed(ctx, u, r)
	if err == nil {
		d.reviews.Add(key, ok, reviewTTL)
	}
	return ok, err
}

// scope asks in which namespaces the caller has a right. In all means also
// data that belongs to no namespace.
func (d *Door) scope(ctx context.Context, u User, r Right) (Scope, error) {
	if ok, err := d.allowed(ctx, u, r); ok || err != nil {
		return Scope{All: ok}, err
	}
	all, err := d.api.Namespaces(ctx)
	if err != nil {
		return Scope{}, err
	}
	var s Scope
	for _, ns := range all {
		r.Namespace = ns
		ok, err := d.allowed(ctx, u, r)
		if err != nil {
			return Scope{}, err
		}
		if ok {
			s.Namespaces = append(s.Namespaces, ns)
		} else {
			s.Hidden++
		}
	}
	slices.Sort(s.Namespaces)
	return s, nil
}
