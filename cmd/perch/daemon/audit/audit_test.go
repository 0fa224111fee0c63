package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"perch/logs/record"
)

func TestRequestsThatBecomeLines(t *testing.T) {
	alice := &user.DefaultInfo{Name: "alice"}
	operator := &user.DefaultInfo{Name: "system:serviceaccount:ops:operator"}
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	self := &user.DefaultInfo{Name: "system:apiserver", Groups: []string{"system:masters"}}
	telemetry := &user.DefaultInfo{Name: "system:perch:telemetry"}
	for _, c := range []struct {
		what         string
		who          user.Info
		verb, object string
		writes, all  bool
	}{
		{"a person deletes", alice, "delete", "deployments", true, true},
		{"a person deletes many", alice, "deletecollection", "pods", true, true},
		{"a person reads", alice, "get", "deployments", false, true},
		{"a person watches", alice, "watch", "pods", false, true},
		{"a person reads a secret", alice, "get", "secrets", true, true},
		{"a person runs a command, the new way", alice, "get", "pods/exec", true, true},
		{"a person runs a command, the old way", alice, "create", "pods/exec", true, true},
		{"a person reads lines of a pod", alice, "get", "pods/log", false, true},
		{"a person asks what she may do", alice, "create", "selfsubjectaccessreviews", false, true},
		{"a person writes a status", alice, "patch", "pods/status", true, true},
		{"a person makes a token", alice, "create", "serviceaccounts/token", true, true},
		{"a program writes a status", operator, "update", "widgets/status", false, true},
		{"a program writes an object", operator, "update", "widgets", true, true},
		{"a program keeps its lease", operator, "update", "leases", false, true},
		{"a program writes an event", operator, "create", "events", false, false},
		{"a node writes a status", node, "patch", "pods/status", false, true},
		{"a node reads a secret", node, "get", "secrets", false, true},
		{"a controller deletes", self, "delete", "pods", false, true},
		{"telemetry makes a session", telemetry, "create", "serviceaccounts/token", false, true},
		{"nobody is known", nil, "create", "pods", false, false},
		{"a path", alice, "get", "", false, false},
	} {
		a := authorizer.AttributesRecord{User: c.who, Verb: c.verb, ResourceRequest: c.object != "", Path: "/healthz"}
		a.Resource, a.Subresource, _ = strings.Cut(c.object, "/")
		if got, why := (Policy{}).Decide(a); got != c.writes || why == "" {
			t.Errorf("%s: %v because %s", c.what, got, why)
		}
		if got, why := (Policy{All: true}).Decide(a); got != c.all || why == "" {
			t.Errorf("%s, all: %v because %s", c.what, got, why)
		}
	}
	// Each request is one line.
	for object, left := range map[string]audit.Stage{"pods": audit.StageResponseStarted, "pods/exec": audit.StageResponseComplete} {
		a := authorizer.AttributesRecord{User: alice, Verb: "create", ResourceRequest: true}
		a.Resource, a.Subresource, _ = strings.Cut(object, "/")
		if got := (Policy{}).EvaluatePolicyRule(a); got.Level != audit.LevelMetadata || fmt.Sprint(got.OmitStages) != fmt.Sprint([]audit.Stage{audit.StageRequestReceived, left}) {
			t.Errorf("%s: %+v", object, got)
		}
	}
}

func event(change func(*audit.Event)) *audit.Event {
	e := &audit.Event{AuditID: "id-1", Verb: "delete", RequestURI: "/apis/apps/v1/namespaces/shop/deployments/web", User: authnv1.UserInfo{Username: "alice"}, SourceIPs: []string{"192.0.2.7"},
		UserAgent: "kubectl/v1.36", ObjectRef: &audit.ObjectReference{Resource: "deployments", APIGroup: "apps", Namespace: "shop", Name: "web"},
		ResponseStatus: &metav1.Status{Code: 200}, StageTimestamp: metav1.NewMicroTime(time.Unix(9, 0))}
	if change != nil {
		change(e)
	}
	return e
}

func TestLinesSayWhoDidWhat(t *testing.T) {
	n := newNamer("n1")
	pod := func(e *audit.Event) {
		e.ObjectRef = &audit.ObjectReference{Resource: "pods", Namespace: "shop", Name: "web-1"}
	}
	for _, c := range []struct {
		what   string
		change func(*audit.Event)
		want   string // level, namespace, pod, body
	}{
		{"a deletion", nil, "info shop/ alice deleted deployment shop/web"},
		{"a pod's line stands with the pod's", pod, "info shop/web-1 alice deleted pod shop/web-1"},
		{"a command", func(e *audit.Event) { pod(e); e.Verb, e.ObjectRef.Subresource = "get", "exec" }, "info shop/web-1 alice ran a command in pod shop/web-1"},
		{"a scale", func(e *audit.Event) { e.Verb, e.ObjectRef.Subresource = "patch", "scale" }, "info shop/ alice patched scale of deployment shop/web"},
		{"an eviction", func(e *audit.Event) { pod(e); e.Verb, e.ObjectRef.Subresource = "create", "eviction" }, "info shop/web-1 alice evicted pod shop/web-1"},
		{"many at once", func(e *audit.Event) { e.Verb, e.ObjectRef.Name = "deletecollection", "" }, "info shop/ alice deleted all deployments in shop"},
		{"a refusal", func(e *audit.Event) { e.ResponseStatus = &metav1.Status{Code: 403, Message: "no\nright"} }, "warn shop/ alice may not delete deployment shop/web: 403 no\nright"},
		{"a failure", func(e *audit.Event) { e.ResponseStatus.Code = 404 }, "info shop/ alice failed to delete deployment shop/web: 404"},
		{"a fault of the server", func(e *audit.Event) { e.ResponseStatus.Code = 500 }, "error shop/ alice failed to delete deployment shop/web: 500"},
		{"somebody as another", func(e *audit.Event) { e.ImpersonatedUser = &authnv1.UserInfo{Username: "bob"} }, "info shop/ alice as bob deleted deployment shop/web"},
		{"a namespace's line is in it", func(e *audit.Event) {
			e.ObjectRef = &audit.ObjectReference{Resource: "namespaces", Namespace: "shop", Name: "shop"}
		}, "info shop/ alice deleted namespace shop/shop"},
		{"a node", func(e *audit.Event) { e.ObjectRef = &audit.ObjectReference{Resource: "nodes", Name: "n1"} }, "info / alice deleted node n1"},
		{"a secret is not for all readers of its namespace", func(e *audit.Event) { e.ObjectRef.Resource, e.ObjectRef.APIGroup = "secrets", "" }, "info / alice deleted secret shop/web"},
		{"nor is a right", func(e *audit.Event) {
			e.ObjectRef.Resource, e.ObjectRef.APIGroup = "rolebindings", "rbac.authorization.k8s.io"
		}, "info / alice deleted rolebinding shop/web"},
		{"a kind of others", func(e *audit.Event) { e.ObjectRef.Resource, e.ObjectRef.APIGroup = "widgets", "acme.org" }, "info shop/ alice deleted widgets shop/web"},
		{"a rehearsal", func(e *audit.Event) { e.RequestURI += "?dryRun=All" }, ""},
		{"a rehearsal that only its body told", func(e *audit.Event) { e.Annotations = map[string]string{dryRunMark: "true"} }, ""},
	} {
		r, ok := n.line(event(c.change))
		got := ""
		if ok {
			got = r.Level.String() + " " + r.Stream.Namespace + "/" + r.Stream.Pod + " " + string(r.Body)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	r, _ := n.line(event(func(e *audit.Event) {
		e.SourceIPs, e.UserAgent = []string{"198.51.100.1", "192.0.2.7"}, strings.Repeat("x", 500)
	}))
	text := fmt.Sprint(r.Fields)
	for _, want := range []string{"{user alice}", "{verb delete}", "{in shop}", "{name web}", "{resource deployments}", "{from 198.51.100.1}", "{via 192.0.2.7}", "{code 200}", "{request id-1}"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	if r.Stream.Kind != Kind || r.Time != 9e9 || len(text) > 400 {
		t.Errorf("%+v %s", r.Stream, text)
	}
}

// A store takes a batch as a whole or never: what a request says of itself must not
// make its lines too long.
func TestLinesOfAnyRequestFitABatch(t *testing.T) {
	n, long := newNamer("n1"), strings.Repeat("x", 1<<20)
	r, ok := n.line(event(func(e *audit.Event) {
		e.Verb, e.User.Username, e.UserAgent, e.AuditID = long, long, long, types.UID(long)
		e.ObjectRef = &audit.ObjectReference{Resource: long, Subresource: long, APIGroup: long, Namespace: long, Name: long}
		e.ImpersonatedUser, e.ResponseStatus = &authnv1.UserInfo{Username: long}, &metav1.Status{Code: 403, Message: long}
		e.SourceIPs = slices.Repeat([]string{"192.0.2.7"}, 1<<16)
	}))
	stream := 0
	for _, name := range record.Labels() {
		v, _ := r.Stream.Label(name)
		stream += len(v)
	}
	if lines := Default("n1").Batch + 1; !ok || lines*(r.Size()+stream+100) > maxBatch {
		t.Errorf("%v, %d lines of %d and %d bytes do not fit %d", ok, lines, r.Size(), stream, maxBatch)
	}
}

// shelf is a log store that may be away.
type shelf struct {
	mu    sync.Mutex
	lines []string
	last  record.Position
	away  bool // stores nothing
	deaf  bool // stores, but the answer is lost
}

func (s *shelf) send(h http.Handler) Send {
	return func(ctx context.Context, boot string, number int64, batch []byte) error {
		w := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, Path, strings.NewReader(string(batch)))
		req.Header.Set(bootHeader, boot)
		req.Header.Set(numberHeader, fmt.Sprint(number))
		h.ServeHTTP(w, req)
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.Code != http.StatusNoContent || s.deaf {
			s.deaf = false
			return errors.New(w.Body.String())
		}
		return nil
	}
}

func (s *shelf) sink(_ context.Context, records []record.Record, at []record.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errors.New("away")
	}
	for _, r := range records {
		s.lines = append(s.lines, string(r.Body))
	}
	s.last = at[0]
	return nil
}

func (s *shelf) have() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...)
}

func named(i int) *audit.Event {
	return event(func(e *audit.Event) { e.ObjectRef.Name = fmt.Sprint("web-", i) })
}

func TestEachRequestIsStoredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		cfg := Default("n1")
		cfg.Queue, cfg.Batch = 20, 6
		q, err := New(cfg, s.send(Receiver(record.Position{}, s.sink)), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		want := func(n int) {
			t.Helper()
			time.Sleep(20 * time.Second) // of the bubble
			have := s.have()
			seen := map[string]bool{}
			for _, l := range have {
				if seen[l] {
					t.Fatalf("%s is there twice", l)
				}
				seen[l] = true
			}
			if len(have) != n {
				t.Fatalf("%d lines, want %d: %v", len(have), n, have)
			}
		}
		for i := range 15 {
			q.ProcessEvents(named(i))
		}
		want(15)
		s.mu.Lock()
		s.deaf = true // an answer is lost: the batch comes again
		s.mu.Unlock()
		q.ProcessEvents(named(15))
		want(16)

		s.mu.Lock()
		s.away = true
		s.mu.Unlock()
		q.ProcessEvents(named(16))
		time.Sleep(time.Second)
		for i := range 30 {
			q.ProcessEvents(named(100 + i))
		}
		s.mu.Lock()
		s.away = false
		s.mu.Unlock()
		want(16 + 1 + 20 + 1) // what was held, the queue, and the word about the rest
		if have := s.have(); !strings.Contains(strings.Join(have, "\n"), "10 requests are not written down") {
			t.Error(have)
		}
		if n := testutil.ToFloat64(q.m.left); n != 10 {
			t.Errorf("%v left out, want 10", n)
		}
		for i := range 9 {
			q.ProcessEvents(named(200 + i))
		}
		cancel() // what waits is sent
		if err := <-done; err != nil {
			t.Error(err)
		}
		want(38 + 9)
	})
}

func TestABatchOfBeforeARestartIsKnown(t *testing.T) {
	s := &shelf{}
	batch := record.AppendBatch(nil, []record.Record{{Time: 1, Stream: &record.Stream{Kind: Kind}, Body: []byte("a")}}, nil)
	h := Receiver(record.Position{}, s.sink)
	put := func(boot string, number int64, want int) {
		t.Helper()
		if err := s.send(h)(t.Context(), boot, number, batch); err != nil || len(s.have()) != want {
			t.Fatalf("%d lines, want %d: %v", len(s.have()), want, err)
		}
	}
	put("x", 1, 1)
	put("x", 2, 2)
	h = Receiver(s.last, s.sink) // the store was killed
	put("x", 2, 2)
	put("x", 3, 3)
	put("y", 1, 4) // the API server was killed
	for _, broken := range []string{"", "nonsense"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, strings.NewReader(broken)))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", broken, w.Code)
		}
	}
}

func TestTheEndDoesNotWaitForAStoreThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context, _ string, _ int64, _ []byte) error { <-ctx.Done(); return ctx.Err() }
		q, err := New(Default("n1"), hang, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		q.ProcessEvents(named(1), named(2))
		time.Sleep(time.Second)
		q.ProcessEvents(named(3))
		cancel()
		began := time.Now()
		if err := <-done; err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if n := testutil.ToFloat64(q.m.left); n != 3 {
			t.Errorf("%v left out, want 3", n)
		}
	})
}
