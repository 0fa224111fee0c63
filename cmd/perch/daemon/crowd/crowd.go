// Package crowd bounds the connections of a door that strangers can reach.
//
//	c := crowd.New("web", 2048, reg)
//	srv.Serve(tls.NewListener(c.Listen(l), config))
//	c.Known(r.RemoteAddr)   when it turns out who sends a request
//
// A connection belongs to a stranger until Known. One too many takes the place of the
// stranger who has been there for the longest: who means well is known at once. When
// all are known it is closed instead.
package crowd

import (
	"container/list"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Crowd is all connections of one door.
type Crowd struct {
	most   int
	closed *prometheus.CounterVec

	mu        sync.Mutex        // guards what follows, and all visits
	inside    map[string]*visit // by the address of the other side
	number    int               // of visits; an address may have two, to different addresses here
	strangers *list.List        // of *visit, longest here first
}

// New bounds the connections of a door to most.
func New(door string, most int, reg prometheus.Registerer) *Crowd {
	label := prometheus.Labels{"door": door}
	c := &Crowd{most: most, inside: map[string]*visit{}, strangers: list.New(), closed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_crowd_closed_total", ConstLabels: label,
		Help: "Connections that were closed because the door has too many, by who they were: stranger (made room for another) or newcomer (all others were known)."}, []string{"who"})}
	c.closed.WithLabelValues("stranger")
	c.closed.WithLabelValues("newcomer")
	count := func(name, help string, n func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, ConstLabels: label, Help: help}, func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return float64(n())
		})
	}
	reg.MustRegister(c.closed, count("perch_crowd_connections", "Connections of a door.", func() int { return c.number }),
		count("perch_crowd_strangers", "Connections of a door of which it is not known whose they are.", c.strangers.Len))
	return c
}

// Listen bounds the connections that l accepts.
func (c *Crowd) Listen(l net.Listener) net.Listener { return &listener{l, c} }

type listener struct {
	net.Listener
	crowd *Crowd
}

// Accept returns the next connection that there is room for.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		v := &visit{Conn: conn, crowd: l.crowd, from: conn.RemoteAddr().String()}
		leaves, ok := l.crowd.enter(v)
		if leaves != nil {
			_ = leaves.Close()
		}
		if ok {
			return v, nil
		}
		_ = conn.Close()
	}
}

// enter takes a place for v, and tells who has to leave for that.
func (c *Crowd) enter(v *visit) (leaves *visit, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.number >= c.most {
		first := c.strangers.Front()
		if first == nil {
			c.closed.WithLabelValues("newcomer").Inc()
			return nil, false
		}
		leaves = first.Value.(*visit)
		c.leave(leaves)
		c.closed.WithLabelValues("stranger").Inc()
	}
	c.number++
	c.inside[v.from] = v
	v.stranger = c.strangers.PushBack(v)
	return leaves, true
}

// leave gives the place of v back, once.
func (c *Crowd) leave(v *visit) {
	if v.left {
		return
	}
	v.left = true
	c.number--
	if c.inside[v.from] == v {
		delete(c.inside, v.from)
	}
	c.known(v)
}

func (c *Crowd) known(v *visit) {
	if v.stranger != nil {
		c.strangers.Remove(v.stranger)
		v.stranger = nil
	}
}

// visit is a connection that has a place.
type visit struct {
	net.Conn
	crowd    *Crowd
	from     string
	stranger *list.Element // nil once it is known whose it is
	left     bool
}

// Close gives the place back, too.
func (v *visit) Close() error {
	v.crowd.mu.Lock()
	v.crowd.leave(v)
	v.crowd.mu.Unlock()
	return v.Conn.Close()
}

// Known says that the connection from a remote address is not a stranger's.
func (c *Crowd) Known(remote string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.inside[remote]; v != nil {
		c.known(v)
	}
}
