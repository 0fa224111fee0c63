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
	told    map[string]string // why an object is left out
	texts   map[string]string // what an object said last
}

func newOwnRoutes(objects *watchedObjects, applied string, value func(target.Ref) (string, error), apply func(string) error, tell event.Tell, log *slog.Logger, reg prometheus.Registerer) (*ownRoutes, error) {
	o := &ownRoutes{objects: objects, applied: applied, value: value, apply: apply, tell: tell, log: log, told: map[string]string{}, texts: map[string]string{},
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
	why, texts := map[string]string{}, map[string]string{}
	for _, obj := range alertRouteObjects(o.objects) {
		text, err := obj.Text(func(r amconfig.Ref) (string, error) {
			return o.value(target.Ref{ConfigMap: r.ConfigMap, Namespace: obj.Namespace, Name: r.Name, Key: r.Key})
		})
		name := obj.Namespace + "/" + obj.Name
		if errors.Is(err, errNotYet) {
			o.changed()
			if text = o.texts[name]; text == "" {
				continue
			}
			err = nil // for the moment it says what it said
		}
		if err != nil {
			why[name] = err.Error()
			continue
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
	o.tellProblems(why)
	if text == o.applied {
		return
	}
	o.applied = text // a refused one is told once
	if err := o.apply(text); err != nil {
		o.log.Error("routes of namespaces were not applied, those before stay in force", "err", err)
		return
	}
	o.log.Info("alert routing applied", "count", len(good)-len(problems))
}

// tellProblems makes an event of each new reason.
func (o *ownRoutes) tellProblems(why map[string]string) {
	o.left.Set(float64(len(why)))
	for name, reason := range why {
		if o.told[name] == reason {
			continue
		}
		namespace, short, _ := strings.Cut(name, "/")
		o.log.Warn("routes of a namespace are left out", "object", name, "reason", reason)
		o.tell(event.Record{Component: "perch-alerts", Type: corev1.EventTypeWarning, Reason: "NotInForce",
			Object:  corev1.ObjectReference{APIVersion: alertRoutes.GroupVersion().String(), Kind: "AlertmanagerConfig", Namespace: namespace, Name: short},
			Message: "its routes are not in force: " + reason})
	}
	o.told = why
}
