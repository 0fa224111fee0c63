package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// logQuery builds what the flags but -q say, in the log language.
func logQuery(ctx context.Context, w *web, ns string, args []string, o logsOptions) (string, error) {
	var parts []string
	if !o.all {
		parts = append(parts, "namespace:"+quoted(ns))
	}
	var pods []string
	for _, arg := range args {
		if name, ok := cutService(arg); ok {
			names, err := w.podsOfService(ctx, ns, name)
			if err != nil {
				return "", err
			}
			pods = append(pods, podTerms(names)...)
			continue
		}
		t, err := podTerm(arg)
		if err != nil {
			return "", Usage{err}
		}
		pods = append(pods, t)
	}
	if o.selector != "" {
		names, err := w.podsBySelector(ctx, ns, o)
		if err != nil {
			return "", err
		}
		pods = append(pods, podTerms(names)...)
	}
	if len(pods) > 0 {
		parts = append(parts, "("+strings.Join(pods, " or ")+")")
	} else if o.query == "" && o.grep == "" && !o.all {
		return "", Usage{errors.New("say whose lines: POD, deploy/NAME, -l SELECTOR, -q QUERY or -A")}
	}
	if o.container != "" {
		parts = append(parts, "container:"+quoted(o.container))
	}
	if o.instance != "" {
		parts = append(parts, "instance:"+quoted(o.instance))
	}
	if o.previous {
		n, err := w.previousInstance(ctx, ns, args, o, strings.Join(parts, " "))
		if err != nil {
			return "", err
		}
		parts = append(parts, "instance:"+n)
	}
	if !strings.Contains(o.query, "kind:") { // whoever asks for a kind gets it
		if !o.events {
			parts = append(parts, "-kind:event")
		}
		parts = append(parts, "-kind:audit", "-kind:alert") // about pods, not of them
	}
	if o.grep != "" {
		parts = append(parts, "line:~"+inQuotes(o.grep))
	}
	return strings.Join(parts, " "), nil
}

func podTerms(names []string) (out []string) {
	for _, n := range names {
		out = append(out, "pod:"+quoted(n))
	}
	return out
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

func quoted(v string) string {
	if plain.MatchString(v) {
		return v
	}
	return inQuotes(v)
}

// inQuotes writes text as a phrase or a regular expression of the log language,
// which knows fewer escapes than Go.
func inQuotes(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// podTerm names pods by their owner, whether they still exist or not: the names
// that controllers give to their pods tell it.
func podTerm(arg string) (string, error) {
	kind, name, ok := strings.Cut(arg, "/")
	if !ok {
		return "pod:" + quoted(arg), nil
	}
	const five = "[a-z0-9]{5}"
	suffix := ""
	switch strings.ToLower(kind) {
	case "po", "pod", "pods":
		return "pod:" + quoted(name), nil
	case "deploy", "deployment", "deployments", "deployments.apps", "deployment.apps":
		suffix = "-[a-z0-9]{1,10}-" + five
	case "rs", "replicaset", "replicasets", "ds", "daemonset", "daemonsets", "job", "jobs", "rc", "replicationcontroller":
		suffix = "-" + five
	case "sts", "statefulset", "statefulsets":
		suffix = "-[0-9]+"
	case "cj", "cronjob", "cronjobs":
		suffix = "-[0-9]+-" + five
	default:
		return "", fmt.Errorf("%q: use pod, deploy, rs, sts, ds, job, cronjob or svc", arg)
	}
	return "pod:~" + inQuotes("^"+regexp.QuoteMeta(name)+suffix+"$"), nil
}
