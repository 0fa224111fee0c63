package door

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// judge reviews tokens: those that begin with good are known, those that begin with
// slow are not answered before the client leaves.
type judge struct {
	mu    sync.Mutex
	asked map[string]int
	slow  atomic.Int64 // that wait now
}

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review authenticationv1.TokenReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	j.mu.Lock()
	j.asked[review.Spec.Token]++
	j.mu.Unlock()
	if strings.HasPrefix(review.Spec.Token, "slow") {
		j.slow.Add(1)
		defer j.slow.Add(-1)
		<-r.Context().Done()
		return
	}
	if strings.HasPrefix(review.Spec.Token, "good") {
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "somebody"}}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

func (j *judge) times(token string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.asked[token]
}

func reviewer(t *testing.T) (*Reviewer, *judge) {
	t.Helper()
	j := &judge{asked: map[string]int{}}
	s := httptest.NewServer(j)
	t.Cleanup(s.Close)
	api, err := kubernetes.NewForConfig(&rest.Config{Host: s.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return Reviews(api, "n1"), j
}

func known(t *testing.T, v *Reviewer, from, token string) bool {
	t.Helper()
	_, ok, err := v.Authenticate(withCaller(t.Context(), from), token)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestManyUnknownTokensMakeNoKnownOneForgotten(t *testing.T) {
	v, j := reviewer(t)
	if !known(t, v, "10.0.0.1:1", "good") {
		t.Fatal("nobody has the token")
	}
	for i := range 3 * rememberMost {
		if known(t, v, "10.0.0.2:1", fmt.Sprintf("bad-%d", i)) {
			t.Fatal("somebody has a bad token")
		}
	}
	if !known(t, v, "10.0.0.1:1", "good") || j.times("good") != 1 {
		t.Errorf("the API was asked %d times about a token that it knew", j.times("good"))
	}
	if n := len(v.nobody.have); n > rememberMost {
		t.Errorf("%d unknown tokens are remembered", n)
	}
}

func TestOneAddressHasFewTokensReviewedAtOnce(t *testing.T) {
	v, j := reviewer(t)
	v.patience = 50 * time.Millisecond
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer leave()
	const callers = 20
	var refused atomic.Int64
	for i := range callers {
		all.Go(func() {
			if _, _, err := v.Authenticate(withCaller(ctx, fmt.Sprintf("10.0.0.2:%d", i)), fmt.Sprintf("slow-%d", i)); err != nil && ctx.Err() == nil {
				refused.Add(1)
			}
		})
	}
	for end := time.Now().Add(10 * time.Second); refused.Load() < callers-reviewsOfOne; {
		if time.Now().After(end) {
			t.Fatalf("%d of %d were refused", refused.Load(), callers)
		}
		<-time.After(time.Millisecond)
	}
	if n := j.slow.Load(); n != reviewsOfOne {
		t.Errorf("%d tokens of one address are reviewed at once", n)
	}
	other := 3
	for v.turn("10.0.0.2:1") == v.turn(fmt.Sprintf("10.0.0.%d:1", other)) {
		other++ // two addresses may share their turns
	}
	if !known(t, v, fmt.Sprintf("10.0.0.%d:1", other), "good") {
		t.Error("another address is kept out")
	}
}
