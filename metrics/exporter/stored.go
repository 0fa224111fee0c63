package exporter

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
)

func endpoints(s *sender, e *corev1.Endpoints) {
	own := []string{"namespace", e.Namespace, "endpoint", e.Name}
	s.gauge("kube_endpoint_info", "About endpoints.", 1, own...)
	created(s, "kube_endpoint_created", e.ObjectMeta, own)
	for _, set := range e.Subsets {
		for _, a := range set.Addresses {
			s.gauge("kube_endpoint_address", "Addresses of endpoints.", 1, join(own, "ip", a.IP, "ready", "true")...)
		}
		for _, a := range set.NotReadyAddresses {
			s.gauge("kube_endpoint_address", "Addresses of endpoints.", 1, join(own, "ip", a.IP, "ready", "false")...)
		}
		for _, p := range set.Ports {
			s.gauge("kube_endpoint_ports", "Ports of endpoints.", 1, join(own, "port_name", p.Name, "port_protocol", string(p.Protocol), "port_number", strconv.Itoa(int(p.Port)))...)
		}
	}
}

func ingress(s *sender, x *networkingv1.Ingress) {
	own := []string{"namespace", x.Namespace, "ingress", x.Name}
	class := "_default"
	if x.Spec.IngressClassName != nil {
		class = *x.Spec.IngressClassName
	} else if old := x.Annotations["kubernetes.io/ingress.class"]; old != "" {
		class = old
	}
	s.gauge("kube_ingress_info", "About an ingress.", 1, join(own, "ingressclass", class)...)
	created(s, "kube_ingress_created", x.ObjectMeta, own)
	version(s, "kube_ingress_metadata_resource_version", x.ObjectMeta, own)
	for _, t := range x.Spec.TLS {
		for _, host := range t.Hosts {
			s.gauge("kube_ingress_tls", "Hosts with TLS.", 1, join(own, "tls_host", host, "secret", t.SecretName)...)
		}
	}
	for _, r := range x.Spec.Rules {
		if r.HTTP == nil {
			continue
		}
		for _, p := range r.HTTP.Paths {
			if p.Backend.Service == nil {
				continue
			}
			port := p.Backend.Service.Port.Name
			if port == "" {
				port = strconv.Itoa(int(p.Backend.Service.Port.Number))
			}
			kind := ""
			if p.PathType != nil {
				kind = string(*p.PathType)
			}
			s.gauge("kube_ingress_path", "Paths of an ingress.", 1, join(own, "host", r.Host, "path", p.Path, "path_type", kind, "service_name", p.Backend.Service.Name, "service_port", port)...)
		}
	}
}

func networkPolicy(s *sender, x *networkingv1.NetworkPolicy) {
	own := []string{"namespace", x.Namespace, "networkpolicy", x.Name}
	created(s, "kube_networkpolicy_created", x.ObjectMeta, own)
	s.gauge("kube_networkpolicy_spec_ingress_rules", "Rules for traffic in.", float64(len(x.Spec.Ingress)), own...)
	s.gauge("kube_networkpolicy_spec_egress_rules", "Rules for traffic out.", float64(len(x.Spec.Egress)), own...)
}

func volume(s *sender, v *corev1.PersistentVolume) {
	own := []string{"persistentvolume", v.Name}
	path, kind, local, fs, server, export, driver, handle := "", "", "", "", "", "", "", ""
	switch src := v.Spec.PersistentVolumeSource; {
	case src.HostPath != nil:
		path = src.HostPath.Path
		if src.HostPath.Type != nil {
			kind = string(*src.HostPath.Type)
		}
	case src.Local != nil:
		local = src.Local.Path
		if src.Local.FSType != nil {
			fs = *src.Local.FSType
		}
	case src.NFS != nil:
		server, export = src.NFS.Server, src.NFS.Path
	case src.CSI != nil:
		driver, handle = src.CSI.Driver, src.CSI.VolumeHandle
	}
	s.gauge("kube_persistentvolume_info", "About a volume.", 1, join(own, "storageclass", v.Spec.StorageClassName,
		"gce_persistent_disk_name", "", "ebs_volume_id", "", "azure_disk_name", "", "fc_wwids", "", "fc_lun", "", "fc_target_wwns", "",
		"iscsi_target_portal", "", "iscsi_iqn", "", "iscsi_lun", "", "iscsi_initiator_name", "", "nfs_server", server, "nfs_path", export,
		"csi_driver", driver, "csi_volume_handle", handle, "local_path", local, "local_fs", fs, "host_path", path, "host_path_type", kind,
		"reclaim_policy", string(v.Spec.PersistentVolumeReclaimPolicy))...)
	created(s, "kube_persistentvolume_created", v.ObjectMeta, own)
	deleted(s, "kube_persistentvolume_deletion_timestamp", v.ObjectMeta, own)
	size := v.Spec.Capacity[corev1.ResourceStorage]
	s.gauge("kube_persistentvolume_capacity_bytes", "Size of a volume.", size.AsApproximateFloat64(), own...)
	for _, p := range []corev1.PersistentVolumePhase{corev1.VolumePending, corev1.VolumeAvailable, corev1.VolumeBound, corev1.VolumeReleased, corev1.VolumeFailed} {
		s.gauge("kube_persistentvolume_status_phase", "Phase of a volume.", yes(v.Status.Phase == p), join(own, "phase", string(p))...)
	}
	if c := v.Spec.ClaimRef; c != nil {
		s.gauge("kube_persistentvolume_claim_ref", "Claim of a volume.", 1, join(own, "name", c.Name, "claim_namespace", c.Namespace)...)
	}
	mode := corev1.PersistentVolumeFilesystem
	if v.Spec.VolumeMode != nil {
		mode = *v.Spec.VolumeMode
	}
	s.gauge("kube_persistentvolume_volume_mode", "Mode of a volume.", 1, join(own, "volumemode", string(mode))...)
	for _, m := range v.Spec.AccessModes {
		s.gauge("kube_persistentvolume_access_mode", "Ways to use a volume.", 1, join(own, "access_mode", string(m))...)
	}
}

func claim(s *sender, c *corev1.PersistentVolumeClaim) {
	own := []string{"namespace", c.Namespace, "persistentvolumeclaim", c.Name}
	class, mode := "", ""
	if c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	if c.Spec.VolumeMode != nil {
		mode = string(*c.Spec.VolumeMode)
	}
	s.gauge("kube_persistentvolumeclaim_info", "About a claim.", 1, join(own, "storageclass", class, "volumename", c.Spec.VolumeName, "volumemode", mode)...)
	created(s, "kube_persistentvolumeclaim_created", c.ObjectMeta, own)
	deleted(s, "kube_persistentvolumeclaim_deletion_timestamp", c.ObjectMeta, own)
	for _, p := range []corev1.PersistentVolumeClaimPhase{corev1.ClaimLost, corev1.ClaimBound, corev1.ClaimPending} {
		s.gauge("kube_persistentvolumeclaim_status_phase", "Phase of a claim.", yes(c.Status.Phase == p), join(own, "phase", string(p))...)
	}
	if q, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		s.gauge("kube_persistentvolumeclaim_resource_requests_storage_bytes", "Size a claim asks for.", q.AsApproximateFloat64(), own...)
	}
	for _, m := range c.Spec.AccessModes {
		s.gauge("kube_persistentvolumeclaim_access_mode", "Ways to use a claim.", 1, join(own, "access_mode", string(m))...)
	}
	for _, x := range c.Status.Conditions {
		for _, v := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown} {
			s.gauge("kube_persistentvolumeclaim_status_condition", "Conditions of a claim.", yes(x.Status == v), join(own, "type", string(x.Type), "status", strings.ToLower(string(v)))...)
		}
	}
}

func storageClass(s *sender, c *storagev1.StorageClass) {
	own := []string{"storageclass", c.Name}
	reclaim, mode := string(corev1.PersistentVolumeReclaimDelete), string(storagev1.VolumeBindingImmediate)
	if c.ReclaimPolicy != nil {
		reclaim = string(*c.ReclaimPolicy)
	}
	if c.VolumeBindingMode != nil {
		mode = string(*c.VolumeBindingMode)
	}
	s.gauge("kube_storageclass_info", "About a class of storage.", 1, join(own, "provisioner", c.Provisioner, "reclaim_policy", reclaim, "volume_binding_mode", mode)...)
	created(s, "kube_storageclass_created", c.ObjectMeta, own)
}

func configMap(s *sender, c *corev1.ConfigMap) {
	own := []string{"namespace", c.Namespace, "configmap", c.Name}
	s.gauge("kube_configmap_info", "About a config map.", 1, own...)
	created(s, "kube_configmap_created", c.ObjectMeta, own)
	version(s, "kube_configmap_metadata_resource_version", c.ObjectMeta, own)
}

func quota(s *sender, q *corev1.ResourceQuota) {
	own := []string{"namespace", q.Namespace, "resourcequota", q.Name}
	created(s, "kube_resourcequota_created", q.ObjectMeta, own)
	for kind, list := range map[string]corev1.ResourceList{"hard": q.Status.Hard, "used": q.Status.Used} {
		for r, v := range list {
			s.gauge("kube_resourcequota", "Limits of a namespace and what is used of them.", v.AsApproximateFloat64(), join(own, "resource", string(r), "type", kind)...)
		}
	}
}

func limitRange(s *sender, l *corev1.LimitRange) {
	own := []string{"namespace", l.Namespace, "limitrange", l.Name}
	created(s, "kube_limitrange_created", l.ObjectMeta, own)
	for _, x := range l.Spec.Limits {
		for constraint, list := range map[string]corev1.ResourceList{"min": x.Min, "max": x.Max, "default": x.Default, "defaultRequest": x.DefaultRequest, "maxLimitRequestRatio": x.MaxLimitRequestRatio} {
			for r, v := range list {
				s.gauge("kube_limitrange", "Limits of single objects.", v.AsApproximateFloat64(), join(own, "resource", string(r), "type", string(x.Type), "constraint", constraint)...)
			}
		}
	}
}

func disruptionBudget(s *sender, b *policyv1.PodDisruptionBudget) {
	own := []string{"namespace", b.Namespace, "poddisruptionbudget", b.Name}
	created(s, "kube_poddisruptionbudget_created", b.ObjectMeta, own)
	deleted(s, "kube_poddisruptionbudget_deletion_timestamp", b.ObjectMeta, own)
	s.gauge("kube_poddisruptionbudget_status_current_healthy", "Healthy pods.", float64(b.Status.CurrentHealthy), own...)
	s.gauge("kube_poddisruptionbudget_status_desired_healthy", "Healthy pods wanted.", float64(b.Status.DesiredHealthy), own...)
	s.gauge("kube_poddisruptionbudget_status_pod_disruptions_allowed", "Pods that may be evicted now.", float64(b.Status.DisruptionsAllowed), own...)
	s.gauge("kube_poddisruptionbudget_status_expected_pods", "Pods of the budget.", float64(b.Status.ExpectedPods), own...)
	s.gauge("kube_poddisruptionbudget_status_observed_generation", "Generation seen by the controller.", float64(b.Status.ObservedGeneration), own...)
}
