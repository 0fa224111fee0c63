package scheduler

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
)

// claimsOf names the claims a pod mounts.
func claimsOf(pod *corev1.Pod) []string {
	var out []string
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, pod.Name+"-"+v.Name)
		}
	}
	return out
}

// claimsUnmet says why no node can run the pod while its claims are as they are.
func claimsUnmet(pod *corev1.Pod, snapshot Snapshot) string {
	for _, name := range claimsOf(pod) {
		claim := snapshot.Claims(pod.Namespace, name)
		switch {
		case claim == nil:
			return fmt.Sprintf("persistentvolumeclaim %q not found", name)
		case claim.DeletionTimestamp != nil:
			return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		case claim.Status.Phase == corev1.ClaimLost:
			return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
		case claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound:
			return "pod has unbound immediate PersistentVolumeClaims"
		}
	}
	return ""
}

// filterVolumes refuses nodes that a bound volume cannot be reached from.
func filterVolumes(pod *corev1.Pod, snapshot Snapshot) filter {
	var selectors []*corev1.NodeSelector
	for _, name := range claimsOf(pod) {
		volume := snapshot.Volumes(snapshot.Claims(pod.Namespace, name).Spec.VolumeName)
		if volume != nil && volume.Spec.NodeAffinity != nil && volume.Spec.NodeAffinity.Required != nil {
			selectors = append(selectors, volume.Spec.NodeAffinity.Required)
		}
	}
	return func(node *Node) []string {
		for _, selector := range selectors {
			if ok, err := corehelpers.MatchNodeSelectorTerms(node.Object, selector); !ok || err != nil {
				return []string{"node(s) didn't match PersistentVolume's node affinity"}
			}
		}
		return nil
	}
}
