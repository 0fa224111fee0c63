package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"perch/logs/ingest"
	"perch/logs/record"
)

const (
	// eventsFile is the source under which the position in the stream of Kubernetes
	// events is kept: its offset is a resource version.
	eventsFile = "kubernetes-events"
	// eventsWindow is how long events are gathered that are stored together, and
	// eventsAtOnce how many, if they are not long: see atOnce.
	eventsWindow = 20 * time.Millisecond
	eventsAtOnce = 5000
)

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
	handed, err := f.Core().V1().Events().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: put, UpdateFunc: func(_, now any) { put(now) }})
	if err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	l.log.group.Go("events", func(ctx context.Context) error {
		defer close(stop)
		var before int64
		if p, ok := l.store.Position(eventsFile, 1); ok {
			before = p.Stdout
		}
		for newest := before; ; {
			events := gatherEvents(ctx, queue, handed.HasSynced)
			if ctx.Err() != nil {
				return nil
			}
			for rest := eventsAfter(before, events); len(rest) > 0; {
				n := atOnce(rest)
				newest = max(newest, rest[n-1].version)
				l.storeEvents(ctx, rest[:n], newest)
				rest = rest[n:]
			}
		}
	})
	return nil
}

// gatherEvents waits for events. The first list comes in no order, so it is
// gathered as a whole: handed says when.
func gatherEvents(ctx context.Context, queue <-chan *corev1.Event, handed func() bool) (out []*corev1.Event) {
	select {
	case <-ctx.Done():
		return nil
	case e := <-queue:
		out = append(out, e)
	}
	window := time.NewTicker(eventsWindow)
	defer window.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-queue:
			if out = append(out, e); len(out) >= eventsAtOnce && handed() {
				return out
			}
		case <-window.C:
			if handed() {
				return out
			}
		}
	}
}

type versionedEvent struct {
	*corev1.Event
	version int64
}

// eventsAfter are those that are newer than a resource version, in their order.
func eventsAfter(before int64, events []*corev1.Event) (out []versionedEvent) {
	for _, e := range events {
		version, err := strconv.ParseInt(e.ResourceVersion, 10, 64)
		if err == nil && version > before { // all of ours are numbers
			out = append(out, versionedEvent{e, version})
		}
	}
	slices.SortFunc(out, func(a, b versionedEvent) int { return cmp.Compare(a.version, b.version) })
	return out
}

// atOnce is how many of the events, one at least, are stored together: together they
// have no more than a batch may, however long they are.
func atOnce(events []versionedEvent) int {
	size := 0
	for i, e := range events {
		r := eventRecord(e.Event)
		if size += r.Size(); i > 0 && (size > record.BatchBytes || i == eventsAtOnce) {
			return i
		}
	}
	return len(events)
}

// storeEvents stores events and the version of the newest together; it tries until
// ctx ends.
func (l *lines) storeEvents(ctx context.Context, events []versionedEvent, newest int64) {
	var records []record.Record
	for _, e := range events {
		records = append(records, eventRecord(e.Event))
	}
	position := record.Position{File: eventsFile, Inode: 1, Stdout: newest}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := l.total.Append(ctx, records, []record.Position{position})
		if err == nil {
			return
		}
		l.log.part("events").Warn("events were not stored, trying again", "count", len(events), "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func eventRecord(e *corev1.Event) record.Record {
	at := e.LastTimestamp.Time
	if at.IsZero() {
		at = e.EventTime.Time
	}
	if at.IsZero() {
		at = e.CreationTimestamp.Time
	}
	v := ingest.EventValues{Time: at, Namespace: e.InvolvedObject.Namespace, Kind: e.InvolvedObject.Kind, Name: e.InvolvedObject.Name, UID: string(e.InvolvedObject.UID),
		Type: e.Type, Reason: e.Reason, Message: e.Message, Source: cmp.Or(e.ReportingController, e.Source.Component), Node: e.Source.Host, Count: e.Count, Generation: e.ResourceVersion}
	if _, rest, ok := strings.Cut(e.InvolvedObject.FieldPath, "{"); ok {
		v.Container = strings.TrimSuffix(rest, "}")
	}
	return ingest.Event(v)
}
