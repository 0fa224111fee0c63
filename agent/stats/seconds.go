package stats

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
)

// ringRow is a series that the ring holds second by second.
type ringRow struct {
	name  string
	pairs []string
	value func(*point) float64
	whole bool // only whole points have it
}

// ringTable lists what of fastTable the ring holds, under the same names: each
// second, and pressure and threads as often as they are stored.
func ringTable() []ringRow {
	row := func(name string, value func(*point) float64, pairs ...string) ringRow {
		return ringRow{name, pairs, value, false}
	}
	slow := func(name string, value func(*point) float64) ringRow { return ringRow{name, nil, value, true} }
	return []ringRow{
		row("container_cpu_usage_seconds_total", func(p *point) float64 { return ns(p.cpu) }, "cpu", "total"),
		row("container_cpu_cfs_throttled_seconds_total", func(p *point) float64 { return ns(p.throttled) }),
		row("container_memory_usage_bytes", func(p *point) float64 { return float64(p.usage) }),
		row("container_memory_working_set_bytes", func(p *point) float64 { return float64(p.workingSet) }),
		row("container_memory_rss", func(p *point) float64 { return float64(p.rss) }),
		row("container_memory_swap", func(p *point) float64 { return float64(p.swap) }),
		slow("container_pressure_cpu_waiting_seconds_total", func(p *point) float64 { return ns(p.cpuSome) }),
		slow("container_pressure_memory_waiting_seconds_total", func(p *point) float64 { return ns(p.memorySome) }),
		slow("container_pressure_memory_stalled_seconds_total", func(p *point) float64 { return ns(p.memoryFull) }),
		slow("container_pressure_io_waiting_seconds_total", func(p *point) float64 { return ns(p.ioSome) }),
		slow("container_pressure_io_stalled_seconds_total", func(p *point) float64 { return ns(p.ioFull) }),
		slow("container_threads", func(p *point) float64 { return float64(p.tasks) }),
	}
}

// Matcher is one condition on a label, as in PromQL: = != =~ !~.
type Matcher struct{ Name, Type, Value string }

// SecondsSeries is one series of the ring. Times are in ms; End is when it ended,
// 0 if it goes on.
type SecondsSeries struct {
	Labels map[string]string `json:"labels"`
	T      []int64           `json:"t"`
	V      []float64         `json:"v"`
	End    int64             `json:"end,omitempty"`
}

// secondsLimit is how many points one answer may have: 300 series of ten minutes.
const secondsLimit = 180_000

var errTooMany = errors.New("too many series: ask for fewer pods or a shorter time")

// Seconds are the series of the ring that match, from start to end in ms.
func (s *Stats) Seconds(ms []*labels.Matcher, start, end int64) ([]SecondsSeries, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []SecondsSeries
	points := 0
	for _, t := range slices.Concat(s.inOrder(), s.gone) {
		if !t.named {
			continue
		}
		own, target := ownLabels(t.path, t.who), s.targetLabels()
		var ring []point // read when the first series matches
		for _, row := range ringTable() {
			set := makeLabels(row.name, own, target, row.pairs)
			if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(set.Get(m.Name)) }) {
				continue
			}
			if ring == nil {
				ring = t.ring.since(start)
				ring = ring[:len(ring)-countAfter(ring, end)]
			}
			if len(ring) == 0 {
				break
			}
			if points += len(ring); points > secondsLimit {
				return nil, errTooMany
			}
			x := SecondsSeries{Labels: set.Map(), T: make([]int64, 0, len(ring)), V: make([]float64, 0, len(ring))}
			for i := range ring {
				if ring[i].whole || !row.whole {
					x.T, x.V = append(x.T, ring[i].t), append(x.V, row.value(&ring[i]))
				}
			}
			if len(x.T) == 0 {
				continue
			}
			if t.stale && t.endAt.UnixMilli() <= end {
				x.End = max(t.endAt.UnixMilli(), x.T[len(x.T)-1]) + 1
			}
			out = append(out, x)
		}
	}
	return out, nil
}

// countAfter is how many points are younger than end.
func countAfter(ring []point, end int64) int {
	n := 0
	for n < len(ring) && ring[len(ring)-1-n].t > end {
		n++
	}
	return n
}

// SecondsHandler answers Seconds as JSON. Parameters: match, a JSON list of
// Matcher; start and end in ms.
func (s *Stats) SecondsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var want []Matcher
		start, err := strconv.ParseInt(r.FormValue("start"), 10, 64)
		end, err2 := strconv.ParseInt(r.FormValue("end"), 10, 64)
		if err := errors.Join(err, err2, json.Unmarshal([]byte(r.FormValue("match")), &want)); err != nil {
			http.Error(w, fmt.Sprintf("want start and end in ms and a list of matchers: %v", err), http.StatusBadRequest)
			return
		}
		ms := make([]*labels.Matcher, 0, len(want))
		for _, m := range want {
			kind := slices.Index([]string{"=", "!=", "=~", "!~"}, m.Type)
			x, err := labels.NewMatcher(labels.MatchType(max(kind, 0)), m.Name, m.Value)
			if err != nil || kind < 0 {
				http.Error(w, fmt.Sprintf("matcher %+v: want = != =~ or !~ and a regular expression: %v", m, err), http.StatusBadRequest)
				return
			}
			ms = append(ms, x)
		}
		out, err := s.Seconds(ms, start, end)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		answer(w, out)
	})
}
