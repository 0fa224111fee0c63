package reconcile

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Key names one object: namespace (empty for cluster-wide kinds) and name.
type Key = types.NamespacedName

// Part is a group of fields that has exactly one writer.
type Part struct {
	Kind   string // "Pod", "apps/Deployment"
	Fields string // "spec", "status", "objects" (create and delete), "metadata.ownerReferences"
	Of     string // whose objects, when kinds are shared: "ReplicaSet" for pods owned by ReplicaSets
}

func (p Part) String() string {
	if p.Of == "" {
		return p.Kind + " " + p.Fields
	}
	return fmt.Sprintf("%s %s of %s", p.Kind, p.Fields, p.Of)
}

// Controller is a loop to be run: which kinds it reads, which parts it writes,
// where its keys come from, and what it does with one.
type Controller struct {
	Name    string
	Reads   []string
	Writes  []Part
	Workers int // 1 when zero
	Sources []Source

	// Ticks, when set, calls Reconcile with the zero Key at this pace.
	Ticks time.Duration

	// Feed, when set, runs beside the workers and adds keys from sources that are not
	// known beforehand. It returns when ctx ends.
	Feed func(ctx context.Context, add func(Key)) error

	// Reconcile brings one object closer to what is wanted. It is called again
	// after the returned duration (0: only on change), or sooner after an error.
	Reconcile func(ctx context.Context, key Key) (again time.Duration, err error)
}

// Source turns changes of one kind into keys.
type Source struct {
	Informer cache.SharedIndexInformer
	// Keys names what to look at when object was added, changed or removed.
	// It is called with the old and the new state of a changed object. Nil means Self.
	Keys func(object any) []Key
	// Seen is told of every change before the keys are queued; expectations use it.
	Seen func(change Change, object any)
}

// Change is what happened to an object.
type Change int

// The three changes.
const (
	Added Change = iota
	Changed
	Removed
)

// Self is the key of the object itself.
func Self(object any) []Key {
	o, err := meta.Accessor(object)
	if err != nil {
		return nil
	}
	return []Key{{Namespace: o.GetNamespace(), Name: o.GetName()}}
}

// Owner returns a Keys func that names the object's controlling owner of a kind.
func Owner(kind string) func(object any) []Key {
	return func(object any) []Key {
		o, err := meta.Accessor(object)
		if err != nil {
			return nil
		}
		for _, ref := range o.GetOwnerReferences() {
			if ref.Controller != nil && *ref.Controller && ref.Kind == kind {
				return []Key{{Namespace: o.GetNamespace(), Name: ref.Name}}
			}
		}
		return nil
	}
}
