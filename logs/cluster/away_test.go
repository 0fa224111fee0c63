package cluster

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"perch/logs/query"
)

// mute takes questions and never answers, as a machine without power does.
func mute(t *testing.T) Peer {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
		<-r.Context().Done()
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return Peer{Node: "n1", URL: s.URL, Client: http.DefaultClient}
}

func TestTheNextCopyAnswersWhenTheMachineOfTheFirstIsGoneToo(t *testing.T) {
	self, follower := newNode(t), newNode(t)
	follower.add(t, line("n1", "shop", 2, "copy"))
	gone := mute(t)
	good, silent := copyOf(follower, time.Unix(0, 20)), copyOf(follower, time.Unix(0, 20))
	silent.Peer, silent.By = gone, "n3"
	f := New(Parts{Self: "n0", Local: self.engine,
		Peers:  func() []Peer { return []Peer{gone} },
		Copies: func(context.Context, bool) []Copy { return []Copy{silent, good} }}, quiet())
	var have []string
	sum, err := f.Query(t.Context(), query.Request{To: 10, Timeout: time.Second}, func(l *query.Line) error { have = append(have, string(l.Body)); return nil })
	if err != nil || len(have) != 1 || sum.Partial || len(sum.Missing) > 0 {
		t.Errorf("%v %+v %v", have, sum, err)
	}
}

func TestCountsOfValuesAreThoseOfAllNodes(t *testing.T) {
	a, b := newNode(t), newNode(t)
	for n, of := range map[*node]string{a: "xxxyy", b: "zzzyy"} {
		for i, pod := range of {
			r := line("n", "shop", int64(i+1), "body")
			r.Stream.Pod = string(pod)
			n.add(t, r)
		}
	}
	v, err := fan(a, b).Values(t.Context(), query.Request{To: 10, Field: "pod", Limit: 1})
	if err != nil || len(v.Values) != 1 || v.Values[0] != (query.ValueCount{Value: "y", Count: 4}) {
		t.Fatal(v, err)
	}
}
