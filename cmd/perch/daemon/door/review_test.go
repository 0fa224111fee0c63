package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// apiServer counts the token reviews that it is asked for at once; each is answered
// when answer is closed.
type apiServer struct {
	answer    chan struct{}
	now, most atomic.Int64
	all       atomic.Int64
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.all.Add(1)
	n := a.now.Add(1)
	defer a.now.Add(-1)
	for m := a.most.Load(); n > m && !a.most.CompareAndSwap(m, n); m = a.most.Load() {
	}
	select {
	case <-a.answer:
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(authenticationv1.TokenReview{Status: authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "somebody"}}})
}

func reviews(t *testing.T, a *apiServer) *Reviews {
	t.Helper()
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	api, err := kubernetes.NewForConfig(&rest.Config{Host: s.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return NewReviews(api, nil, func(token string) bool { return token[0] == 's' }, prometheus.NewRegistry())
}

func TestWhatTheClusterDidNotSignIsNotAskedAbout(t *testing.T) {
	a := &apiServer{answer: make(chan struct{})}
	close(a.answer)
	r := reviews(t, a)
	for i := range 100 {
		if _, err := r.User(t.Context(), fmt.Sprintf("forged-%d", i)); !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
	if n := a.all.Load(); n != 0 {
		t.Errorf("the API server was asked %d times", n)
	}
	if u, err := r.User(t.Context(), "signed"); err != nil || u.Name != "somebody" {
		t.Errorf("%v, %v", u, err)
	}
}

func TestFewTokensAreReviewedAtOnceAndNoneWaitsForLong(t *testing.T) {
	a := &apiServer{answer: make(chan struct{})}
	r := reviews(t, a)
	r.patience = 50 * time.Millisecond
	const callers = 4 * maxReviewing
	var all sync.WaitGroup
	var busy, known atomic.Int64
	for i := range callers {
		all.Go(func() {
			_, err := r.User(t.Context(), fmt.Sprintf("signed-%d", i))
			switch {
			case err == nil:
				known.Add(1)
			case errors.Is(err, errBusy):
				if busy.Add(1) == callers-maxReviewing {
					close(a.answer)
				}
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most := a.most.Load(); most != maxReviewing || known.Load() != maxReviewing {
		t.Errorf("%d reviews at once; %d callers are known", most, known.Load())
	}
}

func TestAReviewEndsThoughTheServerDoesNotAnswer(t *testing.T) {
	a := &apiServer{answer: make(chan struct{})}
	defer close(a.answer)
	r := reviews(t, a)
	r.limit = 50 * time.Millisecond
	if _, err := r.User(t.Context(), "signed"); err == nil {
		t.Error("a server that is silent knows the caller")
	}
	if _, err := r.Allowed(t.Context(), User{Name: "somebody"}, Right{Verb: "get", Path: "/metrics"}); err == nil {
		t.Error("a server that is silent allows")
	}
}
