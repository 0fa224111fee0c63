package daemon

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"perch/alerts/evidence"
	"perch/cmd/perch/daemon/door"
)

// ownLines leaves alerts their evidence only where the caller may read the lines of
// their namespace: who may see that something fires, a Prometheus with the right to
// get /metrics, may not read logs by that.
func ownLines(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := door.ScopeOf(req.Context())
		if s.All || req.Method != http.MethodGet || !strings.Contains(req.URL.Path, "/api/v2/alerts") {
			next.ServeHTTP(w, req)
			return
		}
		got := &answer{header: http.Header{}, code: http.StatusOK}
		next.ServeHTTP(got, req)
		text := got.body.Bytes()
		if got.code == http.StatusOK {
			var all any
			err := json.Unmarshal(text, &all)
			if err == nil {
				withoutLines(all, s.Namespaces)
				text, err = json.Marshal(all)
			}
			if err != nil {
				http.Error(w, "alerts cannot be read: "+err.Error(), http.StatusInternalServerError)
				return
			}
		}
		got.header.Del("Content-Length")
		got.send(w, text)
	})
}

// withoutLines takes evidence from the alerts in an answer that are not of one of the
// namespaces, those of groups of alerts too.
func withoutLines(v any, namespaces []string) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			withoutLines(x, namespaces)
		}
	case map[string]any:
		withoutLines(v["alerts"], namespaces)
		notes, _ := v["annotations"].(map[string]any)
		labels, _ := v["labels"].(map[string]any)
		if of, _ := labels["namespace"].(string); notes != nil && (of == "" || !slices.Contains(namespaces, of)) {
			v["annotations"] = evidence.Told(notes)
		}
	}
}
