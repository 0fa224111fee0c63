package daemon

import (
	"net/http"

	"perch/cmd/perch/daemon/door"
	"perch/metrics/promapi"
)

// writers hands to the API what door.Write allows: all, or one namespace.
func writers(prom http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := promapi.Everything()
		if !door.ScopeOf(r.Context()).All {
			a = promapi.Access{Write: true, Into: door.Into(r.Context())}
			if a.Into == "" {
				http.Error(w, "no namespace to write into", http.StatusForbidden)
				return
			}
		}
		prom.ServeHTTP(w, r.WithContext(promapi.WithAccess(r.Context(), a)))
	})
}
