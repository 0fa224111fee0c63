package exporter

import (
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func deployment(s *sender, d *appsv1.Deployment) {
	own := []string{"namespace", d.Namespace, "deployment", d.Name}
	created(s, "kube_deployment_created", d.ObjectMeta, own)
	deleted(s, "kube_deployment_deletion_timestamp", d.ObjectMeta, own)
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		share(s, "kube_deployment_spec_strategy_rollingupdate_max_unavailable", "Pods that may be missing during an update.", r.MaxUnavailable, d.Spec.Replicas, false, own)
		share(s, "kube_deployment_spec_strategy_rollingupdate_max_surge", "Pods that may be too many during an update.", r.MaxSurge, d.Spec.Replicas, true, own)
	}
	s.gauge("kube_deployment_spec_replicas", "Pods wanted.", orOne(d.Spec.Replicas), own...)
	s.gauge("kube_deployment_spec_paused", "1 if paused.", yes(d.Spec.Paused), own...)
	s.gauge("kube_deployment_metadata_generation", "Generation wanted.", float64(d.Generation), own...)
	s.gauge("kube_deployment_status_observed_generation", "Generation seen by the controller.", float64(d.Status.ObservedGeneration), own...)
	s.gauge("kube_deployment_status_replicas", "Pods there are.", float64(d.Status.Replicas), own...)
	s.gauge("kube_deployment_status_replicas_ready", "Pods ready.", float64(d.Status.ReadyReplicas), own...)
	s.gauge("kube_deployment_status_replicas_available", "Pods available.", float64(d.Status.AvailableReplicas), own...)
	s.gauge("kube_deployment_status_replicas_unavailable", "Pods missing.", float64(d.Status.UnavailableReplicas), own...)
	s.gauge("kube_deployment_status_replicas_updated", "Pods of the newest template.", float64(d.Status.UpdatedReplicas), own...)
	for _, c := range d.Status.Conditions {
		condition(s, "kube_deployment_status_condition", join(own, "reason", c.Reason), string(c.Type), c.Status)
	}
}

func replicaSet(s *sender, r *appsv1.ReplicaSet) {
	own := []string{"namespace", r.Namespace, "replicaset", r.Name}
	created(s, "kube_replicaset_created", r.ObjectMeta, own)
	s.gauge("kube_replicaset_spec_replicas", "Pods wanted.", orOne(r.Spec.Replicas), own...)
	s.gauge("kube_replicaset_status_replicas", "Pods there are.", float64(r.Status.Replicas), own...)
	s.gauge("kube_replicaset_status_ready_replicas", "Pods ready.", float64(r.Status.ReadyReplicas), own...)
	s.gauge("kube_replicaset_status_fully_labeled_replicas", "Pods with all labels of the template.", float64(r.Status.FullyLabeledReplicas), own...)
	s.gauge("kube_replicaset_status_observed_generation", "Generation seen by the controller.", float64(r.Status.ObservedGeneration), own...)
	s.gauge("kube_replicaset_metadata_generation", "Generation wanted.", float64(r.Generation), own...)
	owned(s, "kube_replicaset_owner", r.ObjectMeta, own)
}

func statefulSet(s *sender, x *appsv1.StatefulSet) {
	own := []string{"namespace", x.Namespace, "statefulset", x.Name}
	created(s, "kube_statefulset_created", x.ObjectMeta, own)
	deleted(s, "kube_statefulset_deletion_timestamp", x.ObjectMeta, own)
	s.gauge("kube_statefulset_status_replicas_available", "Pods available.", float64(x.Status.AvailableReplicas), own...)
	s.gauge("kube_statefulset_status_current_revision", "Revision of the pods.", 1, join(own, "revision", x.Status.CurrentRevision)...)
	s.gauge("kube_statefulset_status_update_revision", "Revision of the newest template.", 1, join(own, "revision", x.Status.UpdateRevision)...)
	if o := x.Spec.Ordinals; o != nil {
		s.gauge("kube_statefulset_ordinals_start", "Number of the first pod.", float64(o.Start), own...)
	}
	if p := x.Spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		s.gauge("kube_statefulset_persistentvolumeclaim_retention_policy", "What becomes of claims.", 1,
			join(own, "when_deleted", string(p.WhenDeleted), "when_scaled", string(p.WhenScaled))...)
	}
	s.gauge("kube_statefulset_replicas", "Pods wanted.", orOne(x.Spec.Replicas), own...)
	s.gauge("kube_statefulset_metadata_generation", "Generation wanted.", float64(x.Generation), own...)
	s.gauge("kube_statefulset_status_observed_generation", "Generation seen by the controller.", float64(x.Status.ObservedGeneration), own...)
	s.gauge("kube_statefulset_status_replicas", "Pods there are.", float64(x.Status.Replicas), own...)
	s.gauge("kube_statefulset_status_replicas_ready", "Pods ready.", float64(x.Status.ReadyReplicas), own...)
	s.gauge("kube_statefulset_status_replicas_current", "Pods of the current revision.", float64(x.Status.CurrentReplicas), own...)
	s.gauge("kube_statefulset_status_replicas_updated", "Pods of the newest revision.", float64(x.Status.UpdatedReplicas), own...)
}

func daemonSet(s *sender, x *appsv1.DaemonSet) {
	own := []string{"namespace", x.Namespace, "daemonset", x.Name}
	created(s, "kube_daemonset_created", x.ObjectMeta, own)
	s.gauge("kube_daemonset_metadata_generation", "Generation wanted.", float64(x.Generation), own...)
	s.gauge("kube_daemonset_status_observed_generation", "Generation seen by the controller.", float64(x.Status.ObservedGeneration), own...)
	s.gauge("kube_daemonset_status_desired_number_scheduled", "Nodes that should run it.", float64(x.Status.DesiredNumberScheduled), own...)
	s.gauge("kube_daemonset_status_current_number_scheduled", "Nodes that run it.", float64(x.Status.CurrentNumberScheduled), own...)
	s.gauge("kube_daemonset_status_number_available", "Nodes where it is available.", float64(x.Status.NumberAvailable), own...)
	s.gauge("kube_daemonset_status_number_misscheduled", "Nodes that run it and should not.", float64(x.Status.NumberMisscheduled), own...)
	s.gauge("kube_daemonset_status_number_ready", "Nodes where it is ready.", float64(x.Status.NumberReady), own...)
	s.gauge("kube_daemonset_status_number_unavailable", "Nodes where it is not available.", float64(x.Status.NumberUnavailable), own...)
	s.gauge("kube_daemonset_status_updated_number_scheduled", "Nodes that run the newest template.", float64(x.Status.UpdatedNumberScheduled), own...)
}

func job(s *sender, j *batchv1.Job) {
	own := []string{"namespace", j.Namespace, "job_name", j.Name}
	s.gauge("kube_job_info", "About a job.", 1, own...)
	created(s, "kube_job_created", j.ObjectMeta, own)
	owned(s, "kube_job_owner", j.ObjectMeta, own)
	known(s, "kube_job_spec_parallelism", "Pods at once.", j.Spec.Parallelism, own)
	known(s, "kube_job_spec_completions", "Successes wanted.", j.Spec.Completions, own)
	known(s, "kube_job_spec_active_deadline_seconds", "Time a job may take.", j.Spec.ActiveDeadlineSeconds, own)
	s.gauge("kube_job_status_active", "Pods that run.", float64(j.Status.Active), own...)
	s.gauge("kube_job_status_succeeded", "Pods that succeeded.", float64(j.Status.Succeeded), own...)
	moment(s, "kube_job_status_start_time", "When a job started, unix time.", j.Status.StartTime, own)
	moment(s, "kube_job_status_completion_time", "When a job succeeded, unix time.", j.Status.CompletionTime, own)
	ready := int32(0)
	if j.Status.Ready != nil {
		ready = *j.Status.Ready
	}
	s.gauge("kube_job_status_ready", "Pods ready.", float64(ready), own...)
	for _, c := range j.Status.Conditions {
		switch c.Type {
		case batchv1.JobComplete:
			condition(s, "kube_job_complete", own, "", c.Status)
		case batchv1.JobFailed:
			condition(s, "kube_job_failed", own, "", c.Status)
		case batchv1.JobSuspended:
			s.gauge("kube_job_status_suspended", "1 if suspended.", yes(c.Status == corev1.ConditionTrue), own...)
		}
	}
	failedPods(s, j, own)
}

// failedPods writes, as kube-state-metrics does, the number of pods that failed
// until it is known why the job failed, and then a 1 beside the reason.
func failedPods(s *sender, j *batchv1.Job, own []string) {
	reasons := []string{batchv1.JobReasonBackoffLimitExceeded, batchv1.JobReasonDeadlineExceeded, "Evicted"}
	send := func(v float64, reason string) {
		s.gauge("kube_job_status_failed", "Pods that failed, or 1 for the reason why the job failed.", v, join(own, "reason", reason)...)
	}
	why := ""
	if i := slices.IndexFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == batchv1.JobFailed }); i >= 0 && j.Status.Failed > 0 {
		why = j.Status.Conditions[i].Reason
		for _, r := range reasons {
			send(yes(r == why), r)
		}
	}
	if !slices.Contains(reasons, why) {
		send(float64(j.Status.Failed), "")
	}
}

func cronJob(s *sender, c *batchv1.CronJob) {
	own := []string{"namespace", c.Namespace, "cronjob", c.Name}
	zone := "local"
	if c.Spec.TimeZone != nil {
		zone = *c.Spec.TimeZone
	}
	s.gauge("kube_cronjob_info", "About a cron job.", 1, join(own, "schedule", c.Spec.Schedule, "concurrency_policy", string(c.Spec.ConcurrencyPolicy), "timezone", zone)...)
	created(s, "kube_cronjob_created", c.ObjectMeta, own)
	version(s, "kube_cronjob_metadata_resource_version", c.ObjectMeta, own)
	s.gauge("kube_cronjob_status_active", "Jobs that run.", float64(len(c.Status.Active)), own...)
	s.gauge("kube_cronjob_spec_suspend", "1 if suspended.", yes(c.Spec.Suspend != nil && *c.Spec.Suspend), own...)
	known(s, "kube_cronjob_spec_starting_deadline_seconds", "How late a job may start.", c.Spec.StartingDeadlineSeconds, own)
	known(s, "kube_cronjob_spec_successful_job_history_limit", "Successful jobs kept.", c.Spec.SuccessfulJobsHistoryLimit, own)
	known(s, "kube_cronjob_spec_failed_job_history_limit", "Failed jobs kept.", c.Spec.FailedJobsHistoryLimit, own)
	moment(s, "kube_cronjob_status_last_schedule_time", "When a job was last due, unix time.", c.Status.LastScheduleTime, own)
	moment(s, "kube_cronjob_status_last_successful_time", "When a job last succeeded, unix time.", c.Status.LastSuccessfulTime, own)
	if next, ok := nextRun(c); ok {
		s.gauge("kube_cronjob_next_schedule_time", "When the next job is due, unix time.", float64(next.Unix()), own...)
	}
}

// nextRun is when a cron job is due after it was last, or after it was made.
func nextRun(c *batchv1.CronJob) (time.Time, bool) {
	if c.Spec.Suspend != nil && *c.Spec.Suspend {
		return time.Time{}, false
	}
	spec := c.Spec.Schedule
	if c.Spec.TimeZone != nil && !strings.Contains(spec, "TZ=") {
		spec = "CRON_TZ=" + *c.Spec.TimeZone + " " + spec
	}
	plan, err := cron.ParseStandard(spec)
	if err != nil {
		return time.Time{}, false
	}
	last := c.CreationTimestamp.Time
	if t := c.Status.LastScheduleTime; t != nil {
		last = t.Time
	}
	next := plan.Next(last)
	return next, !next.IsZero()
}

func replicationController(s *sender, r *corev1.ReplicationController) {
	own := []string{"namespace", r.Namespace, "replicationcontroller", r.Name}
	created(s, "kube_replicationcontroller_created", r.ObjectMeta, own)
	s.gauge("kube_replicationcontroller_spec_replicas", "Pods wanted.", orOne(r.Spec.Replicas), own...)
	s.gauge("kube_replicationcontroller_status_replicas", "Pods there are.", float64(r.Status.Replicas), own...)
	s.gauge("kube_replicationcontroller_status_ready_replicas", "Pods ready.", float64(r.Status.ReadyReplicas), own...)
	s.gauge("kube_replicationcontroller_status_available_replicas", "Pods available.", float64(r.Status.AvailableReplicas), own...)
	s.gauge("kube_replicationcontroller_status_fully_labeled_replicas", "Pods with all labels of the template.", float64(r.Status.FullyLabeledReplicas), own...)
	s.gauge("kube_replicationcontroller_status_observed_generation", "Generation seen by the controller.", float64(r.Status.ObservedGeneration), own...)
	s.gauge("kube_replicationcontroller_metadata_generation", "Generation wanted.", float64(r.Generation), own...)
	owned(s, "kube_replicationcontroller_owner", r.ObjectMeta, own)
}

func autoscaler(s *sender, h *autoscalingv2.HorizontalPodAutoscaler) {
	own := []string{"namespace", h.Namespace, "horizontalpodautoscaler", h.Name}
	t := h.Spec.ScaleTargetRef
	s.gauge("kube_horizontalpodautoscaler_info", "What an autoscaler scales.", 1, join(own, "scaletargetref_api_version", t.APIVersion, "scaletargetref_kind", t.Kind, "scaletargetref_name", t.Name)...)
	s.gauge("kube_horizontalpodautoscaler_spec_min_replicas", "Fewest pods.", orOne(h.Spec.MinReplicas), own...)
	s.gauge("kube_horizontalpodautoscaler_spec_max_replicas", "Most pods.", float64(h.Spec.MaxReplicas), own...)
	s.gauge("kube_horizontalpodautoscaler_status_current_replicas", "Pods there are.", float64(h.Status.CurrentReplicas), own...)
	s.gauge("kube_horizontalpodautoscaler_status_desired_replicas", "Pods wanted.", float64(h.Status.DesiredReplicas), own...)
	for _, c := range h.Status.Conditions {
		condition(s, "kube_horizontalpodautoscaler_status_condition", own, string(c.Type), c.Status)
	}
	created(s, "kube_horizontalpodautoscaler_created", h.ObjectMeta, own)
	s.gauge("kube_horizontalpodautoscaler_metadata_generation", "Generation wanted.", float64(h.Generation), own...)
	for _, m := range h.Spec.Metrics {
		if name, t := targetOf(m); t != nil {
			metricValue(s, "kube_horizontalpodautoscaler_spec_target_metric", "Target of an autoscaler.", name, t.Value, t.AverageValue, t.AverageUtilization, own)
		}
	}
	for _, m := range h.Status.CurrentMetrics {
		if name, t := currentOf(m); t != nil {
			metricValue(s, "kube_horizontalpodautoscaler_status_target_metric", "What an autoscaler measured.", name, t.Value, t.AverageValue, t.AverageUtilization, own)
		}
	}
}

// targetOf is the target of one metric of an autoscaler.
func targetOf(m autoscalingv2.MetricSpec) (string, *autoscalingv2.MetricTarget) {
	switch {
	case m.Resource != nil:
		return string(m.Resource.Name), &m.Resource.Target
	case m.ContainerResource != nil:
		return string(m.ContainerResource.Name), &m.ContainerResource.Target
	case m.Pods != nil:
		return m.Pods.Metric.Name, &m.Pods.Target
	case m.Object != nil:
		return m.Object.Metric.Name, &m.Object.Target
	case m.External != nil:
		return m.External.Metric.Name, &m.External.Target
	}
	return "", nil
}

// currentOf is what was measured for one metric.
func currentOf(m autoscalingv2.MetricStatus) (string, *autoscalingv2.MetricValueStatus) {
	switch {
	case m.Resource != nil:
		return string(m.Resource.Name), &m.Resource.Current
	case m.ContainerResource != nil:
		return string(m.ContainerResource.Name), &m.ContainerResource.Current
	case m.Pods != nil:
		return m.Pods.Metric.Name, &m.Pods.Current
	case m.Object != nil:
		return m.Object.Metric.Name, &m.Object.Current
	case m.External != nil:
		return m.External.Metric.Name, &m.External.Current
	}
	return "", nil
}

func metricValue(s *sender, series, help, metric string, value, average *resource.Quantity, utilization *int32, own []string) {
	for kind, q := range map[string]*resource.Quantity{"value": value, "average": average} {
		if q != nil {
			s.gauge(series, help, q.AsApproximateFloat64(), join(own, "metric_name", metric, "metric_target_type", kind)...)
		}
	}
	if utilization != nil {
		s.gauge(series, help, float64(*utilization), join(own, "metric_name", metric, "metric_target_type", "utilization")...)
	}
}

// share is a number of pods given as such or as a part of replicas.
func share(s *sender, name, help string, n *intstr.IntOrString, replicas *int32, up bool, own []string) {
	if n == nil {
		return
	}
	if v, err := intstr.GetScaledValueFromIntOrPercent(n, int(orOne(replicas)), up); err == nil {
		s.gauge(name, help, float64(v), own...)
	}
}

// owned writes the owner of an object.
func owned(s *sender, name string, m metav1.ObjectMeta, own []string) {
	kind, of, controller := owner(m)
	s.gauge(name, "Owner of the object.", 1, join(own, "owner_kind", kind, "owner_name", of, "owner_is_controller", controller)...)
}
