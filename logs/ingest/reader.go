package ingest

import (
	"fmt"
	"io"
	"net"
	"time"
)

// reader cuts a connection into messages. Between messages, and for those that
// are small, it has little memory of its own; for a large one it waits for a
// share of what all connections may take together.
type reader struct {
	c       net.Conn
	buf     []byte
	small   []byte // what buf is between large messages
	at      int    // start of what is not decoded
	limit   int
	idle    time.Duration
	m       *metrics
	pending *budget
	ended   <-chan struct{}
	need    int       // bytes the next message has at least
	came    int       // bytes of messages since taken was asked
	until   time.Time // if set, when reading ends
	held    int64     // of pending
	slow    time.Time // while something is held: when the message must be there
}

const (
	readBytes  = 16 << 10 // memory of a connection
	largeBytes = 64 << 10 // a message may have them without waiting for a share
	largeTime  = time.Minute
)

// taken tells how many bytes the messages had since it was asked last.
func (r *reader) taken() int {
	n := r.came
	r.came = 0
	return n
}

// next returns the next message; its bytes are valid until done.
func (r *reader) next() (message, error) {
	ahead := newExtent()
	for {
		if have := r.buf[r.at:]; len(have) > 0 && len(have) >= r.need {
			need, err := ahead.pass(have, r.limit)
			if err != nil {
				return message{}, err
			}
			if r.need = need; need == 0 {
				m, _, err := decode(have[:ahead.at])
				if err != nil {
					return message{}, fmt.Errorf("%w: %w", errFormat, err)
				}
				r.at += ahead.at
				r.came += ahead.at
				return m, nil
			}
		}
		if err := r.fill(); err != nil {
			return message{}, err
		}
	}
}

// done gives back the memory of a large message.
func (r *reader) done() {
	left := r.buf[r.at:]
	if cap(r.buf) <= readBytes || len(left) > readBytes {
		return
	}
	large := r.buf
	r.buf, r.at = append(r.small[:0], left...), 0
	r.pending.put(large)
	r.close()
}

// close gives back the share of pending.
func (r *reader) close() {
	if r.held > 0 {
		r.pending.give(r.held)
	}
	r.held, r.slow = 0, time.Time{}
}

// fill reads more of the message that begins at at, and little of the next.
func (r *reader) fill() error {
	have := len(r.buf) - r.at
	want := max(r.need, have+1) // it may not say how long it is
	switch {
	case want > cap(r.buf):
		bigger, err := r.room(max(want+readBytes/2, min(2*cap(r.buf), r.limit)))
		if err != nil {
			return err
		}
		r.buf, r.at = append(bigger, r.buf[r.at:]...), 0
	case r.at+max(want, have+readBytes/4) > cap(r.buf) && r.at > 0:
		r.buf, r.at = r.buf[:copy(r.buf, r.buf[r.at:])], 0
	}
	end := r.until
	if end.IsZero() {
		end = time.Now().Add(r.idle)
	}
	if !r.slow.IsZero() && r.slow.Before(end) {
		end = r.slow
	}
	if err := r.c.SetReadDeadline(end); err != nil {
		return err
	}
	n, err := r.c.Read(r.buf[len(r.buf):min(cap(r.buf), r.at+want+readBytes)])
	r.buf = r.buf[:len(r.buf)+n]
	r.m.bytes.Add(float64(n))
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// room returns memory for so many bytes. The first time that is much it waits
// for a share; a message that grows on has it already.
func (r *reader) room(want int) ([]byte, error) {
	if want <= readBytes {
		if r.small == nil {
			r.small = make([]byte, 0, readBytes)
		}
		return r.small, nil
	}
	if want > largeBytes && r.held == 0 {
		n, err := r.pending.take(r.ended, int64(want))
		if err != nil {
			return nil, err
		}
		r.held, r.slow = n, time.Now().Add(largeTime)
	}
	return r.pending.get(want), nil
}
