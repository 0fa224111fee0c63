package route

import (
	"encoding/json"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"go.yaml.in/yaml/v3"
)

// asWritten is a configuration as its author wrote it, comments and all, with
// every secret masked. The library's own form names each setting it knows; old
// amtools refuse those they do not.
func asWritten(text, masked string) string {
	var have, safe yaml.Node
	if yaml.Unmarshal([]byte(text), &have) != nil || yaml.Unmarshal([]byte(masked), &safe) != nil {
		return masked
	}
	mask(&have, &safe)
	out, err := yaml.Marshal(&have)
	if err != nil {
		return masked
	}
	return string(out)
}

// mask takes the values of safe into have. What safe does not have goes: nobody
// has looked whether it is a secret.
func mask(have, safe *yaml.Node) {
	switch {
	case have.Kind == yaml.AliasNode && have.Alias != nil:
		comment := have.LineComment
		*have = *have.Alias
		have.Anchor, have.LineComment = "", comment
		mask(have, safe)
	case have.Kind != safe.Kind:
		*have = *safe
	case have.Kind == yaml.DocumentNode || have.Kind == yaml.SequenceNode:
		if len(have.Content) != len(safe.Content) {
			have.Content = safe.Content
			return
		}
		for i := range have.Content {
			mask(have.Content[i], safe.Content[i])
		}
	case have.Kind == yaml.MappingNode:
		values := map[string]*yaml.Node{}
		for i := 0; i+1 < len(safe.Content); i += 2 {
			values[safe.Content[i].Value] = safe.Content[i+1]
		}
		var left []*yaml.Node
		for i := 0; i+1 < len(have.Content); i += 2 {
			if v := values[have.Content[i].Value]; v != nil {
				mask(have.Content[i+1], v)
				left = append(left, have.Content[i], have.Content[i+1])
			}
		}
		have.Content = left
	default:
		if u, err := url.Parse(have.Value); safe.Value == "<secret>" && err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
			have.Value, have.Tag = u.Scheme+"://"+u.Host+"/<secret>", safe.Tag // old amtools want a URL here
			return
		}
		have.Value, have.Tag = safe.Value, safe.Tag
		if safe.Style != 0 || have.Style == yaml.LiteralStyle || have.Style == yaml.FoldedStyle {
			have.Style = safe.Style
		}
	}
}

// honest answers /api/v2/status with the configuration as it was written and
// the version of the library, which the library itself learns only from a
// linker flag.
func (r *Router) honest(next http.Handler) http.Handler {
	version := libraryVersion()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, "/api/v2/status") {
			next.ServeHTTP(w, req)
			return
		}
		a := &answer{header: http.Header{}, code: http.StatusOK}
		next.ServeHTTP(a, req)
		text := a.body.Bytes()
		var status map[string]any
		if a.code == http.StatusOK && json.Unmarshal(text, &status) == nil {
			r.mu.Lock()
			status["config"] = map[string]string{"original": r.written}
			r.mu.Unlock()
			if v, ok := status["versionInfo"].(map[string]any); ok && v["version"] == "" {
				v["version"] = version
			}
			if better, err := json.Marshal(status); err == nil {
				text = better
			}
		}
		w.Header().Set("Content-Type", a.header.Get("Content-Type"))
		w.WriteHeader(a.code)
		_, _ = w.Write(text) // the client is gone otherwise
	})
}

func libraryVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/prometheus/alertmanager" {
			return strings.TrimPrefix(d.Version, "v")
		}
	}
	return ""
}
