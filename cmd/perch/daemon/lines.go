package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"perch/cmd/perch/daemon/door"
	"perch/logs/query"
	"perch/logs/record"
	logstore "perch/logs/store"
)

// lines are the log store of this node and what asks it.
type lines struct {
	store  *logstore.Store
	engine *query.Engine
	search query.Searcher // this node's, or on servers the whole cluster's
	log    role
}

// openLines opens the store and everything that brings lines into it on this
// node: container output and pushed records.
func openLines(_ context.Context, r role, own *http.ServeMux) (*lines, error) {
	s, err := logstore.Open(logstore.Default(r.cfg.Path("logs")), r.part("logs"), r.reg)
	if err != nil {
		return nil, err
	}
	r.group.OnStop("logs", func(context.Context) error { return s.Close() })
	r.group.Go("logs", s.Run)
	engine := query.New(s, r.part("query"))
	l := &lines{store: s, engine: engine, search: engine, log: r}
	if err := l.capture(r, own); err != nil {
		return nil, err
	}
	// On the socket perch asks itself; another node's telemetry says for whom.
	own.Handle(query.Prefix, query.Handler(engine, func(_ context.Context, req *http.Request) (query.Access, error) {
		if v := req.Header.Get(query.NamespacesHeader); v != "" {
			return query.AccessFromHeader(v), nil
		}
		return query.Access{All: true}, nil
	}, r.part("query")))
	return l, nil
}

// handler answers callers of the web door within their scope.
func (l *lines) handler() http.Handler {
	return query.Handler(l.search, func(ctx context.Context, _ *http.Request) (query.Access, error) {
		s := door.ScopeOf(ctx)
		return query.Access{All: s.All, Namespaces: s.Namespaces}, nil
	}, l.log.part("query"))
}

// eventsFile is the source under which the position in the stream of Kubernetes
// events is kept: its offset is a resource version.
const eventsFile = "kubernetes-events"

// keepEvents stores Kubernetes events as lines: kind:event. The resource
// version of the newest stored event is durable with it, so a restart neither
// loses nor doubles one.
func (l *lines) keepEvents(f informers.SharedInformerFactory) error {
	queue := make(chan *corev1.Event) // the informer's own buffer is the queue
	stop := make(chan struct{})
	put := func(obj any) {
		if e, ok := obj.(*corev1.Event); ok {
			select {
			case queue <- e:
			case <-stop:
			}
		}
	}
	if _, err := f.Core().V1().Events().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: put, UpdateFunc: func(_, now any) { put(now) }}); err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	log := l.log.part("events")
	l.log.group.Go("events", func(ctx context.Context) error {
		defer close(stop)
		var last int64
		if p, ok := l.store.Position(eventsFile, 1); ok {
			last = p.Stdout
		}
		for {
			var e *corev1.Event
			select {
			case <-ctx.Done():
				return nil
			case e = <-queue:
			}
			version, err := strconv.ParseInt(e.ResourceVersion, 10, 64)
			if err != nil || version <= last {
				continue // stored before the restart
			}
			position := record.Position{File: eventsFile, Inode: 1, Stdout: max(last, version)}
			for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
				if err = l.store.Append(ctx, []record.Record{eventRecord(e)}, []record.Position{position}); err == nil {
					break
				}
				log.Warn("event was not stored, trying again", "err", err)
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(wait):
				}
			}
		}
	})
	return nil
}

func eventRecord(e *corev1.Event) record.Record {
	at := e.LastTimestamp.Time
	if at.IsZero() {
		at = e.EventTime.Time
	}
	if at.IsZero() {
		at = e.CreationTimestamp.Time
	}
	s := &record.Stream{Namespace: e.InvolvedObject.Namespace, Node: e.Source.Host, Output: record.Event, Kind: record.KindEvent}
	if e.InvolvedObject.Kind == "Pod" {
		s.Pod, s.UID = e.InvolvedObject.Name, string(e.InvolvedObject.UID)
		if _, rest, ok := strings.Cut(e.InvolvedObject.FieldPath, "{"); ok {
			s.Container = strings.TrimSuffix(rest, "}")
		}
	}
	level := record.Info
	if e.Type == corev1.EventTypeWarning {
		level = record.Warn
	}
	return record.Record{Time: at.UnixNano(), Stream: s, Level: level, Body: []byte(eventLine(e)),
		Fields: []record.Field{{Key: "reason", Value: e.Reason}, {Key: "object", Value: e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name}}}
}

// serveCluster makes the web door search all nodes, and keeps the cluster's
// events on this one.
func (l *lines) serveCluster(r role, api clients, f informers.SharedInformerFactory) error {
	return l.keepEvents(f)
}
