package daemon

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/cmd/perch/daemon/door"
	"perch/metrics/promapi"
)

// newWriteTurns are for what is written: a request takes some times its 32 MiB.
func newWriteTurns(reg prometheus.Registerer) *door.Turns {
	return door.NewTurns("write", door.Limit{All: 4, Each: 2, Wait: 10 * time.Second, Exchange: 2 * time.Minute}, reg)
}

// newReadTurns are for what reads series: its answer is in memory as a whole until the
// client has read it, when the engine's own turn is long over.
func newReadTurns(reg prometheus.Registerer) *door.Turns {
	return door.NewTurns("promql", door.Limit{All: 6, Each: 4, Wait: 30 * time.Second, Exchange: 2 * time.Minute}, reg)
}

// readers lets what reads series wait for its turn.
func readers(prom http.Handler, turns *door.Turns) http.Handler {
	return turns.Limit(prom, func(r *http.Request) bool { return !promapi.Reads(r) })
}

// writers hands to the API what door.Write allows: all, or one namespace.
func writers(prom http.Handler, turns *door.Turns) http.Handler {
	return turns.Limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := promapi.Everything()
		if !door.ScopeOf(r.Context()).All {
			a = promapi.Access{Write: true, Into: door.Into(r.Context())}
			if a.Into == "" {
				http.Error(w, "no namespace to write into", http.StatusForbidden)
				return
			}
		}
		prom.ServeHTTP(w, r.WithContext(promapi.WithAccess(r.Context(), a)))
	}), nil)
}
