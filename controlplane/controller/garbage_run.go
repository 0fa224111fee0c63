package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"perch/controlplane/controller/reconcile"
)

const (
	byOwner = "owner"
	byUID   = "uid"
)

// garbage deletes objects whose owners are gone, for every kind the API server
// serves, custom ones included. It watches metadata only, stripped to names,
// owners and finalizers.
type garbage struct {
	deps
	mu    sync.RWMutex
	kinds map[schema.GroupVersionResource]*watched
}

type watched struct {
	served
	informer cache.SharedIndexInformer
	end      context.CancelFunc
}

func newGarbage(d deps) *reconcile.Controller {
	c := &garbage{deps: d, kinds: map[schema.GroupVersionResource]*watched{}}
	return &reconcile.Controller{
		Name: "garbage", Reads: []string{"*"}, Workers: 4,
		Writes: []reconcile.Part{
			{Kind: "*", Fields: "objects", Of: "gone owner"}, {Kind: "*", Fields: "metadata.ownerReferences", Of: "gone owner"},
			{Kind: "*", Fields: "metadata.finalizers[foregroundDeletion,orphan]"},
		},
		Feed: c.feed, Reconcile: c.reconcile,
	}
}

// item is an object of any kind as a key: the kind travels in the name.
type item struct {
	gvr             schema.GroupVersionResource
	namespace, name string
}

func (i item) key() reconcile.Key {
	return reconcile.Key{Namespace: i.namespace, Name: strings.Join([]string{i.gvr.Group, i.gvr.Version, i.gvr.Resource, i.name}, "|")}
}

func itemOf(key reconcile.Key) item {
	part := strings.SplitN(key.Name, "|", 4)
	if len(part) != 4 {
		panic("BUG: garbage key " + key.String())
	}
	return item{schema.GroupVersionResource{Group: part[0], Version: part[1], Resource: part[2]}, key.Namespace, part[3]}
}

// feed watches all kinds and looks for new ones until ctx ends.
func (c *garbage) feed(ctx context.Context, add func(reconcile.Key)) error {
	var group sync.WaitGroup
	defer group.Wait()
	ticker := time.NewTicker(c.cfg.Rediscover)
	defer ticker.Stop()
	for {
		kinds, err := servedKinds(c.kube.Discovery(), "list", "watch", "delete")
		if err != nil {
			c.log.Warn("kinds were not discovered", "controller", "garbage", "err", err)
		}
		if len(kinds) > 0 {
			c.follow(ctx, kinds, err == nil, &group, add)
		}
		select {
		case <-ctx.Done():
			c.mu.Lock()
			clear(c.kinds)
			c.mu.Unlock()
			return nil
		case <-ticker.C:
		}
	}
}

func (c *garbage) follow(ctx context.Context, kinds []served, complete bool, group *sync.WaitGroup, add func(reconcile.Key)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	present := map[schema.GroupVersionResource]bool{}
	for _, kind := range kinds {
		if kind.GVR.Resource == "events" {
			continue // they own nothing, are owned by nothing, and are many
		}
		present[kind.GVR] = true
		if c.kinds[kind.GVR] != nil {
			continue
		}
		informer := metadatainformer.NewFilteredMetadataInformer(c.metadata, kind.GVR, metav1.NamespaceAll, 0, cache.Indexers{
			byOwner: func(object any) ([]string, error) {
				var out []string
				for _, ref := range metaOf(object).GetOwnerReferences() {
					out = append(out, string(ref.UID))
				}
				return out, nil
			},
			byUID: func(object any) ([]string, error) { return []string{string(metaOf(object).GetUID())}, nil },
		}, nil).Informer()
		if err := informer.SetTransform(strip); err != nil {
			c.log.Warn("kind was not watched", "controller", "garbage", "kind", kind.Kind, "err", err)
			continue
		}
		if _, err := informer.AddEventHandler(c.handler(kind.GVR, add)); err != nil {
			c.log.Warn("kind was not watched", "controller", "garbage", "kind", kind.Kind, "err", err)
			continue
		}
		kindCtx, end := context.WithCancel(ctx)
		c.kinds[kind.GVR] = &watched{kind, informer, end}
		group.Go(func() { informer.Run(kindCtx.Done()) })
	}
	for gvr, w := range c.kinds {
		if complete && !present[gvr] {
			w.end()
			delete(c.kinds, gvr)
		}
	}
}

func strip(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
		o.SetLabels(nil)
		o.SetAnnotations(nil)
	}
	return object, nil
}

func metaOf(object any) metav1.Object {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if o, ok := object.(metav1.Object); ok {
		return o
	}
	return &metav1.ObjectMeta{}
}

func (c *garbage) handler(gvr schema.GroupVersionResource, add func(reconcile.Key)) cache.ResourceEventHandler {
	look := func(object any) {
		o := metaOf(object)
		if len(o.GetOwnerReferences()) > 0 || waitsForDependents(o) {
			add(item{gvr, o.GetNamespace(), o.GetName()}.key())
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: look,
		UpdateFunc: func(_, object any) {
			look(object)
			// The handler may run before anyone else sees the owner leave.
			if o := metaOf(object); waitsForDependents(o) {
				c.addDependents(o.GetUID(), add)
			}
		},
		DeleteFunc: func(object any) {
			o := metaOf(object)
			c.addDependents(o.GetUID(), add)
			for _, ref := range o.GetOwnerReferences() { // an owner may wait for this one
				if owner, kind := c.find(ref.UID); owner != nil && owner.GetDeletionTimestamp() != nil {
					add(item{kind.GVR, owner.GetNamespace(), owner.GetName()}.key())
				}
			}
		},
	}
}

func waitsForDependents(o metav1.Object) bool {
	return o.GetDeletionTimestamp() != nil &&
		(slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents) || slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents))
}

type dependent struct {
	metav1.Object
	gvr schema.GroupVersionResource
}

func (c *garbage) dependents(uid types.UID) []dependent {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []dependent
	for gvr, w := range c.kinds {
		objects, err := w.informer.GetIndexer().ByIndex(byOwner, string(uid))
		if err != nil {
			continue // the index is made with the informer
		}
		for _, object := range objects {
			out = append(out, dependent{metaOf(object), gvr})
		}
	}
	return out
}

func (c *garbage) addDependents(uid types.UID, add func(reconcile.Key)) {
	for _, d := range c.dependents(uid) {
		add(item{d.gvr, d.GetNamespace(), d.GetName()}.key())
	}
}

func (c *garbage) find(uid types.UID) (metav1.Object, *watched) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, w := range c.kinds {
		if objects, err := w.informer.GetIndexer().ByIndex(byUID, string(uid)); err == nil && len(objects) > 0 {
			return metaOf(objects[0]), w
		}
	}
	return nil, nil
}

// settled answers whether every kind has been listed: only then it is known that
// an owner has no dependents.
func (c *garbage) settled() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, w := range c.kinds {
		if !w.informer.HasSynced() {
			return false
		}
	}
	return true
}

func (c *garbage) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	i := itemOf(key)
	c.mu.RLock()
	w := c.kinds[i.gvr]
	c.mu.RUnlock()
	if w == nil {
		return 0, nil
	}
	id := i.name
	if i.namespace != "" {
		id = i.namespace + "/" + i.name
	}
	found, exists, err := w.informer.GetIndexer().GetByKey(id)
	if err != nil || !exists {
		return 0, err
	}
	object := metaOf(found)
	if waitsForDependents(object) {
		if !c.settled() {
			return time.Second, nil
		}
		if slices.Contains(object.GetFinalizers(), metav1.FinalizerOrphanDependents) {
			return 0, c.orphan(ctx, i, object)
		}
		return c.foreground(ctx, i, object)
	}
	states := make([]ownerState, len(object.GetOwnerReferences()))
	for n, ref := range object.GetOwnerReferences() {
		if states[n], err = c.stateOf(ctx, object.GetNamespace(), ref); err != nil {
			return 0, err
		}
	}
	return c.carryOut(ctx, i, object, judgeGarbage(object, states, len(c.dependents(object.GetUID())) > 0), states)
}

func (c *garbage) carryOut(ctx context.Context, i item, object metav1.Object, verdict garbageVerdict, states []ownerState) (time.Duration, error) {
	client := c.metadata.Resource(i.gvr).Namespace(i.namespace)
	switch {
	case verdict.Delete != "":
		uid := object.GetUID()
		err := client.Delete(ctx, i.name, metav1.DeleteOptions{PropagationPolicy: &verdict.Delete, Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("delete ownerless %s %s/%s: %w", i.gvr.Resource, i.namespace, i.name, err)
		}
		c.log.Info("ownerless object was deleted", "kind", i.gvr.Resource, "namespace", i.namespace, "name", i.name, "reason", "owners are gone")
	case verdict.DropOwners:
		return 0, c.rewrite(ctx, i, object.GetUID(), func(live metav1.Object) map[string]any {
			return map[string]any{"ownerReferences": verdict.Keep}
		})
	case slices.Contains(states, ownerUnknown):
		return c.cfg.Rediscover, nil
	}
	return 0, nil
}

// stateOf looks an owner up in the snapshot, and asks the API server before it
// believes that an owner is gone.
func (c *garbage) stateOf(ctx context.Context, namespace string, ref metav1.OwnerReference) (ownerState, error) {
	if owner, _ := c.find(ref.UID); owner != nil {
		if owner.GetDeletionTimestamp() != nil && slices.Contains(owner.GetFinalizers(), metav1.FinalizerDeleteDependents) {
			return ownerLeaving, nil
		}
		return ownerThere, nil
	}
	group, _, _ := strings.Cut(ref.APIVersion, "/")
	if !strings.Contains(ref.APIVersion, "/") {
		group = ""
	}
	kind, ok := c.kindOf(group, ref.Kind)
	if !ok || (kind.Namespaced && namespace == "") {
		return ownerUnknown, nil
	}
	if !kind.Namespaced {
		namespace = ""
	}
	live, err := c.metadata.Resource(kind.GVR).Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ownerGone, nil
	}
	if err != nil {
		return ownerUnknown, fmt.Errorf("read owner %s %s/%s: %w", ref.Kind, namespace, ref.Name, err)
	}
	if live.UID != ref.UID {
		return ownerGone, nil
	}
	return ownerThere, nil
}

func (c *garbage) kindOf(group, kind string) (served, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, w := range c.kinds {
		if w.GVR.Group == group && w.Kind == kind {
			return w.served, true
		}
	}
	return served{}, false
}

// foreground lets an owner go once the dependents that block it are gone.
func (c *garbage) foreground(ctx context.Context, i item, owner metav1.Object) (time.Duration, error) {
	waiting := false
	for _, d := range c.dependents(owner.GetUID()) {
		if blocks(d, owner) {
			waiting = true
		}
		if d.GetDeletionTimestamp() == nil { // their own turn judges their other owners too
			di := item{d.gvr, d.GetNamespace(), d.GetName()}
			if _, err := c.reconcile(ctx, di.key()); err != nil {
				return 0, err
			}
		}
	}
	if waiting {
		return 5 * time.Second, nil // woken sooner by each dependent that goes
	}
	return 0, c.dropFinalizer(ctx, i, owner, metav1.FinalizerDeleteDependents)
}

// orphan cuts the ties of an owner's dependents and lets it go.
func (c *garbage) orphan(ctx context.Context, i item, owner metav1.Object) error {
	for _, d := range c.dependents(owner.GetUID()) {
		err := c.rewrite(ctx, item{d.gvr, d.GetNamespace(), d.GetName()}, d.GetUID(), func(live metav1.Object) map[string]any {
			return map[string]any{"ownerReferences": without(live, owner)}
		})
		if err != nil {
			return err
		}
	}
	return c.dropFinalizer(ctx, i, owner, metav1.FinalizerOrphanDependents)
}

func (c *garbage) dropFinalizer(ctx context.Context, i item, owner metav1.Object, finalizer string) error {
	return c.rewrite(ctx, i, owner.GetUID(), func(live metav1.Object) map[string]any {
		return map[string]any{"finalizers": slices.DeleteFunc(slices.Clone(live.GetFinalizers()), func(f string) bool { return f == finalizer })}
	})
}

// rewrite changes metadata of the object as it is now; a change in between is a
// conflict and tried again.
func (c *garbage) rewrite(ctx context.Context, i item, uid types.UID, change func(live metav1.Object) map[string]any) error {
	client := c.metadata.Resource(i.gvr).Namespace(i.namespace)
	live, err := client.Get(ctx, i.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && live.UID != uid) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s %s/%s: %w", i.gvr.Resource, i.namespace, i.name, err)
	}
	fields := change(live)
	fields["uid"], fields["resourceVersion"] = live.UID, live.ResourceVersion
	patch, err := json.Marshal(map[string]any{"metadata": fields})
	if err != nil {
		return fmt.Errorf("encode patch of %s %s/%s: %w", i.gvr.Resource, i.namespace, i.name, err)
	}
	if _, err := client.Patch(ctx, i.name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch %s %s/%s: %w", i.gvr.Resource, i.namespace, i.name, err)
	}
	return nil
}
