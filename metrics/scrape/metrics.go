package scrape

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

type metrics struct {
	targets  prometheus.Gauge
	found    *prometheus.GaugeVec // by pool
	left     prometheus.Gauge
	foreign  prometheus.Counter
	reserved prometheus.Counter
	cut      *prometheus.CounterVec // by reason
	offender *prometheus.GaugeVec   // by namespace, pod, target (its URL) and reason, offenderLimit of them

	pools map[string]bool // in found; of Run
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		targets: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_scrape_targets", Help: "Targets that are scraped."}),
		// Prometheus' name: who looks for targets there makes it, and dashboards ask for it.
		found: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "prometheus_sd_discovered_targets", Help: "Current number of discovered targets.",
			ConstLabels: prometheus.Labels{"name": "scrape"}}, []string{"config"}),
		left:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_scrape_targets_left_out", Help: "Objects that ask to be scraped and are not."}),
		reserved: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_scrape_reserved_samples_total", Help: "Samples of targets of a namespace called ALERTS or ALERTS_FOR_STATE, which only rules write; they were not stored."}),
		foreign:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_scrape_foreign_namespace_samples_total", Help: "Samples whose target said that they are of a namespace that is not its own; they were stored as its own."}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_scrape_answers_cut_off_total", Help: "Answers of targets that were not or not wholly stored, by reason."}, []string{"reason"}),
		offender: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "perch_scrape_target_cut_off", Help: "1 for a target whose newest answer is not or not wholly stored."}, []string{"namespace", "pod", "target", "reason"}),
	}
	for _, r := range []string{cutSamples, cutBody, cutLabels, cutGarbage, cutSeries} {
		m.cut.WithLabelValues(r)
	}
	reg.MustRegister(m.targets, m.found, m.left, m.foreign, m.reserved, m.cut, m.offender)
	return m
}

const (
	cutInterval   = 5 * time.Second // between two looks for answers that are cut off
	offenderLimit = 50              // targets named in a series, the others are "others"
)

// cuts are the targets whose newest answer is cut off.
type cuts struct {
	looked time.Time
	known  map[string]cut // by URL and pool
}

type cut struct {
	reason string
	last   time.Time
}

// count tells how many targets each pool has.
func (m *metrics) count(want map[string][]*targetgroup.Group) {
	gone := m.pools
	m.pools = make(map[string]bool, len(want))
	for pool, groups := range want {
		n := 0
		for _, g := range groups {
			n += len(g.Targets)
		}
		m.found.WithLabelValues(pool).Set(float64(n))
		m.pools[pool] = true
		delete(gone, pool)
	}
	for pool := range gone {
		m.found.DeleteLabelValues(pool)
	}
}

// watchCuts counts and names targets whose answers are cut off.
func (l *Loop) watchCuts(now time.Time) {
	if now.Sub(l.cuts.looked) < cutInterval {
		return
	}
	before := l.cuts.known
	l.cuts = cuts{looked: now, known: map[string]cut{}}
	l.metrics.offender.Reset()
	for i, s := range slices.SortedFunc(cutOffs(l.Here()), func(a, b Status) int { return byURL(a, b) }) {
		key := s.Pool + " " + s.URL
		was := before[key]
		l.cuts.known[key] = cut{s.CutOff, s.Last}
		if s.Last.After(was.last) {
			l.metrics.cut.WithLabelValues(s.CutOff).Inc()
		}
		if was.reason != s.CutOff && l.parts.CutOff != nil {
			l.parts.CutOff(s)
		}
		if i < offenderLimit {
			l.metrics.offender.WithLabelValues(s.Labels["namespace"], s.Labels["pod"], s.URL, s.CutOff).Set(1)
		} else {
			l.metrics.offender.WithLabelValues("", "", "others", s.CutOff).Set(1)
		}
	}
}

// cutOffs are the rows of targets that are cut off.
func cutOffs(rows []Status) func(func(Status) bool) {
	return func(yield func(Status) bool) {
		for _, s := range rows {
			if s.CutOff != "" && !yield(s) {
				return
			}
		}
	}
}
