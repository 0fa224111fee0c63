package controller

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ownerState is what is known of one owner an object names.
type ownerState int

const (
	ownerThere   ownerState = iota
	ownerGone               // it does not exist, or another object has its name
	ownerLeaving            // it is being deleted and waits for its dependents
	ownerUnknown            // its kind is not served: nobody can tell
)

// garbageVerdict is what to do with an object because of its owners.
type garbageVerdict struct {
	Delete     metav1.DeletionPropagation // empty: keep
	DropOwners bool                       // keep, without the owners that are gone
	Keep       []metav1.OwnerReference    // the owners that stay, with DropOwners
}

// judgeGarbage decides by an object's owners. An object goes when it had owners
// and none is left; it goes in the foreground when an owner waits for it and it
// has dependents of its own.
func judgeGarbage(object metav1.Object, states []ownerState, dependents bool) garbageVerdict {
	owners := object.GetOwnerReferences()
	if len(owners) == 0 || object.GetDeletionTimestamp() != nil {
		return garbageVerdict{}
	}
	var keep []metav1.OwnerReference
	leaving := false
	for i, owner := range owners {
		switch states[i] {
		case ownerThere, ownerUnknown:
			keep = append(keep, owner)
		case ownerLeaving:
			leaving = true
		}
	}
	switch {
	case len(keep) == len(owners):
		return garbageVerdict{}
	case len(keep) > 0:
		return garbageVerdict{DropOwners: true, Keep: keep}
	case leaving && dependents:
		return garbageVerdict{Delete: metav1.DeletePropagationForeground}
	case slices.Contains(object.GetFinalizers(), metav1.FinalizerOrphanDependents):
		return garbageVerdict{Delete: metav1.DeletePropagationOrphan}
	case slices.Contains(object.GetFinalizers(), metav1.FinalizerDeleteDependents):
		return garbageVerdict{Delete: metav1.DeletePropagationForeground}
	}
	return garbageVerdict{Delete: metav1.DeletePropagationBackground}
}

// blocks answers whether a dependent must go before its leaving owner.
func blocks(dependent metav1.Object, owner metav1.Object) bool {
	for _, ref := range dependent.GetOwnerReferences() {
		if ref.UID == owner.GetUID() {
			return ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
		}
	}
	return false
}

// without returns the owners other than uid's.
func without(object metav1.Object, owner metav1.Object) []metav1.OwnerReference {
	return slices.DeleteFunc(slices.Clone(object.GetOwnerReferences()), func(ref metav1.OwnerReference) bool { return ref.UID == owner.GetUID() })
}
