package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"perch/cmd/perch/trial"
)

const (
	talkers   = 50
	perSecond = 10 // lines of each
	listen    = time.Minute
	tailGoal  = 200 * time.Millisecond
	findGoal  = time.Second
)

// latency measures how late lines are that 50 pods write: from the runtime's
// time stamp until a live tail has them, and until a search that is asked again
// and again finds them.
func latency(ctx context.Context, s *soak) error {
	if err := s.apply(ctx, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: talk, namespace: default}
spec:
  replicas: %d
  selector: {matchLabels: {app: talk}}
  template:
    metadata: {labels: {app: talk}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "docker.io/library/perch-demo:1", args: [count, -rate, "%d"]}]
`, talkers, perSecond)); err != nil {
		return err
	}
	if _, err := s.run(ctx, "rollout", "status", "deploy/talk", "--timeout=5m"); err != nil {
		return err
	}
	if err := trial.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, listen)
	defer cancel()
	found := make(chan delays, 1)
	failed := make(chan error, 1)
	go func() {
		d, err := s.search(ctx)
		found <- d
		failed <- err
	}()
	tailed, err := s.follow(ctx)
	searched := <-found
	if err = errors.Join(err, <-failed); err != nil {
		return err
	}
	s.say("in a live tail: %s, goal %s", tailed, tailGoal)
	s.say("in a search:    %s, goal %s (asked about every %s)", searched, findGoal, searchEvery)
	if len(tailed) < talkers || tailed.at(0.99) > tailGoal || len(searched) < talkers || searched.at(0.99) > findGoal {
		return errors.New("lines are late")
	}
	return nil
}

type delays []time.Duration

// at is a quantile.
func (d delays) at(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(d))[int(q*float64(len(d)-1))]
}

func (d delays) String() string {
	return fmt.Sprintf("%d lines, p50 %.0f ms, p99 %.0f ms, longest %.0f ms", len(d), ms(d.at(0.5)), ms(d.at(0.99)), ms(d.at(1)))
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// follow reads a live tail until ctx ends.
func (s *soak) follow(ctx context.Context) (delays, error) {
	body, err := s.ask(ctx, "telemetry", "/logs/api/v1/tail", url.Values{"q": {"pod:talk* kind:log"}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	began := time.Now()
	var out delays
	sc := bufio.NewScanner(body)
	for sc.Scan() {
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if !ok {
			continue
		}
		now := time.Now()
		var l line
		if err := json.Unmarshal([]byte(data), &l); err != nil {
			return nil, fmt.Errorf("read tail %q: %w", data, err)
		}
		if l.Time.After(began) { // the tail may begin with older ones
			out = append(out, now.Sub(l.Time))
		}
	}
	return out, nil // ctx ended
}

const searchEvery = 100 * time.Millisecond

// search asks for the newest lines again and again until ctx ends.
func (s *soak) search(ctx context.Context) (delays, error) {
	began := time.Now()
	seen := map[string]bool{}
	var out delays
	for trial.Pause(ctx, searchEvery) == nil {
		body, err := s.ask(ctx, "telemetry", "/logs/api/v1/query", url.Values{"q": {"pod:talk* kind:log"}, "from": {"now-3s"}, "limit": {fmt.Sprint(4 * talkers * perSecond)}})
		if err == nil {
			var text []byte
			text, err = io.ReadAll(body)
			now := time.Now()
			body.Close()
			for l := range strings.Lines(string(text)) {
				var x line
				if json.Unmarshal([]byte(l), &x) == nil && x.ID != "" && x.Time.After(began) && !seen[x.ID] {
					seen[x.ID] = true
					out = append(out, now.Sub(x.Time))
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			return nil, err
		}
	}
	return out, nil
}
