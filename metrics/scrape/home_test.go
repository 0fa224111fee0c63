package scrape

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/metrics/target"
)

func TestATargetMakesSeriesOfItsNamespaceOnly(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "spoof{namespace=\"blue\"} 1\nspoof{namespace=\"blue\",exported_namespace=\"x\"} 2\nown{namespace=\"ops\"} 3\nnone 4\n")
	}))
	t.Cleanup(app.Close)
	address := strings.TrimPrefix(app.URL, "http://")
	job := func(name, from, home, label, settings string) target.Job {
		j := jobOf(name, address, "/"+name, settings)
		j.From = from
		j.Targets[0].From, j.Targets[0].Namespace, j.Targets[0].Labels["namespace"] = from, home, label
		return j
	}
	const honor = "honor_labels: true\n"
	jobs := []target.Job{
		job("honest", "podmonitor/red/a", "red", "red", ""),
		job("honors", "podmonitor/red/b", "red", "red", honor),
		job("relabels", "podmonitor/red/c", "red", "red", "metric_relabel_configs: [{target_label: namespace, replacement: blue}]\n"),
		job("moves", "podmonitor/red/d", "red", "blue", ""),
		job("elsewhere", "podmonitor/ops/e", "red", "red", honor),
		job("takes", "podmonitor/ops/h", "red", "ops", ""),
		job("takes later", "podmonitor/ops/i", "red", "red", "metric_relabel_configs: [{target_label: namespace, replacement: ops}]\n"),
		job("wide takes", "podmonitor/all/j", "red", "all", ""),
		job("wide", "podmonitor/all/f", "red", "red", honor),
		job("older", "podmonitor/red/g", "", "red", honor),
		job("leaves out", "podmonitor/red/k", "red", "red", "metric_relabel_configs: [{regex: namespace, action: labeldrop}]\n"),
		job("has none", "podmonitor/red/l", "red", "", ""),
	}
	s, reg := newStore(t), prometheus.NewRegistry()
	l := runLoop(t, s, Default(), Parts{Jobs: func() ([]target.Job, []target.Dropped) { return jobs, nil }, Wide: func(ns string) bool { return ns == "all" }}, reg)
	got := map[string]string{} // job and value → namespaces
	want := map[string]string{
		"honest spoof 1": "red blue", "honest own 3": "red ops", "honest none 4": "red", "honest up": "red",
		"honors spoof 1": "red blue", "honors spoof 2": "red x blue", "honors own 3": "red ops", "honors none 4": "red", "honors up": "red",
		"relabels spoof 1": "red blue blue", "relabels none 4": "red blue", "relabels up": "red",
		"moves none 4": "red blue", "moves up": "red blue",
		"elsewhere spoof 1": "red blue", "elsewhere own 3": "red ops", "elsewhere none 4": "red",
		"takes spoof 1": "red ops blue", "takes none 4": "red ops", "takes up": "red", // of what is told about a scrape the library keeps no exported label
		"takes later none 4": "red ops", "takes later up": "red",
		"wide takes none 4": "all", "wide takes up": "all",
		"wide spoof 1": "blue", "wide own 3": "ops", "wide none 4": "red",
		"older spoof 1": "red blue", "older none 4": "red",
		"leaves out none 4": "red", "leaves out up": "red", "has none none 4": "red", "has none up": "red", "has none own 3": "red ops",
	}
	read := func() bool {
		clear(got)
		for _, name := range []string{"spoof", "own", "none", "up"} {
			found, _ := latest(t, s, name)
			for text, v := range found {
				key := labelOf(text, "job") + " " + name
				if name != "up" {
					key += fmt.Sprint(" ", v)
				}
				got[key] = strings.Join(strings.Fields(labelOf(text, "namespace")+" "+labelOf(text, "exported_namespace")+" "+labelOf(text, "exported_exported_namespace")), " ")
			}
		}
		for key := range want {
			if _, there := got[key]; !there {
				return false
			}
		}
		return true
	}
	eventually(t, 2*time.Minute, read, func() string { return fmt.Sprint("not all came: ", got) })
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			t.Errorf("%s is of %q, want %q", key, got[key], want[key])
		}
	}
	if n := testutil.ToFloat64(l.metrics.foreign); n < 6 {
		t.Errorf("%g samples were counted", n)
	}
	rows := map[string]Status{}
	for _, r := range l.Here() {
		rows[r.Labels["job"]] = r
	}
	if r := rows["honors"]; r.Foreign != 3 || !strings.Contains(r.Error, `namespace "`) || !strings.Contains(r.Error, `stored as "red"`) || r.Health != "up" || r.CutOff != "" {
		t.Errorf("the listing says %+v", r)
	}
	if ls := rows["takes"].Labels; ls["namespace"] != "red" {
		t.Errorf("whoever may see ops sees a target of red: %v", ls)
	}
	for _, honest := range []string{"honest", "wide", "wide takes"} {
		if r := rows[honest]; r.Foreign != 0 || r.Error != "" {
			t.Errorf("%s: %+v", honest, r)
		}
	}
}

// What alerts were at a restart is read from these series: a namespace does not say it.
func TestATargetOfANamespaceDoesNotSayWhatAlertsAre(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ALERTS{alertname=\"NodeDown\",alertstate=\"firing\"} 1\nALERTS_FOR_STATE{alertname=\"NodeDown\"} 1\nplain 1\n")
	}))
	t.Cleanup(app.Close)
	job := func(name, from, settings string) target.Job {
		j := jobOf(name, strings.TrimPrefix(app.URL, "http://"), "/"+name, settings)
		j.From = from
		j.Targets[0].From, j.Targets[0].Namespace, j.Targets[0].Labels["namespace"] = from, "red", "red"
		return j
	}
	jobs := []target.Job{
		job("says", "podmonitor/red/a", ""),
		job("relabels", "podmonitor/red/b", "metric_relabel_configs: [{source_labels: [__name__], regex: plain, target_label: other, replacement: x}, {source_labels: [__name__], regex: up, target_label: __name__, replacement: ALERTS}]\n"),
		job("wide", "podmonitor/all/c", ""),
	}
	s := newStore(t)
	l := runLoop(t, s, Default(), Parts{Jobs: func() ([]target.Job, []target.Dropped) { return jobs, nil }, Wide: func(ns string) bool { return ns == "all" }}, prometheus.NewRegistry())
	eventually(t, 2*time.Minute, func() bool { found, _ := latest(t, s, "plain"); return len(found) == 3 }, func() string { return "not all came" })
	for _, name := range []string{"ALERTS", "ALERTS_FOR_STATE"} {
		found, _ := latest(t, s, name)
		for text := range found {
			if labelOf(text, "job") != "wide" {
				t.Errorf("stored: %s", text)
			}
		}
		if len(found) != 1 {
			t.Errorf("%d series %s, want that of who may say it", len(found), name)
		}
	}
	if n := testutil.ToFloat64(l.metrics.reserved); n < 4 {
		t.Errorf("%g were counted", n)
	}
}

func TestWhatIsFoundElsewhereIsScrapedThere(t *testing.T) {
	for _, c := range []struct {
		from, found string
		good        bool
	}{{"podmonitor/ops/a", "red", false}, {"podmonitor/red/a", "red", true}, {"podmonitor/all/a", "red", true}, {"podmonitor/ops/a", "", true}} {
		l := &Loop{parts: Parts{Wide: func(ns string) bool { return ns == "all" }}}
		_, good, notes := l.kept(target.Target{From: c.from, Address: "192.0.2.9:1", Namespace: strings.Split(c.from, "/")[1], Found: c.found, Labels: map[string]string{"pod": "p"}})
		if good != c.good || (len(notes) == 0) != c.good {
			t.Errorf("%v: %v, %v", c, good, notes)
		}
	}
}

// labelOf is the value of a label in the text of a set.
func labelOf(set, name string) string {
	for _, sep := range []string{"{", " "} {
		if _, rest, ok := strings.Cut(set, sep+name+`="`); ok {
			value, _, _ := strings.Cut(rest, `"`)
			return value
		}
	}
	return ""
}
