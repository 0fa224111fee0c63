package agent

import (
	"strings"

	"perch/agent/pod"
)

// parseResolver reads a resolv.conf. What it does not know it leaves out.
func parseResolver(text string) pod.Resolver {
	var r pod.Resolver
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, ";")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			r.Servers = append(r.Servers, words[1])
		case "search", "domain":
			r.Searches = nil
			for _, s := range words[1:] {
				if s != "." {
					r.Searches = append(r.Searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			r.Options = append(r.Options, words[1:]...)
		}
	}
	return r
}
