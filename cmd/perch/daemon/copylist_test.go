package daemon

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"perch/logs/cluster"
	"perch/logs/replica"
)

func TestCopiesOfStoresThatNodesHaveNoMoreAreFormer(t *testing.T) {
	copies := func(list ...replica.Copy) []replica.Copy { return list }
	of := func(owner, id string) replica.Copy { return replica.Copy{Owner: owner, ID: id, At: time.Unix(1, 0)} }
	peer := func(node, store string, kept []replica.Copy) cluster.Peer {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if store != "" {
				w.Header().Set(replica.StoreHeader, store)
			}
			_ = json.NewEncoder(w).Encode(kept) // seen by what is listed
		}))
		t.Cleanup(srv.Close)
		return cluster.Peer{Node: node, URL: srv.URL, Client: srv.Client()}
	}
	peers := []cluster.Peer{
		peer("new", "new-2", copies(of("self", "self-1"), of("same", "same-1"))),
		peer("same", "same-1", copies(of("new", "new-1"), of("silent", "silent-1"))),
		peer("silent", "", nil),
	}
	list := copyList{self: cluster.Peer{Node: "self"}, store: "self-2", own: func() []replica.Copy { return copies(of("gone", "gone-1"), of("new", "new-2")) }, peers: func() []cluster.Peer { return peers }}
	check := func(when string) {
		t.Helper()
		var former []string
		all := list.list(t.Context(), true)
		for _, c := range all {
			if c.Former {
				former = append(former, c.ID)
			}
		}
		slices.Sort(former)
		if !slices.Equal(former, []string{"new-1", "self-1"}) || len(all) < 5 {
			t.Errorf("%s: %q of %d are former", when, former, len(all))
		}
	}
	check("at first")
	// A node that comes is asked before it is taken for the one that there was.
	list.at = time.Now().Add(-2 * copiesNow)
	peers = append(peers, peer("gone", "gone-2", nil))
	all := list.list(t.Context(), false)
	if at := slices.IndexFunc(all, func(c cluster.Copy) bool { return c.ID == "gone-1" }); at < 0 || !all[at].Former {
		t.Errorf("%+v", all)
	}
	peers = peers[:3]
	// What a node said of its store is known when it is silent.
	peers[0] = cluster.Peer{Node: "new", URL: "http://127.0.0.1:1", Client: http.DefaultClient}
	peers[2] = peer("silent", "", copies(of("self", "self-1")))
	list.at = time.Unix(1, 0)
	check("when it is silent")
}
