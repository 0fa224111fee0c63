package evidence

import (
	"cmp"
	"fmt"
	"maps"
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
	noteChanges = "perch_changes" // who changed it, and what was done to and by its owner
	noteValues  = "perch_values"  // what it uses
	noteMissing = "perch_missing" // what could not be looked up, and why
)

// From is the annotation that names who told an alert that no rule of this cluster
// makes.
const From = "perch_from"

// Told are the annotations of an alert without what was looked up for it.
func Told[V any](notes map[string]V) map[string]V {
	out := maps.Clone(notes)
	maps.DeleteFunc(out, func(name string, _ V) bool { return strings.HasPrefix(name, "perch_") && name != From })
	return out
}

// Limits of one annotation in bytes, and of one line in it.
const (
	linesSize, eventsSize, changesSize, valuesSize, missingSize = 3000, 2000, 1000, 400, 300
	lineSize                                                    = 300
	linesCount, eventsCount, changesCount                       = 20, 10, 8
)

// plan is what to look up for one alert. Empty fields are not asked.
type plan struct {
	lines, events, changes string // queries of the language of logs
	owner                  string // expression whose answer has owner_kind and owner_name
	values                 []measure
	link                   string // path on the page
	logs                   string // what the page of logs is asked; empty: lines
}

// measure is one number with its unit.
type measure struct{ name, expr, unit string }

// object is one of the cluster.
type object struct{ ns, kind, name string }

// events are what happened to it.
func (o object) events() string {
	return o.within("kind:event") + " object:" + strconv.Quote(o.kind+"/"+o.name)
}

// changes are what people and programs asked the API to do to it, and entering it.
func (o object) changes() string {
	resource := strings.ToLower(o.kind) + "s"
	return o.within("kind:audit") + " resource:" + strconv.Quote(resource) + " name:" + strconv.Quote(o.name) +
		" (verb:create or verb:update or verb:patch or verb:delete or subresource:exec or subresource:attach) code:<400"
}

func (o object) within(query string) string {
	if o.ns == "" {
		return query
	}
	return query + " namespace:" + strconv.Quote(o.ns)
}

// story is everything about it, on the page of logs.
func (o object) story(lines string) string {
	out := "/logs?q=" + url.QueryEscape("("+o.events()+") or ("+o.changes()+")")
	if lines != "" {
		out += url.QueryEscape(" or (" + lines + ")")
	}
	return out
}

// owners are labels of alerts that name an object that others belong to, the
// nearest first.
var owners = []struct{ label, kind string }{
	{"deployment", "Deployment"}, {"statefulset", "StatefulSet"}, {"daemonset", "DaemonSet"}, {"job_name", "Job"}, {"cronjob", "CronJob"}, {"replicaset", "ReplicaSet"},
	{"horizontalpodautoscaler", "HorizontalPodAutoscaler"}, {"persistentvolumeclaim", "PersistentVolumeClaim"},
}

// ask decides what to look up from the labels.
func ask(l map[string]string) plan {
	ns, pod, node := l["namespace"], l["pod"], l["node"]
	in := "namespace:" + strconv.Quote(ns)
	switch {
	case ns != "" && pod != "":
		p := plan{lines: "kind:log " + in + " pod:" + strconv.Quote(pod), events: "kind:event " + in + " pod:" + strconv.Quote(pod),
			changes: object{ns, "Pod", pod}.changes(), link: "/pods/" + url.PathEscape(ns) + "/" + url.PathEscape(pod)}
		at := fmt.Sprintf("namespace=%s,pod=%s", strconv.Quote(ns), strconv.Quote(pod))
		if c := l["container"]; c != "" {
			p.lines += " container:" + strconv.Quote(c)
			at += ",container=" + strconv.Quote(c)
		} else {
			at += `,container!=""`
		}
		p.owner = fmt.Sprintf(`kube_pod_owner{job="kube-state-metrics",namespace=%s,pod=%s}`, strconv.Quote(ns), strconv.Quote(pod))
		p.values = []measure{
			{"cpu", `sum(rate(container_cpu_usage_seconds_total{job="kubelet",` + at + "}[30s]))", "cores"},
			{"memory", `sum(max_over_time(container_memory_working_set_bytes{job="kubelet",` + at + "}[15s]))", "bytes"},
			{"memory limit", `sum(kube_pod_container_resource_limits{job="kube-state-metrics",` + at + `,resource="memory"})`, "bytes"},
			{"restarts", `sum(kube_pod_container_status_restarts_total{job="kube-state-metrics",` + at + "})", ""},
		}
		return p
	case ns != "":
		for _, x := range owners {
			if name := l[x.label]; name != "" {
				return askOwner(object{ns, x.kind, name})
			}
		}
		return plan{link: "/dash/perch-pods?ns=" + url.QueryEscape(ns)}
	case node != "":
		o := object{"", "Node", node}
		at := `{namespace="",node=` + strconv.Quote(node) + "}"
		return plan{events: o.events(), changes: o.changes(), link: "/dash/perch-nodes?var-node=" + url.QueryEscape(node), logs: "node:" + strconv.Quote(node) + " level:>=warn", values: []measure{
			{"cpu busy", "100 * node:cpu_busy:ratio" + at, "%"}, {"memory used", "100 * node:memory_used:ratio" + at, "%"}}}
	}
	return plan{link: "/alerts?tab=history"}
}

// askOwner asks for an object that has pods, or is none.
func askOwner(o object) plan {
	p := plan{events: o.events(), changes: o.changes()}
	switch o.kind {
	case "HorizontalPodAutoscaler", "PersistentVolumeClaim", "CronJob":
	default:
		p.lines = "kind:log namespace:" + strconv.Quote(o.ns) + " pod:" + strconv.Quote(o.name+"-") + "*"
		p.values = []measure{{"pods ready", fmt.Sprintf(`sum(kube_pod_status_ready{job="kube-state-metrics",condition="true",namespace=%s,pod=~%s})`, strconv.Quote(o.ns), strconv.Quote(quoteMeta(o.name)+"-.+")), ""}}
	}
	p.link = o.story(p.lines)
	if o.kind == "Deployment" {
		p.link = "/dash/perch-workloads?ns=" + url.QueryEscape(o.ns) + "&var-deployment=" + url.QueryEscape(o.name)
	}
	return p
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
	if logs := cmp.Or(p.logs, strings.TrimPrefix(p.lines, "kind:log ")); logs != "" {
		set(noteLogs, "/logs", url.Values{"q": {logs}})
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
