package source

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits of one sender.
type Limits struct {
	Lines float64       // a second
	Bytes float64       // a second, as sent
	Burst time.Duration // how much of both may come at once
	Known int           // senders that are remembered; the one silent for longest is forgotten
}

// Default returns limits which one sender does not reach in normal use, and
// which keep a runaway one from taking the disk of all others.
func Default() Limits {
	return Limits{Lines: 50_000, Bytes: 16 << 20, Burst: 10 * time.Second, Known: 2048}
}

// Validate names all problems at once.
func (l Limits) Validate() error {
	if l.Lines <= 0 || l.Bytes <= 0 || l.Burst <= 0 || l.Known <= 0 {
		return errors.New("limits of log senders must be more than 0")
	}
	return nil
}

// Sources remembers what each sender has pushed. Make it with New.
type Sources struct {
	limits Limits
	held   *prometheus.CounterVec
	known  prometheus.Gauge

	mu      sync.Mutex // guards what follows
	senders map[string]balance
}

// New returns an account of senders without entries.
func New(l Limits, reg prometheus.Registerer) (*Sources, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	s := &Sources{limits: l, senders: map[string]balance{},
		held:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_ingest_limited_total", Help: "Times a sender was over its limits and had to wait, by door."}, []string{"door"}),
		known: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_ingest_sources", Help: "Senders whose rate is known."})}
	reg.MustRegister(s.held, s.known)
	return s, nil
}

// Take accounts for what a sender pushed and tells how long it must wait before
// it may push more. Zero lines and bytes only ask. The door is for the metric.
func (s *Sources) Take(door, sender string, now time.Time, lines, bytes int) time.Duration {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.senders[sender]
	if !ok {
		if lines == 0 && bytes == 0 {
			return 0
		}
		if len(s.senders) >= s.limits.Known {
			s.forget()
		}
		b = balance{share: 1, at: now}
	}
	b, wait := b.after(s.limits, now, lines, bytes)
	s.senders[sender] = b
	s.known.Set(float64(len(s.senders)))
	if wait > 0 {
		s.held.WithLabelValues(door).Inc()
	}
	return wait
}

// forget drops the sender that was silent for longest.
func (s *Sources) forget() {
	oldest := ""
	for name, b := range s.senders {
		if oldest == "" || b.at.Before(s.senders[oldest].at) {
			oldest = name
		}
	}
	delete(s.senders, oldest)
}
