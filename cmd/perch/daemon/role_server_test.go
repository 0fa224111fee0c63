package daemon

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"perch/cmd/perch/daemon/crowd"
)

func TestWhoTheAPIKnowsIsNoStrangerInTheCrowd(t *testing.T) {
	reg := prometheus.NewRegistry()
	visitors := crowd.New("api", 10, reg)
	who := greeting(visitors, authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		name := r.Header.Get("User")
		return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, name != "nobody", nil
	}))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, _, err := who.AuthenticateRequest(r); err != nil {
			t.Error(err)
		}
	}))
	s.Listener = visitors.Listen(s.Listener)
	s.StartTLS()
	defer s.Close()
	for _, c := range []struct {
		name      string
		strangers string
	}{{"nobody", "1"}, {user.Anonymous, "1"}, {"admin", "0"}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User", c.name)
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		want := "# HELP perch_crowd_strangers Connections of a door of which it is not known whose they are.\n# TYPE perch_crowd_strangers gauge\nperch_crowd_strangers{door=\"api\"} " + c.strangers + "\n"
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "perch_crowd_strangers"); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
