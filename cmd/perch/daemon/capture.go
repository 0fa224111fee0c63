package daemon

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/agent/tail"
	"perch/cmd/perch/daemon/config"
	"perch/logs/ingest"
	"perch/logs/ingest/chunk"
	"perch/logs/ingest/onward"
	"perch/logs/ingest/source"
	"perch/logs/ingest/syslog"
	"perch/logs/record"
)

// capture follows the output of this node's containers and takes pushed
// records.
func (l *lines) capture(r role, own *http.ServeMux, pods corelisters.PodLister) error {
	follow, err := tail.New(tail.Default(r.cfg.Path("podlogs"), r.cfg.NodeName), l.store, l.total.Append, r.part("tail"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("tail", follow.Run)
	own.HandleFunc("GET /perch/v1/drained", func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.Query().Get("path")
		drained := follow.Drained(path)
		if !drained {
			w.WriteHeader(http.StatusConflict)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"path": path, "drained": drained}) // the asker is gone if this fails
	})
	own.HandleFunc("POST /perch/v1/leaving", func(w http.ResponseWriter, req *http.Request) {
		if err := follow.Leaving(req.Context(), req.URL.Query().Get("path")); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	if l.sources, err = source.New(source.Default(), r.reg); err != nil {
		return err
	}
	l.seen = chunk.New(l.store.Positions(), r.reg)
	mark, err := clusterMark(r.cfg)
	if err != nil {
		return err
	}
	l.outside = onward.NewGate(mark, l.total.Append, r.part("onward"), r.reg).Append
	forwardCfg, err := forwardDoor(r.cfg)
	if err != nil {
		return refused{err}
	}
	forward, err := ingest.New(forwardCfg,
		ingest.Parts{Identify: senders(r.cfg, pods), Sink: l.outside, Seen: l.seen, Sources: l.sources}, r.part("forward"), r.reg)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "listen" {
		return refused{err}
	} else if err != nil {
		return err
	}
	r.group.Go("forward door", forward.Run)
	if err := l.sendOn(r); err != nil {
		return err
	}
	if r.cfg.SyslogPort == 0 {
		return nil
	}
	messages, err := syslog.New(syslog.Default(net.JoinHostPort("", strconv.Itoa(r.cfg.SyslogPort)), r.cfg.NodeName),
		syslog.Parts{Identify: senders(r.cfg, pods), Sink: l.outside, Sources: l.sources}, r.part("syslog"), r.reg)
	if errors.As(err, &op) && op.Op == "listen" {
		return refused{err}
	} else if err != nil {
		return err
	}
	r.group.Go("syslog door", messages.Run)
	return nil
}

// senders tells who may push lines without a key: this machine, and the pods
// on it, which are known by their addresses.
func senders(cfg config.Config, pods corelisters.PodLister) ingest.Identify {
	return func(from netip.Addr) (s record.Stream, isPod, allowed bool) {
		from = from.Unmap()
		if p := podAt(pods, from); p != nil {
			return record.Stream{Namespace: p.Namespace, Pod: p.Name, UID: string(p.UID), Node: cfg.NodeName}, true, true
		}
		return s, false, from.IsLoopback() || from == cfg.AdvertiseAddress
	}
}
