package route

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/alertmanager/silence"
)

// Active lists the alerts that are known, ended ones too for a while.
func (r *Router) Active() []Alert {
	all := r.alerts.GetPending()
	defer all.Close()
	var out []Alert
	for a := range all.Next() {
		out = append(out, plain(a.Data))
	}
	return out
}

// plain is an alert without the library's types.
func plain(a *alert.Alert) Alert {
	out := Alert{Labels: map[string]string{}, Annotations: map[string]string{}, Starts: a.StartsAt, Ends: a.EndsAt, Guessed: a.Timeout, Source: a.GeneratorURL}
	for k, v := range a.Labels {
		out.Labels[string(k)] = string(v)
	}
	for k, v := range a.Annotations {
		out.Annotations[string(k)] = string(v)
	}
	return out
}

// posted are the alerts as the API knows them: it may ask for all, and what comes
// in by it takes the way of Config.Outside.
type posted struct {
	*mem.Alerts
	outside func(context.Context, ...Alert) error
}

func (p posted) Put(ctx context.Context, alerts ...*alert.Alert) error {
	if p.outside == nil || len(alerts) == 0 { // none of them was valid
		return p.Alerts.Put(ctx, alerts...)
	}
	in := make([]Alert, len(alerts))
	for i, a := range alerts {
		in[i] = plain(a)
	}
	return p.outside(ctx, in...)
}

// watchedStore is the callback of the alert store: the silencer's, and a note
// that the file of alerts is behind.
type watchedStore struct {
	*silence.Silencer
	touch func([]byte)
}

func (w watchedStore) PostStore(a *alert.Alert, existing bool) {
	w.Silencer.PostStore(a, existing)
	w.touch(nil)
}

func (w watchedStore) PostDelete(a *alert.Alert) {
	w.Silencer.PostDelete(a)
	w.touch(nil)
}

// snapshotAlerts writes the alerts that are known, one JSON object a line. They
// are kept so that the end of an alert is told even when it comes while this
// process is down.
func (r *Router) snapshotAlerts(w io.Writer) (int64, error) {
	all := r.alerts.GetPending()
	defer all.Close()
	enc := json.NewEncoder(w)
	n := int64(0)
	for a := range all.Next() {
		if err := enc.Encode(a.Data); err != nil {
			return n, err
		}
		n++
	}
	return n, all.Err()
}

// nextEnd is when the first alert ends by its time alone that had not ended at a
// moment. A file from before it would have openActive take the alert for one that fires.
func (r *Router) nextEnd(since time.Time) (next time.Time) {
	for _, a := range r.Active() {
		if a.Ends.After(since) && (next.IsZero() || a.Ends.Before(next)) {
			next = a.Ends
		}
	}
	return next
}

// readAlerts reads what snapshotAlerts wrote; no file is no alerts. One that cannot be
// is told and left out: the others are not lost for it.
func readAlerts(file string, bad func(json.RawMessage, error)) ([]*alert.Alert, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []*alert.Alert
	for dec := json.NewDecoder(f); ; {
		var text json.RawMessage
		if err := dec.Decode(&text); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		a := &alert.Alert{}
		err := json.Unmarshal(text, a)
		if err == nil {
			err = a.Validate()
		}
		if err != nil {
			bad(text, err)
			continue
		}
		out = append(out, a)
	}
}

// openActive brings back the alerts of the process before. One that fired then has
// Config.Grace to be told again: who tells it may have been away as long. What ends
// in that time is told as resolved, if it was told as firing. One whose end had come
// when the file was written, with the last word of any alert, has ended.
func (r *Router) openActive() error {
	file := r.file("alerts")
	var before []*alert.Alert
	if err := readable(file, r.log, func(file string) (err error) {
		before, err = readAlerts(file, func(text json.RawMessage, err error) {
			r.log.Error("an alert of the process before is left out: its end is not told", "alert", string(text[:min(len(text), 1000)]), "err", err)
		})
		return err
	}); err != nil {
		return err
	}
	written := time.Time{}
	if info, err := os.Stat(file); err == nil { // else it is not there, or is broken and away
		written = info.ModTime()
	}
	soonest := time.Now().Add(r.cfg.Grace)
	for _, a := range before {
		if fired := a.EndsAt.After(a.UpdatedAt) && a.EndsAt.After(written); fired && a.EndsAt.Before(soonest) {
			a.EndsAt = soonest
		}
	}
	if err := r.alerts.Put(context.Background(), before...); err != nil {
		return fmt.Errorf("bring back alerts: %w", err)
	}
	return nil
}
