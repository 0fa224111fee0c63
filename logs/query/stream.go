package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// tailEvents may wait for a slow client beside what waits for the tail.
const tailEvents = 32

// tailKeepAlive is how often an idle stream says that it lives.
const tailKeepAlive = 15 * time.Second

// tailWait is how long a client may take nothing before its tail ends.
const tailWait = time.Minute

func (d *door) tail(w http.ResponseWriter, r *http.Request) {
	q, ok := d.request(w, r)
	if !ok {
		return
	}
	rc := http.NewResponseController(w)
	send := func(b []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(d.wait)) // what can have none ends with its client
		_, err := w.Write(b)
		return errors.Join(err, rc.Flush())
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	id := newEventID(q.Cursor, d.now())
	if send(id.begin(r.Header.Get("Last-Event-ID") != "")) != nil {
		return // the client is gone
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	events := make(chan TailEvent, tailEvents)
	done := make(chan error, 1)
	go func() { // ends with the request: Tail returns when ctx ends
		done <- d.s.Tail(ctx, q, func(e TailEvent) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	alive := time.NewTicker(tailKeepAlive)
	defer alive.Stop()
	var buf []byte
	for {
		buf = buf[:0]
		select {
		case e := <-events:
			buf = appendEvent(buf, e, id.of(e, d.now()))
			for more := true; more && len(buf) < 64<<10; {
				select {
				case e := <-events:
					buf = appendEvent(buf, e, id.of(e, d.now()))
				default:
					more = false
				}
			}
		case <-alive.C:
			buf = append(buf, ": alive\n\n"...)
		case <-ctx.Done():
			return
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				b, _ := json.Marshal(problem{Error: err.Error()})           // two strings
				_ = send(fmt.Appendf(nil, "event: error\ndata: %s\n\n", b)) // it ends anyway
			}
			return
		}
		if send(buf) != nil {
			return
		}
	}
}

// tailOverlap is how far a tail that goes on begins before the newest line it told:
// lines are told as they come, not in the order of their times, and each node has a
// clock of its own.
const tailOverlap = 2 * time.Second

// eventID tells from where a client that comes back is told again: no line that was not
// told has a later time. While lines from before are still on their way, of any node,
// that is where the tail began.
type eventID struct {
	from   Cursor
	newest int64 // time of a line that was told, not after the clock
	live   bool
}

func newEventID(from *Cursor, now time.Time) *eventID {
	at := now.UnixNano()
	if from != nil {
		return &eventID{from: *from, newest: min(at, from.Time)}
	}
	return &eventID{from: Cursor{Time: at - int64(tailOverlap)}, newest: at}
}

// begin is the begin of the stream, which says so when it goes on after another one.
func (id *eventID) begin(again bool) []byte {
	dst := []byte(": tail\n\n")
	if again {
		dst = fmt.Appendf(dst, "event: resumed\ndata: {\"from\":%q}\n\n", time.Unix(0, id.from.Time).UTC().Format(time.RFC3339Nano))
	}
	return dst
}

// of is the id of the next event.
func (id *eventID) of(e TailEvent, now time.Time) Cursor {
	if e.Line != nil {
		id.newest = max(id.newest, min(e.Line.Time, now.UnixNano()))
	}
	id.live = id.live || e.Live
	if c := (Cursor{Time: id.newest - int64(tailOverlap)}); id.live && OldestFirst.Before(id.from, c) {
		id.from = c
	}
	return id.from
}

func appendEvent(dst []byte, e TailEvent, id Cursor) []byte {
	if e.Live {
		dst = fmt.Appendf(dst, "id: %s\nevent: live\ndata: {}\n\n", id)
	}
	if e.Line != nil {
		dst = append(dst, "id: "...)
		dst = append(dst, id.String()...)
		dst = append(dst, "\ndata: "...)
		dst = e.Line.AppendJSON(dst)
		dst = append(dst, "\n\n"...)
	}
	if e.Dropped > 0 {
		dst = fmt.Appendf(dst, "event: dropped\ndata: {\"count\":%d}\n\n", e.Dropped)
	}
	if len(e.Missing) > 0 {
		b, _ := json.Marshal(map[string][]string{"nodes": e.Missing}) // strings
		dst = fmt.Appendf(dst, "event: missing\ndata: %s\n\n", b)
	}
	if len(e.Hidden) > 0 {
		b, _ := json.Marshal(map[string][]string{"namespaces": e.Hidden}) // strings
		dst = fmt.Appendf(dst, "event: hidden\ndata: %s\n\n", b)
	}
	return dst
}
