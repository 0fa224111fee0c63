package daemon

import (
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// debugSocket is the name of the socket on which a role answers questions about
// itself. The runtime role has no other HTTP door, so all have this one.
func debugSocket(name string) string { return name + "-debug" }

// openDebug serves this role's metrics and profiles to root on this machine:
//
//	curl --unix-socket D/run/agent-debug.sock http://role/metrics
//	curl --unix-socket D/run/agent-debug.sock 'http://role/debug/pprof/profile?seconds=30' >cpu.pprof
func (r role) openDebug(name string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{}))
	door, err := newUnixDoor(r.cfg.Socket(debugSocket(name)), mux)
	if err != nil {
		return err
	}
	r.group.Go("debug", door.Run)
	return nil
}
