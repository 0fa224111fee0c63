package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"perch/alerts/route"
	"perch/logs/query"
	"perch/logs/record"
)

// silenceExpired is what the history says of a silence whose time is over.
const silenceExpired = "silence expired"

// lookForEnds is how often silences are looked for whose time is over.
const lookForEnds = 5 * time.Second

// silenceEnds writes into the history that silences ended by themselves, each once.
// What is written is asked of the history itself, so that a process that was killed
// between any two steps leaves nothing out and says nothing twice.
type silenceEnds struct {
	lapsed func(context.Context) ([]route.Silence, error)
	search query.Searcher // of the history
	keep   func(context.Context, record.Record) error
	kept   func() time.Duration // how long the history goes back; 0: for ever
	log    *slog.Logger

	told    map[string]bool // by id, of those that are lapsed; Run's own
	failing bool
}

func newSilenceEnds(router *route.Router, lines *lines, log *slog.Logger) *silenceEnds {
	return &silenceEnds{lapsed: router.Lapsed, search: lines.engine, keep: lines.keep, kept: lines.kept, log: log}
}

// Run looks until ctx ends. What could not be written is tried again.
func (s *silenceEnds) Run(ctx context.Context) error {
	tick := time.NewTicker(lookForEnds)
	defer tick.Stop()
	for {
		err := s.look(ctx, time.Now())
		if err != nil && !s.failing && ctx.Err() == nil {
			s.log.Warn("ends of silences were not written into the history, trying again", "err", err)
		}
		s.failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *silenceEnds) look(ctx context.Context, now time.Time) error {
	ended, err := s.lapsed(ctx)
	if err != nil {
		return err
	}
	told := map[string]bool{}
	var errs error
	for _, x := range ended {
		if back := s.kept(); s.told[x.ID] || back > 0 && now.Sub(x.Ends) > back {
			told[x.ID] = true
		} else if err := s.tell(ctx, x); err != nil {
			errs = errors.Join(errs, err)
		} else {
			told[x.ID] = true
		}
	}
	s.told = told
	return errs
}

func (s *silenceEnds) tell(ctx context.Context, x route.Silence) error {
	at, found := x.Ends.UnixNano(), false
	got, err := s.search.Query(ctx, query.Request{Text: "kind:" + kindAlert + " state:" + strconv.Quote(silenceExpired) + " silence:" + strconv.Quote(x.ID), From: at, To: at, Limit: 1},
		func(*query.Line) error { found = true; return nil })
	switch {
	case found:
		return nil
	case err == nil && got.Partial:
		err = errors.New(got.Reason)
	}
	if err != nil {
		return fmt.Errorf("ask whether the end of silence %s is written: %w", x.ID, err)
	}
	if err := s.keep(ctx, silenceRecord(asWrittenByAPI(x), "", silenceExpired, "", x.Ends)); err != nil {
		return fmt.Errorf("write end of silence %s: %w", x.ID, err)
	}
	return nil
}

// asWrittenByAPI is a silence as the API says it.
func asWrittenByAPI(x route.Silence) silence {
	out := silence{ID: x.ID, Comment: x.Comment, By: x.By, StartsAt: x.Starts.Format(time.RFC3339Nano), EndsAt: x.Ends.Format(time.RFC3339Nano)}
	for _, m := range x.Matchers {
		is := !m.Not
		out.Matchers = append(out.Matchers, matcher{Name: m.Name, Value: m.Value, IsRegex: m.Regex, IsEqual: &is})
	}
	return out
}
