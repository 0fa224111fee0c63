package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchesStartOnceTheAPIAnswersAndNotMuchLaterThanItsLimit(t *testing.T) {
	for what, c := range map[string]struct {
		after time.Duration // the API answers
		want  time.Duration
		warns bool
	}{
		"at once":           {0, 0, false},
		"while it starts":   {time.Second, time.Second, false},
		"never: they start": {time.Hour, startLimit, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			var said bytes.Buffer
			began := time.Now()
			untilAnswered(t.Context(), startLimit, slog.New(slog.NewTextHandler(&said, nil)), func(context.Context) error {
				if time.Since(began) < c.after {
					return errors.New("services is forbidden")
				}
				return nil
			})
			if took := time.Since(began); took != c.want || (said.Len() > 0) != c.warns {
				t.Errorf("%s: after %s, said %q", what, took, said.String())
			}
		})
	}
}
