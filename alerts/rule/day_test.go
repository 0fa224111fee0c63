package rule

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"
)

// recording is what recorder wrote.
type recording struct {
	start  time.Time
	step   time.Duration
	length int // samples of each series
	series []*pending
}

func readRecording(t *testing.T, file string) recording {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r recording
	p := parser.NewParser(parser.Options{})
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := lines.Text()
		if rest, ok := strings.CutPrefix(text, "start "); ok {
			seconds, err := strconv.ParseInt(rest, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			r.start = time.Unix(seconds, 0).UTC()
		} else if rest, ok := strings.CutPrefix(text, "step "); ok {
			if r.step, err = time.ParseDuration(rest); err != nil {
				t.Fatal(err)
			}
		} else if !strings.HasPrefix(text, "#") {
			l, v, err := p.ParseSeriesDesc(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			r.length = max(r.length, len(v))
			r.series = append(r.series, &pending{labels: l, values: v})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

// lasting makes of a recording one that is as long as until: it is played again
// and again. Counters go on from where they were, and what tells a time of the
// recording tells that of its repetition.
func (r recording) lasting(until time.Duration) recording {
	turns := int(until/(time.Duration(r.length)*r.step)) + 1
	turn := (time.Duration(r.length) * r.step).Seconds()
	begin, end := float64(r.start.Unix()), float64(r.start.Unix())+turn
	out := recording{start: r.start, step: r.step, length: r.length * turns}
	for _, s := range r.series {
		more := 0.0 // each turn has more than the one before
		first, last := 0.0, 0.0
		seen, falls := false, false
		for _, v := range s.values {
			if v.Omitted {
				continue
			}
			if !seen {
				first, seen = v.Value, true
			}
			falls = falls || v.Value < last
			last = v.Value
		}
		name := s.labels.Get(labels.MetricName)
		counter := slices.ContainsFunc([]string{"_total", "_count", "_sum", "_bucket"}, func(end string) bool { return strings.HasSuffix(name, end) })
		switch {
		case counter && !falls:
			more = (last - first) * float64(r.length) / float64(max(1, r.length-1)) // and the step between two turns
		case !counter && last > begin-120 && last <= end+120 && last > first:
			more = turn
		}
		x := &pending{labels: s.labels}
		for k := range turns {
			for i := range r.length {
				v := parser.SequenceValue{Omitted: true}
				if i < len(s.values) && !s.values[i].Omitted {
					v = parser.SequenceValue{Value: s.values[i].Value + float64(k)*more}
				}
				x.values = append(x.values, v)
			}
		}
		out.series = append(out.series, x)
	}
	return out
}

// absent are series that rules read and a healthy cluster of one node does not
// have, and why.
var absent = map[string]string{
	"kube_daemonset_status_desired_number_scheduled":                 "perch runs no DaemonSets yet",
	"kube_daemonset_status_number_ready":                             "perch runs no DaemonSets yet",
	"kube_statefulset_replicas":                                      "perch runs no StatefulSets yet",
	"kube_statefulset_status_replicas_ready":                         "perch runs no StatefulSets yet",
	"kube_job_failed":                                                "no job failed",
	"kube_pod_container_status_last_terminated_reason":               "no container ended",
	"kube_pod_container_status_waiting_reason":                       "no container waited",
	"kube_pod_deletion_timestamp":                                    "no pod was being deleted",
	"kube_pod_status_unschedulable":                                  "every pod has a node",
	"kubelet_volume_stats_available_bytes":                           "no volume is claimed",
	"kubelet_volume_stats_capacity_bytes":                            "no volume is claimed",
	"perch_alarm_failures_total":                                     "there is no worker",
	"perch_onward_lost_lines_total":                                  "lines are not sent on",
	"perch_replica_dropped_total":                                    "there is no other node whose copies are kept",
	"perch_store_limit_series_refused_total":                         "the store is not full of series",
	"perch_recorded_overflow_lines_total":                            "there is no LogRule",
	"perch_recorded_slow_lines_total":                                "there is no LogRule",
	"perch_replica_lag_seconds":                                      "there is no other node to have a copy",
	"perch_scrape_target_cut_off":                                    "no target said too much",
	"perch_store_namespace_series_refused_total":                     "no namespace is at its budget",
	"perch_stream_lost_segments_total":                               "there is no worker, and no store of second copies",
	"perch_stream_sender_ahead_seconds":                              "there is no worker",
	"perch_tail_container_dropped_lines_total":                       "no line was dropped",
	"prometheus_remote_storage_queue_highest_timestamp_seconds":      "there is no remote write",
	"prometheus_remote_storage_queue_highest_sent_timestamp_seconds": "there is no remote write",
	"prometheus_remote_storage_samples_failed_total":                 "there is no remote write",
}

// TestADayOfAHealthyClusterIsSilent evaluates every shipped rule for 24 hours
// over half an hour that was recorded on a healthy cluster, played 48 times.
func TestADayOfAHealthyClusterIsSilent(t *testing.T) {
	const day, every = 24 * time.Hour, time.Minute
	short := readRecording(t, "testdata/healthy.txt")
	if length := time.Duration(short.length) * short.step; length < 29*time.Minute {
		t.Fatalf("only %s was recorded", length)
	}
	have := map[string]bool{}
	for _, s := range short.series {
		have[s.labels.Get(labels.MetricName)] = true
	}
	wanted, err := Selectors()
	if err != nil {
		t.Fatal(err)
	}
	for _, sel := range wanted {
		name, _, _ := strings.Cut(sel, "{")
		if !have[name] && absent[name] == "" {
			t.Errorf("%s was not recorded: silence about it proves nothing", name)
		}
		have[name] = true
	}

	rec := short.lasting(day)
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	p := parser.NewParser(parser.Options{})
	parsed, problems := parse(all, p)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration, opts.MinBlockDuration, opts.MaxBlockDuration = 0, (240 * time.Hour).Milliseconds(), (240 * time.Hour).Milliseconds()
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b := &bench{db: db, start: rec.start, step: rec.step, series: rec.series,
		engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, Parser: p,
			NoStepSubqueryIntervalFn: func(int64) int64 { return every.Milliseconds() }})}
	groups, err := b.groups(testGroup{}, testFile{}, loaded{parsed, p}, every)
	if err != nil {
		t.Fatal(err)
	}
	fired, pending, evaluated := map[string]string{}, map[string]int{}, 0
	for at := time.Duration(0); at <= day; at += every {
		if err := b.fill(at); err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			g.Eval(t.Context(), b.start.Add(at))
			for _, r := range g.Rules() {
				evaluated++
				if err := r.LastError(); err != nil {
					t.Fatalf("rule %s at %s: %v", r.Name(), at, err)
				}
			}
			for _, r := range g.AlertingRules() {
				for _, a := range r.ActiveAlerts() {
					if what := r.Name() + " " + a.Labels.String(); a.State == rules.StateFiring && fired[what] == "" {
						fired[what] = fmt.Sprintf("after %s: %v", at, a.Value)
					} else if a.State == rules.StatePending {
						pending[r.Name()]++
					}
				}
			}
		}
	}
	for what, when := range fired {
		if !strings.HasPrefix(what, "Watchdog ") {
			t.Errorf("%s fired %s", what, when)
		}
	}
	if len(fired) == 0 {
		t.Error("not even the dead-man switch fired")
	}
	t.Logf("%d series, %d evaluations of rules; pending for a while: %v", len(rec.series), evaluated, pending)
}
