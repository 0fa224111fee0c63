package exporter

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func pod(s *sender, p *corev1.Pod) {
	own := []string{"namespace", p.Namespace, "pod", p.Name, "uid", string(p.UID)}
	kind, name, controller := owner(p.ObjectMeta)
	host := "false"
	if p.Spec.HostNetwork {
		host = "true"
	}
	s.gauge("kube_pod_info", "About a pod.", 1, join(own, "host_ip", p.Status.HostIP, "pod_ip", p.Status.PodIP, "node", p.Spec.NodeName,
		"created_by_kind", kind, "created_by_name", name, "priority_class", p.Spec.PriorityClassName, "host_network", host)...)
	s.gauge("kube_pod_owner", "Owner of a pod.", 1, join(own, "owner_kind", kind, "owner_name", name, "owner_is_controller", controller)...)
	created(s, "kube_pod_created", p.ObjectMeta, own)
	if t := p.Status.StartTime; t != nil {
		s.gauge("kube_pod_start_time", "When a pod started, unix time.", float64(t.Unix()), own...)
	}
	if t := p.DeletionTimestamp; t != nil {
		s.gauge("kube_pod_deletion_timestamp", "When a pod must be gone, unix time.", float64(t.Unix()), own...)
	}
	for _, ip := range p.Status.PodIPs {
		family := "4"
		if strings.Contains(ip.IP, ":") {
			family = "6"
		}
		s.gauge("kube_pod_ips", "Addresses of a pod.", 1, join(own, "ip", ip.IP, "ip_family", family)...)
	}
	if t, ok := ended(p); ok {
		s.gauge("kube_pod_completion_time", "When a pod ended, unix time.", float64(t.Unix()), own...)
	}
	s.gauge("kube_pod_service_account", "Account of a pod.", 1, join(own, "service_account", p.Spec.ServiceAccountName)...)
	s.gauge("kube_pod_scheduler", "Scheduler of a pod.", 1, join(own, "name", p.Spec.SchedulerName)...)
	for _, t := range p.Spec.Tolerations {
		after := ""
		if t.TolerationSeconds != nil {
			after = strconv.FormatInt(*t.TolerationSeconds, 10)
		}
		s.gauge("kube_pod_tolerations", "Taints a pod tolerates.", 1, join(own, "key", t.Key, "operator", string(t.Operator), "value", t.Value,
			"effect", string(t.Effect), "toleration_seconds", after)...)
	}
	for _, v := range p.Spec.Volumes {
		if c := v.PersistentVolumeClaim; c != nil {
			each := join(own, "volume", v.Name, "persistentvolumeclaim", c.ClaimName)
			s.gauge("kube_pod_spec_volumes_persistentvolumeclaims_info", "Claims of a pod.", 1, each...)
			s.gauge("kube_pod_spec_volumes_persistentvolumeclaims_readonly", "1 if a claim is mounted to be read.", yes(c.ReadOnly), each...)
		}
	}
	s.gauge("kube_pod_restart_policy", "Restart policy of a pod.", 1, join(own, "type", string(p.Spec.RestartPolicy))...)
	for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown, corev1.PodRunning} {
		s.gauge("kube_pod_status_phase", "Phase of a pod.", yes(p.Status.Phase == phase), join(own, "phase", string(phase))...)
	}
	for _, reason := range []string{"Evicted", "NodeAffinity", "NodeLost", "Shutdown", "UnexpectedAdmissionError"} {
		s.gauge("kube_pod_status_reason", "Why a pod is in its phase.", yes(p.Status.Reason == reason), join(own, "reason", reason)...)
	}
	if p.Status.QOSClass != "" {
		for _, c := range []corev1.PodQOSClass{corev1.PodQOSBestEffort, corev1.PodQOSBurstable, corev1.PodQOSGuaranteed} {
			s.gauge("kube_pod_status_qos_class", "QoS class of a pod.", yes(p.Status.QOSClass == c), join(own, "qos_class", string(c))...)
		}
	}
	for _, c := range p.Status.Conditions {
		if name := momentOf(c.Type); name != "" && c.Status == corev1.ConditionTrue {
			moment(s, name, "When a condition became true, unix time.", &c.LastTransitionTime, own)
		}
		switch c.Type {
		case corev1.PodReady:
			condition(s, "kube_pod_status_ready", own, "", c.Status)
		case corev1.PodScheduled:
			condition(s, "kube_pod_status_scheduled", own, "", c.Status)
			if c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
				s.gauge("kube_pod_status_unschedulable", "1 if no node takes the pod.", 1, own...)
			}
		}
	}
	for _, c := range p.Spec.InitContainers {
		each := join(own, "container", c.Name, "node", p.Spec.NodeName)
		resources(s, "kube_pod_init_container_resource_requests", "What a container is promised.", c.Resources.Requests, each)
		resources(s, "kube_pod_init_container_resource_limits", "What a container may use.", c.Resources.Limits, each)
	}
	for _, c := range p.Spec.Containers {
		each := join(own, "container", c.Name, "node", p.Spec.NodeName)
		resources(s, "kube_pod_container_resource_requests", "What a container is promised.", c.Resources.Requests, each)
		resources(s, "kube_pod_container_resource_limits", "What a container may use.", c.Resources.Limits, each)
	}
	for i := range p.Status.ContainerStatuses {
		container(s, "kube_pod_container", own, p.CreationTimestamp.Time, imageOf(p.Spec.Containers, p.Status.ContainerStatuses[i].Name), &p.Status.ContainerStatuses[i])
	}
	for i := range p.Status.InitContainerStatuses {
		container(s, "kube_pod_init_container", own, p.CreationTimestamp.Time, imageOf(p.Spec.InitContainers, p.Status.InitContainerStatuses[i].Name), &p.Status.InitContainerStatuses[i])
	}
}

// momentOf is the series that tells when a condition became true.
func momentOf(c corev1.PodConditionType) string {
	switch c {
	case corev1.PodReady:
		return "kube_pod_status_ready_time"
	case corev1.PodScheduled:
		return "kube_pod_status_scheduled_time"
	case corev1.PodInitialized:
		return "kube_pod_status_initialized_time"
	case corev1.ContainersReady:
		return "kube_pod_status_container_ready_time"
	}
	return ""
}

// ended is when the last container of a pod that is over ended.
func ended(p *corev1.Pod) (time.Time, bool) {
	var last time.Time
	if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
		return last, false
	}
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	return last, !last.IsZero()
}

// imageOf is the image a container asks for.
func imageOf(list []corev1.Container, name string) string {
	for _, c := range list {
		if c.Name == name {
			return c.Image
		}
	}
	return ""
}

func container(s *sender, prefix string, pod []string, made time.Time, image string, c *corev1.ContainerStatus) {
	own := join(pod, "container", c.Name)
	s.gauge(prefix+"_info", "About a container.", 1, join(own, "image", c.Image, "image_spec", image, "image_id", c.ImageID, "container_id", c.ContainerID)...)
	s.gauge(prefix+"_status_ready", "1 if the container is ready.", yes(c.Ready), own...)
	s.counterSince(made, prefix+"_status_restarts_total", "Restarts of a container.", float64(c.RestartCount), own...)
	s.gauge(prefix+"_status_running", "1 if the container runs.", yes(c.State.Running != nil), own...)
	s.gauge(prefix+"_status_waiting", "1 if the container waits.", yes(c.State.Waiting != nil), own...)
	s.gauge(prefix+"_status_terminated", "1 if the container has ended.", yes(c.State.Terminated != nil), own...)
	if w := c.State.Waiting; w != nil && w.Reason != "" {
		s.gauge(prefix+"_status_waiting_reason", "Why a container waits.", 1, join(own, "reason", w.Reason)...)
	}
	if r := c.State.Running; r != nil && !r.StartedAt.IsZero() {
		s.gauge(prefix+"_state_started", "When a container started, unix time.", float64(r.StartedAt.Unix()), own...)
	}
	if t := c.State.Terminated; t != nil && t.Reason != "" {
		s.gauge(prefix+"_status_terminated_reason", "Why a container ended.", 1, join(own, "reason", t.Reason)...)
	}
	if t := c.LastTerminationState.Terminated; t != nil {
		if t.Reason != "" {
			s.gauge(prefix+"_status_last_terminated_reason", "Why a container ended last time.", 1, join(own, "reason", t.Reason)...)
		}
		s.gauge(prefix+"_status_last_terminated_exitcode", "Exit code of the last time.", float64(t.ExitCode), own...)
		moment(s, prefix+"_status_last_terminated_timestamp", "When a container ended last time, unix time.", &t.FinishedAt, own)
	}
}
