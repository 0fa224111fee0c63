package alarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/alerts/evidence"
	"perch/alerts/route"
)

// Config of a watcher.
type Config struct {
	File     string // keeps what the server told
	Node     string // this one
	Server   string // shown to people
	Every    time.Duration
	Patience time.Duration // without an answer, then it tells
	Again    time.Duration // how often a firing alert is told to the router
	Settle   time.Duration // a server that answers may not know whom to tell for so long: it has just begun
}

// Default asks often enough that people hear of a dead server within seconds,
// and waits long enough for one that is restarted.
func Default() Config {
	return Config{Every: 3 * time.Second, Patience: 15 * time.Second, Again: time.Minute, Settle: 2 * time.Minute}
}

// Parts is what a watcher works with.
type Parts struct {
	Ask   Asker
	Apply func(config string, templates []string) error // puts receivers into force; empty: none
	Send  func(context.Context, ...route.Alert) error   // to the receivers
	Note  func(context.Context, evidence.Transition)    // for the history
	Known func() []route.Alert                          // what was sent, also by the process before
}

// Alarm watches the server of a worker.
type Alarm struct {
	cfg  Config
	with Parts
	log  *slog.Logger
	told Told
	tag  string

	unsure time.Time // since when the server answers and cannot say whom to tell; zero: it can
	blind  bool      // and that has lasted

	firing  *route.Alert
	silence prometheus.Gauge
	fires   prometheus.Gauge
	failed  *prometheus.CounterVec
}

// Labels of the alert of a node.
func Labels(node string) map[string]string {
	return map[string]string{"alertname": "ServerUnreachable", "node": node, "severity": "critical"}
}

// New reads what the server told before. A file that cannot be read is as none:
// the server tells again.
func New(cfg Config, with Parts, log *slog.Logger, reg prometheus.Registerer) *Alarm {
	a := &Alarm{cfg: cfg, with: with, log: log,
		silence: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_alarm_server_silent_seconds", Help: "Time since the server's last answer to this node."}),
		fires:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_alarm_firing", Help: "1 while this node tells people that its server is gone, else 0."}),
		failed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_alarm_failures_total", Help: "What a watcher could not do: ask, learn (for two minutes and more the server could not say whom to tell), keep (the file), apply (the receivers), send."}, []string{"what"})}
	for _, what := range []string{"ask", "learn", "keep", "apply", "send"} {
		a.failed.WithLabelValues(what)
	}
	reg.MustRegister(a.silence, a.fires, a.failed)
	text, err := os.ReadFile(cfg.File)
	if err == nil {
		err = json.Unmarshal(text, &a.told)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("receivers were not read, the server tells them again", "err", err)
		a.told = Told{}
	}
	if a.told.Config != "" {
		if err := with.Apply(a.told.Config, a.told.Templates); err != nil {
			log.Warn("receivers cannot be used, the server tells them again", "err", err)
			a.told = Told{}
		}
	}
	for _, k := range with.Known() {
		if maps.Equal(k.Labels, Labels(cfg.Node)) && k.Ends.After(time.Now()) {
			a.firing = &k
			a.fires.Set(1)
		}
	}
	return a
}

// Run watches until ctx ends. What fires then stays so: the next process tells
// its end.
func (a *Alarm) Run(ctx context.Context) error {
	tick := time.NewTicker(a.cfg.Every)
	defer tick.Stop()
	answered, looked := time.Now(), time.Now()
	var sent time.Time
	for {
		heard := a.ask(ctx)
		now := time.Now()
		if heard || now.Sub(looked) > 4*a.cfg.Every { // or this process was paused, and knows nothing of that time
			answered = now
		}
		looked = now
		a.silence.Set(now.Sub(answered).Seconds())
		act, why := Decide(View{Now: now, Answered: answered, Heard: heard, Firing: a.firing != nil, Told: a.told}, a.cfg.Patience)
		switch {
		case ctx.Err() != nil:
			return nil
		case act == Tell && (a.firing == nil || now.Sub(sent) >= a.cfg.Again):
			sent = now
			a.tell(ctx, now, answered, why)
		case act == Resolve:
			a.resolve(ctx, now, why)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ask asks the server and learns; it answers whether the server lives.
func (a *Alarm) ask(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Every)
	defer cancel()
	got, err := a.with.Ask(ctx, a.tag)
	if err != nil {
		a.unsure, a.blind = time.Time{}, false
		a.failed.WithLabelValues("ask").Inc()
		a.log.Debug("server did not answer", "err", err)
		return false
	}
	a.settle(time.Now(), got.Problem)
	if got.New != nil {
		a.learn(*got.New, got.Tag)
	}
	return true
}

// settle counts that the server cannot say whom to tell once that has lasted: one that
// was started does not know its nodes yet.
func (a *Alarm) settle(now time.Time, problem string) {
	switch {
	case problem == "":
		a.unsure, a.blind = time.Time{}, false
		return
	case a.unsure.IsZero():
		a.unsure = now
	}
	if now.Sub(a.unsure) < a.cfg.Settle {
		a.log.Debug("server told no receivers", "why", problem)
		return
	}
	a.failed.WithLabelValues("learn").Inc()
	if !a.blind {
		a.blind = true
		a.log.Warn("server tells no receivers", "why", problem, "since", a.unsure)
	}
}

// learn puts into force and on disk what the server told; what cannot be used
// is asked for again.
func (a *Alarm) learn(t Told, tag string) {
	if a.firing != nil && t.Config == "" {
		return // it is told the end first; then this is asked again
	}
	if t.Config != a.told.Config || !slices.Equal(t.Templates, a.told.Templates) {
		if err := a.with.Apply(t.Config, t.Templates); err != nil {
			a.failed.WithLabelValues("apply").Inc()
			a.log.Warn("receivers cannot be used, those before stay", "err", err)
			return
		}
	}
	a.told = t
	var err error
	if t.Config == "" {
		if err = os.Remove(a.cfg.File); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	} else {
		err = route.ReplaceFile(a.cfg.File, func(w io.Writer) (int64, error) {
			return 0, json.NewEncoder(w).Encode(t)
		})
	}
	if err != nil {
		a.failed.WithLabelValues("keep").Inc()
		a.log.Warn("receivers were not kept on disk", "err", err)
		return
	}
	a.tag = tag
}

func (a *Alarm) tell(ctx context.Context, now, answered time.Time, why string) {
	first := a.firing == nil
	if first {
		a.firing = &route.Alert{Labels: Labels(a.cfg.Node), Starts: now, Source: a.cfg.Server, Annotations: map[string]string{
			"summary":     fmt.Sprintf("node %s has had no answer from the server %s since %s: nobody else sends alerts now", a.cfg.Node, a.cfg.Server, answered.UTC().Format("15:04:05 MST")),
			"description": "The node tells this itself. Look whether the server's machine runs and answers (perch status there); pods on this node go on, but nothing is changed, and other alerts wait until it is back.",
		}}
	}
	a.firing.Ends = now.Add(4 * a.cfg.Again)
	if err := a.with.Send(ctx, *a.firing); err != nil {
		a.failed.WithLabelValues("send").Inc()
		a.log.Error("people were not told that the server is gone", "err", err)
		if first {
			a.firing = nil // from the start again
		}
		return
	}
	a.fires.Set(1)
	if first {
		a.log.Error("server unreachable, people are told", "reason", why, "server", a.cfg.Server)
		a.with.Note(ctx, evidence.Transition{Alert: evidence.Alert(*a.firing), Firing: true, At: now})
	}
}

func (a *Alarm) resolve(ctx context.Context, now time.Time, why string) {
	end := *a.firing
	end.Ends = now
	if err := a.with.Send(ctx, end); err != nil {
		a.failed.WithLabelValues("send").Inc()
		a.log.Error("people were not told that the server is back", "err", err)
		return // at the next tick
	}
	a.firing = nil
	a.fires.Set(0)
	a.log.Info("server reachable again", "reason", why, "seconds", int(now.Sub(end.Starts).Seconds()))
	a.with.Note(ctx, evidence.Transition{Alert: evidence.Alert(end), At: now})
}
