package door

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// Proxy hands requests below prefix to the API server in the caller's own
// name, streams and upgrades (watch, exec) included.
func Proxy(prefix string, api *url.URL, transport http.RoundTripper, log *slog.Logger) http.Handler {
	onward := HandOn(transport, log, func(r *httputil.ProxyRequest) {
		r.SetURL(api)
		r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, prefix)
		r.Out.URL.RawPath = strings.TrimPrefix(r.In.URL.RawPath, prefix)
		r.Out.Header.Del("Cookie")
		r.Out.Header.Del("Origin") // the door has checked it
		for h := range r.Out.Header {
			if strings.HasPrefix(h, "Impersonate-") {
				r.Out.Header.Del(h)
			}
		}
		r.Out.Header.Set("Authorization", "Bearer "+UserOf(r.In.Context()).token)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if UserOf(r.Context()).token == "" {
			http.Error(w, "client certificates are for the API's own door; here send a bearer token", http.StatusForbidden)
			return
		}
		onward.ServeHTTP(w, r)
	})
}

// HandOn hands requests to another server as rewrite says, streams included.
// Request and answer flow at once: else the server takes what is left of a request
// away as soon as an answer begins, http.Transport cannot send it to its end, and
// closes the connection that the answer comes from. HTTP/2 does so by itself.
func HandOn(transport http.RoundTripper, log *slog.Logger, rewrite func(*httputil.ProxyRequest)) http.Handler {
	p := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // watches and tails are streams
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Rewrite:       rewrite,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // fails only where there is no connection
		p.ServeHTTP(w, r)
	})
}
