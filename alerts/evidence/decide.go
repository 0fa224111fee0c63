package evidence

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Names of the annotations.
const (
	noteLink    = "perch_link"    // the object on the page, around the beginning of the alert
	noteLogs    = "perch_logs"    // its lines on the page
	noteLines   = "perch_lines"   // the last of them
	noteEvents  = "perch_events"  // what happened to the object
	noteChanges = "perch_changes" // what was done to its owner
	noteValues  = "perch_values"  // what it uses
	noteMissing = "perch_missing" // what could not be looked up, and why
)

// Limits of one annotation in bytes, and of one line in it.
const (
	linesSize, eventsSize, changesSize, valuesSize, missingSize = 3000, 2000, 1000, 400, 300
	lineSize                                                    = 300
	linesCount, eventsCount, changesCount                       = 20, 10, 5
)

// plan is what to look up for one alert. Empty fields are not asked.
type plan struct {
	lines, events string // queries of the language of logs
	owner         string // expression whose answer has owner_kind and owner_name
	values        []measure
	link          string // path on the page
}

// measure is one number with its unit.
type measure struct{ name, expr, unit string }

// ask decides what to look up from the labels.
func ask(l map[string]string) plan {
	ns, pod, node := l["namespace"], l["pod"], l["node"]
	in := "namespace:" + strconv.Quote(ns)
	switch {
	case ns != "" && pod != "":
		p := plan{lines: "kind:log " + in + " pod:" + strconv.Quote(pod), events: "kind:event " + in + " pod:" + strconv.Quote(pod),
			link: "/pods/" + url.PathEscape(ns) + "/" + url.PathEscape(pod)}
		at := fmt.Sprintf("namespace=%s,pod=%s", strconv.Quote(ns), strconv.Quote(pod))
		if c := l["container"]; c != "" {
			p.lines += " container:" + strconv.Quote(c)
			at += ",container=" + strconv.Quote(c)
		} else {
			at += `,container!=""`
		}
		p.owner = fmt.Sprintf("kube_pod_owner{namespace=%s,pod=%s}", strconv.Quote(ns), strconv.Quote(pod))
		p.values = []measure{
			{"cpu", "sum(rate(container_cpu_usage_seconds_total{" + at + "}[30s]))", "cores"},
			{"memory", "sum(max_over_time(container_memory_working_set_bytes{" + at + "}[15s]))", "bytes"},
			{"memory limit", "sum(kube_pod_container_resource_limits{" + at + `,resource="memory"})`, "bytes"},
			{"restarts", "sum(kube_pod_container_status_restarts_total{" + at + "})", ""},
		}
		return p
	case ns != "":
		for label, kind := range map[string]string{"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet", "job_name": "Job", "horizontalpodautoscaler": "HorizontalPodAutoscaler"} {
			name := l[label]
			if name == "" {
				continue
			}
			p := plan{events: "kind:event " + in + " object:" + strconv.Quote(kind+"/"+name), link: "/pods?ns=" + url.QueryEscape(ns)}
			if kind != "HorizontalPodAutoscaler" {
				p.lines = "kind:log " + in + " pod:" + strconv.Quote(name+"-") + "*"
				p.values = []measure{{"pods ready", fmt.Sprintf(`sum(kube_pod_status_ready{condition="true",namespace=%s,pod=~%s})`, strconv.Quote(ns), strconv.Quote(quoteMeta(name)+"-.+")), ""}}
			}
			return p
		}
		return plan{link: "/pods?ns=" + url.QueryEscape(ns)}
	case node != "":
		at := "{node=" + strconv.Quote(node) + "}"
		return plan{events: "kind:event object:" + strconv.Quote("Node/"+node), link: "/alerts", values: []measure{
			{"cpu busy", "100 * node:cpu_busy:ratio" + at, "%"}, {"memory used", "100 * node:memory_used:ratio" + at, "%"}}}
	}
	return plan{link: "/alerts"}
}

// quoteMeta escapes a name of an object for a regular expression.
func quoteMeta(name string) string { return strings.ReplaceAll(name, ".", `\.`) }

// links point at the minutes around the beginning of the alert.
func links(page *url.URL, p plan, began time.Time) map[string]string {
	out := map[string]string{}
	from, to := began.Add(-15*time.Minute).UTC().Format(time.RFC3339), began.Add(10*time.Minute).UTC().Format(time.RFC3339)
	set := func(note, path string, more url.Values) {
		u, err := page.Parse(path)
		if err != nil {
			return // no object has such a name
		}
		q := u.Query()
		q.Set("from", from)
		q.Set("to", to)
		for k, v := range more {
			q[k] = v
		}
		u.RawQuery = q.Encode()
		out[note] = u.String()
	}
	set(noteLink, cmp.Or(p.link, "/alerts"), url.Values{"at": {began.UTC().Format(time.RFC3339)}})
	if p.lines != "" {
		set(noteLogs, "/logs", url.Values{"q": {strings.TrimPrefix(p.lines, "kind:log ")}})
	}
	return out
}

// joined writes lines, oldest first, into at most size bytes: the newest stay.
func joined(lines []Line, size int) string {
	var kept []string
	left := size
	for i := len(lines) - 1; i >= 0; i-- {
		text := lines[i].Time.UTC().Format("15:04:05.000") + " " + cut(lines[i].Text, lineSize)
		if left -= len(text) + 1; left < 0 {
			break
		}
		kept = append([]string{text}, kept...)
	}
	return strings.Join(kept, "\n")
}

// cut shortens to size bytes of valid text on one line.
func cut(text string, size int) string {
	text = strings.ToValidUTF8(strings.ReplaceAll(strings.TrimRight(text, "\r\n"), "\n", "⏎"), "�")
	if len(text) <= size {
		return text
	}
	return strings.ToValidUTF8(text[:size-len("…")], "") + "…"
}

// amount prints a number for people.
func amount(v float64, unit string) string {
	switch unit {
	case "bytes":
		return fmt.Sprintf("%.0fMi", v/(1<<20))
	case "%":
		return fmt.Sprintf("%.0f%%", v)
	case "":
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
	return fmt.Sprintf("%.3g %s", v, unit)
}
