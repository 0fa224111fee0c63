package stats

import (
	"context"
	"math"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// restSeries is one series of cAdvisor.
type restSeries struct {
	id     uint64
	labels labels.Labels
	round  uint64
}

// runRest gathers from cAdvisor every Cold interval.
func (s *Stats) runRest(ctx context.Context) {
	for round := uint64(1); ; round++ {
		now := time.Now()
		wait := now.Truncate(s.cfg.Cold).Add(s.cfg.Cold).Sub(now)
		if round == 1 {
			wait = min(wait, s.cfg.Hot) // the page must not wait for the first numbers
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		began := time.Now()
		families, err := s.parts.Rest.Gather()
		if err != nil {
			s.metrics.restErrs.Inc() // what could be gathered is still good
		}
		s.outbox.put(s.takeRest(families, began, round))
		s.metrics.rest.Observe(time.Since(began).Seconds())
	}
}

// takeRest turns families into samples and ends series that are no more.
func (s *Stats) takeRest(families []*dto.MetricFamily, at time.Time, round uint64) []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	ms := at.UnixMilli()
	target := s.targetLabels()
	var batch []Sample
	var kept []*dto.MetricFamily
	var key strings.Builder
	for _, f := range families {
		if !s.restWanted[f.GetName()] {
			continue
		}
		kept = append(kept, f)
		for _, m := range f.GetMetric() {
			key.Reset()
			key.WriteString(f.GetName())
			for _, l := range m.GetLabel() {
				key.WriteByte(0)
				key.WriteString(l.GetName())
				key.WriteByte(1)
				key.WriteString(l.GetValue())
			}
			x := s.rest[key.String()]
			if x == nil {
				s.lastID++
				x = &restSeries{id: s.lastID, labels: makeLabels(f.GetName(), pairsOf(m), target)}
				s.rest[key.String()] = x
			}
			x.round = round
			batch = append(batch, Sample{x.id, x.labels, ms, numberOf(m)})
		}
	}
	for k, x := range s.rest {
		if x.round != round {
			batch = append(batch, Sample{x.id, x.labels, ms, math.Float64frombits(value.StaleNaN)})
			delete(s.rest, k)
		}
	}
	s.restText = kept
	return batch
}

func pairsOf(m *dto.Metric) []string {
	out := make([]string, 0, 2*len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		out = append(out, l.GetName(), l.GetValue())
	}
	return out
}

func numberOf(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	default:
		return m.GetUntyped().GetValue()
	}
}
