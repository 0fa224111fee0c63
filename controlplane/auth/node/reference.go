package node

import corev1 "k8s.io/api/core/v1"

// refers reports whether a pod needs the object of that resource and name, in
// the pod's namespace unless it has none.
func refers(pod *corev1.Pod, resource, name string, volume func(namespace, claim string) string) bool {
	switch resource {
	case "serviceaccounts", "serviceaccounts/token":
		return pod.Spec.ServiceAccountName == name
	case "secrets":
		return refersToSecret(pod, name)
	case "configmaps":
		return refersToConfigMap(pod, name)
	case "persistentvolumeclaims":
		for i := range pod.Spec.Volumes {
			if claimOf(pod, &pod.Spec.Volumes[i]) == name {
				return true
			}
		}
	case "persistentvolumes":
		for i := range pod.Spec.Volumes {
			if claim := claimOf(pod, &pod.Spec.Volumes[i]); claim != "" && volume != nil && volume(pod.Namespace, claim) == name {
				return true
			}
		}
	}
	return false
}

// claimOf is the claim behind a volume, empty if there is none.
func claimOf(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return pod.Name + "-" + v.Name
	}
	return ""
}

func refersToSecret(pod *corev1.Pod, name string) bool {
	for _, s := range pod.Spec.ImagePullSecrets {
		if s.Name == name {
			return true
		}
	}
	for i := range pod.Spec.Volumes {
		if volumeNeedsSecret(&pod.Spec.Volumes[i], name) {
			return true
		}
	}
	return anyEnv(pod,
		func(e *corev1.EnvVarSource) bool { return e.SecretKeyRef != nil && e.SecretKeyRef.Name == name },
		func(e *corev1.EnvFromSource) bool { return e.SecretRef != nil && e.SecretRef.Name == name })
}

func volumeNeedsSecret(v *corev1.Volume, name string) bool {
	switch {
	case v.Secret != nil:
		return v.Secret.SecretName == name
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		return v.CSI.NodePublishSecretRef.Name == name
	case v.ISCSI != nil && v.ISCSI.SecretRef != nil:
		return v.ISCSI.SecretRef.Name == name
	case v.FlexVolume != nil && v.FlexVolume.SecretRef != nil:
		return v.FlexVolume.SecretRef.Name == name
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil && s.Secret.Name == name {
				return true
			}
		}
	}
	return false
}

func refersToConfigMap(pod *corev1.Pod, name string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap != nil && v.ConfigMap.Name == name {
			return true
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil && s.ConfigMap.Name == name {
				return true
			}
		}
	}
	return anyEnv(pod,
		func(e *corev1.EnvVarSource) bool { return e.ConfigMapKeyRef != nil && e.ConfigMapKeyRef.Name == name },
		func(e *corev1.EnvFromSource) bool { return e.ConfigMapRef != nil && e.ConfigMapRef.Name == name })
}

func anyEnv(pod *corev1.Pod, one func(*corev1.EnvVarSource) bool, whole func(*corev1.EnvFromSource) bool) bool {
	search := func(env []corev1.EnvVar, from []corev1.EnvFromSource) bool {
		for i := range env {
			if env[i].ValueFrom != nil && one(env[i].ValueFrom) {
				return true
			}
		}
		for i := range from {
			if whole(&from[i]) {
				return true
			}
		}
		return false
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if search(list[i].Env, list[i].EnvFrom) {
				return true
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if search(pod.Spec.EphemeralContainers[i].Env, pod.Spec.EphemeralContainers[i].EnvFrom) {
			return true
		}
	}
	return false
}
