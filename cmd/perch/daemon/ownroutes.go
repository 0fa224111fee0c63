package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"perch/alerts/amconfig"
	"perch/alerts/route"
	"perch/controlplane/event"
	"perch/metrics/target"
)

// alertRoutes are the routes and receivers of namespaces.
var alertRoutes = schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1alpha1", Resource: "alertmanagerconfigs"}

func alertRouteObject(u *unstructured.Unstructured) amconfig.Object {
	text, err := json.Marshal(u.Object["spec"])
	if err != nil {
		text = []byte(err.Error()) // no JSON: the object is left out
	}
	return amconfig.Read(u.GetNamespace(), u.GetName(), text)
}

func alertRouteObjects(w *watchedObjects) []amconfig.Object {
	var out []amconfig.Object
	for _, o := range w.informer.GetStore().List() {
		if u, ok := o.(*unstructured.Unstructured); ok {
			out = append(out, alertRouteObject(u))
		}
	}
	return out
}

// ownRoutes puts AlertmanagerConfig objects beside the cluster's configuration.
type ownRoutes struct {
	objects *watchedObjects
	value   func(target.Ref) (string, error)
	apply   func(string) error
	tell    event.Tell
	log     *slog.Logger
	left    prometheus.Gauge

	base    atomic.Pointer[string] // nil: not read yet
	stale   atomic.Bool
	applied string
	failed  string            // what could not be, and why; empty: nothing
	told    map[string]string // why an object is left out
	refused map[string]string // which of its receivers get nothing
	texts   map[string]string // what an object said last
}

func newOwnRoutes(objects *watchedObjects, applied string, value func(target.Ref) (string, error), apply func(string) error, tell event.Tell, log *slog.Logger, reg prometheus.Registerer) (*ownRoutes, error) {
	o := &ownRoutes{objects: objects, applied: applied, value: value, apply: apply, tell: tell, log: log, told: map[string]string{}, refused: map[string]string{}, texts: map[string]string{},
		left: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_alertmanagerconfigs_left_out", Help: "AlertmanagerConfig objects that are not in force."})}
	reg.MustRegister(o.left)
	return o, onChange(objects.informer, o.changed)
}

// keepRoutes puts the cluster's configuration and those of namespaces into force.
func (a *alerts) keepRoutes(r role, api clients, v *values, tell event.Tell) error {
	objects := watchObjects(api.dynamic, alertRoutes, r.part("objects"))
	own, err := newOwnRoutes(objects, a.router.Text(), v.value, a.router.Apply, tell, r.part("alertconfig"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("alertroutes", objects.Run)
	r.group.Go("ownroutes", own.Run)
	r.group.Go("alertconfig", r.keep(api.kube, r.alertConfig(), own.setBase))
	return nil
}

func (o *ownRoutes) changed() { o.stale.Store(true) }

// setBase takes the cluster's configuration. A broken one is refused at once, as
// without objects.
func (o *ownRoutes) setBase(text string) error {
	if err := route.Check(text); err != nil {
		return err //nolint:wrapcheck // the caller says whose it is
	}
	o.base.Store(&text)
	o.changed()
	return nil
}

// Run applies what there is after changes, and every 15 s: Secrets change unseen.
// Until base and objects are known, what was in force before stays.
func (o *ownRoutes) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), o.objects.informer.HasSynced) {
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := time.Time{}
	for {
		if base := o.base.Load(); base != nil && (o.stale.Swap(false) || time.Since(last) > 15*time.Second) {
			last = time.Now()
			o.look(*base)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (o *ownRoutes) look(base string) {
	var good []route.Own
	why, texts, refused := map[string]string{}, map[string]string{}, map[string]string{}
	open, err := route.Open(base)
	if err != nil {
		o.log.Error("the cluster's alert routing cannot be read", "err", err) // setBase refuses such
		return
	}
	for _, obj := range alertRouteObjects(o.objects) {
		value := func(r amconfig.Ref) (string, error) {
			return o.value(target.Ref{ConfigMap: r.ConfigMap, Namespace: obj.Namespace, Name: r.Name, Key: r.Key})
		}
		text, err := obj.Text(value)
		name := obj.Namespace + "/" + obj.Name
		if errors.Is(err, errNotYet) {
			o.changed()
			if text = o.texts[name]; text == "" {
				continue
			}
			texts[name] = text // for the moment it says what it said
			if have, ok := o.refused[name]; ok {
				refused[name] = have
			}
			good = append(good, route.Own{Namespace: obj.Namespace, Name: obj.Name, Text: text})
			continue
		}
		if err != nil {
			why[name] = err.Error()
			continue
		}
		if no := obj.Refused(value, func(address string) bool { return !open[address] && target.GuardedAddress(address) }); len(no) > 0 {
			refused[name] = strings.Join(no, "; ") // of a Secret, or older than the check of what is written
		}
		texts[name] = text
		good = append(good, route.Own{Namespace: obj.Namespace, Name: obj.Name, Text: text})
	}
	o.texts = texts
	slices.SortFunc(good, func(a, b route.Own) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	text, problems := route.Merge(base, good)
	for name, err := range problems {
		why[name] = err.Error()
	}
	o.left.Set(float64(len(why)))
	o.tellNew(o.told, why, "NotInForce", "its routes are not in force: ")
	o.tellNew(o.refused, refused, "ReceiverRefused", "nothing is sent there: ")
	o.told, o.refused = why, refused
	if text == o.applied && o.failed == "" {
		return
	}
	if err := o.apply(text); err != nil { // a file that it names may come: it is tried again
		if failed := text + "\n" + err.Error(); failed != o.failed {
			o.failed = failed
			o.log.Error("alert routing was not applied, what was in force stays; it is tried again every 15 s", "err", err)
		}
		return
	}
	o.applied, o.failed = text, ""
	o.log.Info("alert routing applied", "count", len(good)-len(problems))
}

// tellNew makes an event of each reason that was not told before.
func (o *ownRoutes) tellNew(before, now map[string]string, what, say string) {
	for name, reason := range now {
		if before[name] == reason {
			continue
		}
		namespace, short, _ := strings.Cut(name, "/")
		o.log.Warn("routes of a namespace do not all work", "object", name, "what", what, "reason", reason)
		o.tell(event.Record{Component: "perch-alerts", Type: corev1.EventTypeWarning, Reason: what,
			Object:  corev1.ObjectReference{APIVersion: alertRoutes.GroupVersion().String(), Kind: "AlertmanagerConfig", Namespace: namespace, Name: short},
			Message: say + reason})
	}
}
