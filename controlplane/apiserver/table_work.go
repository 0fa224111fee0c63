package apiserver

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
)

func workColumns() map[schema.GroupKind][]column {
	apps := func(kind string) schema.GroupKind { return schema.GroupKind{Group: "apps", Kind: kind} }
	batch := func(kind string) schema.GroupKind { return schema.GroupKind{Group: "batch", Kind: kind} }
	return map[schema.GroupKind][]column{
		apps("Deployment"): append([]column{
			named(),
			text("Ready", func(o *appsv1.Deployment) string {
				return fmt.Sprintf("%d/%d", o.Status.ReadyReplicas, count64(o.Spec.Replicas))
			}),
			number("Up-to-date", func(o *appsv1.Deployment) int64 { return int64(o.Status.UpdatedReplicas) }),
			number("Available", func(o *appsv1.Deployment) int64 { return int64(o.Status.AvailableReplicas) }),
			aged(),
		}, templateColumns(
			func(o *appsv1.Deployment) *corev1.PodTemplateSpec { return &o.Spec.Template },
			func(o *appsv1.Deployment) string { return metav1.FormatLabelSelector(o.Spec.Selector) })...),
		apps("ReplicaSet"): append([]column{
			named(),
			number("Desired", func(o *appsv1.ReplicaSet) int64 { return count64(o.Spec.Replicas) }),
			number("Current", func(o *appsv1.ReplicaSet) int64 { return int64(o.Status.Replicas) }),
			number("Ready", func(o *appsv1.ReplicaSet) int64 { return int64(o.Status.ReadyReplicas) }),
			aged(),
		}, templateColumns(
			func(o *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &o.Spec.Template },
			func(o *appsv1.ReplicaSet) string { return metav1.FormatLabelSelector(o.Spec.Selector) })...),
		apps("StatefulSet"): append([]column{
			named(),
			text("Ready", func(o *appsv1.StatefulSet) string {
				return fmt.Sprintf("%d/%d", o.Status.ReadyReplicas, count64(o.Spec.Replicas))
			}),
			aged(),
		}, templateColumns(func(o *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &o.Spec.Template }, nil)...),
		apps("DaemonSet"): append([]column{
			named(),
			number("Desired", func(o *appsv1.DaemonSet) int64 { return int64(o.Status.DesiredNumberScheduled) }),
			number("Current", func(o *appsv1.DaemonSet) int64 { return int64(o.Status.CurrentNumberScheduled) }),
			number("Ready", func(o *appsv1.DaemonSet) int64 { return int64(o.Status.NumberReady) }),
			number("Up-to-date", func(o *appsv1.DaemonSet) int64 { return int64(o.Status.UpdatedNumberScheduled) }),
			number("Available", func(o *appsv1.DaemonSet) int64 { return int64(o.Status.NumberAvailable) }),
			text("Node Selector", func(o *appsv1.DaemonSet) string { return labels.FormatLabels(o.Spec.Template.Spec.NodeSelector) }),
			aged(),
		}, templateColumns(
			func(o *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &o.Spec.Template },
			func(o *appsv1.DaemonSet) string { return metav1.FormatLabelSelector(o.Spec.Selector) })...),
		apps("ControllerRevision"): {
			named(),
			text("Controller", func(o *appsv1.ControllerRevision) string {
				owner := metav1.GetControllerOf(o)
				if owner == nil {
					return none
				}
				gv, err := schema.ParseGroupVersion(owner.APIVersion)
				if err != nil {
					return none
				}
				return strings.ToLower(owner.Kind) + suffix(".", gv.Group) + "/" + owner.Name
			}),
			number("Revision", func(o *appsv1.ControllerRevision) int64 { return o.Revision }),
			aged(),
		},
		batch("Job"): append([]column{
			named(), text("Status", jobState), text("Completions", jobCompletions), timed("Duration", jobDuration), aged(),
		}, templateColumns(
			func(o *batchv1.Job) *corev1.PodTemplateSpec { return &o.Spec.Template },
			func(o *batchv1.Job) string { return metav1.FormatLabelSelector(o.Spec.Selector) })...),
		batch("CronJob"): append([]column{
			named(), text("Schedule", func(o *batchv1.CronJob) string { return o.Spec.Schedule }),
			text("Timezone", func(o *batchv1.CronJob) string { return deref(o.Spec.TimeZone, none) }),
			flag("Suspend", func(o *batchv1.CronJob) *bool { return o.Spec.Suspend }),
			number("Active", func(o *batchv1.CronJob) int64 { return int64(len(o.Status.Active)) }),
			timed("Last Schedule", func(now time.Time, o *batchv1.CronJob) string {
				if o.Status.LastScheduleTime == nil {
					return none
				}
				return since(now, o.Status.LastScheduleTime.Time)
			}),
			aged(),
		}, templateColumns(
			func(o *batchv1.CronJob) *corev1.PodTemplateSpec { return &o.Spec.JobTemplate.Spec.Template },
			func(o *batchv1.CronJob) string { return metav1.FormatLabelSelector(o.Spec.JobTemplate.Spec.Selector) })...),
		{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}: {
			named(),
			text("Reference", func(o *autoscalingv2.HorizontalPodAutoscaler) string {
				return o.Spec.ScaleTargetRef.Kind + "/" + o.Spec.ScaleTargetRef.Name
			}),
			text("Targets", hpaTargets),
			text("MinPods", func(o *autoscalingv2.HorizontalPodAutoscaler) string {
				if o.Spec.MinReplicas == nil {
					return unset
				}
				return fmt.Sprint(*o.Spec.MinReplicas)
			}),
			number("MaxPods", func(o *autoscalingv2.HorizontalPodAutoscaler) int64 { return int64(o.Spec.MaxReplicas) }),
			number("Replicas", func(o *autoscalingv2.HorizontalPodAutoscaler) int64 { return int64(o.Status.CurrentReplicas) }),
			aged(),
		},
		{Group: "policy", Kind: "PodDisruptionBudget"}: {
			named(),
			text("Min Available", func(o *policyv1.PodDisruptionBudget) string {
				if o.Spec.MinAvailable == nil {
					return "N/A"
				}
				return o.Spec.MinAvailable.String()
			}),
			text("Max Unavailable", func(o *policyv1.PodDisruptionBudget) string {
				if o.Spec.MaxUnavailable == nil {
					return "N/A"
				}
				return o.Spec.MaxUnavailable.String()
			}),
			number("Allowed Disruptions", func(o *policyv1.PodDisruptionBudget) int64 { return int64(o.Status.DisruptionsAllowed) }),
			aged(),
		},
	}
}

func suffix(by, s string) string {
	if s == "" {
		return ""
	}
	return by + s
}

func jobState(o *batchv1.Job) string {
	is := func(t batchv1.JobConditionType) bool {
		for _, c := range o.Status.Conditions {
			if c.Type == t && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	}
	switch {
	case is(batchv1.JobComplete):
		return "Complete"
	case is(batchv1.JobFailed):
		return "Failed"
	case o.DeletionTimestamp != nil:
		return "Terminating"
	case is(batchv1.JobSuspended):
		return "Suspended"
	case is(batchv1.JobFailureTarget):
		return "FailureTarget"
	case is(batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func jobCompletions(o *batchv1.Job) string {
	switch {
	case o.Spec.Completions != nil:
		return fmt.Sprintf("%d/%d", o.Status.Succeeded, *o.Spec.Completions)
	case count64(o.Spec.Parallelism) > 1:
		return fmt.Sprintf("%d/1 of %d", o.Status.Succeeded, *o.Spec.Parallelism)
	}
	return fmt.Sprintf("%d/1", o.Status.Succeeded)
}

func jobDuration(now time.Time, o *batchv1.Job) string {
	switch {
	case o.Status.StartTime == nil:
		return ""
	case o.Status.CompletionTime != nil:
		now = o.Status.CompletionTime.Time
	}
	return duration.HumanDuration(now.Sub(o.Status.StartTime.Time))
}

// hpaShown is how many metrics of an autoscaler fit into a cell.
const hpaShown = 2

func hpaTargets(o *autoscalingv2.HorizontalPodAutoscaler) string {
	if len(o.Spec.Metrics) == 0 {
		return none
	}
	var out []string
	for i, m := range o.Spec.Metrics {
		var have *autoscalingv2.MetricStatus
		if i < len(o.Status.CurrentMetrics) {
			have = &o.Status.CurrentMetrics[i]
		}
		out = append(out, hpaTarget(m, have))
	}
	if len(out) > hpaShown {
		return fmt.Sprintf("%s + %d more...", strings.Join(out[:hpaShown], ", "), len(out)-hpaShown)
	}
	return strings.Join(out, ", ")
}

func hpaTarget(m autoscalingv2.MetricSpec, have *autoscalingv2.MetricStatus) string {
	prefix := ""
	var want autoscalingv2.MetricTarget
	var now *autoscalingv2.MetricValueStatus
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType:
		prefix, want = string(m.Resource.Name)+": ", m.Resource.Target
		if have != nil && have.Resource != nil {
			now = &have.Resource.Current
		}
	case autoscalingv2.ContainerResourceMetricSourceType:
		prefix, want = string(m.ContainerResource.Name)+": ", m.ContainerResource.Target
		if have != nil && have.ContainerResource != nil {
			now = &have.ContainerResource.Current
		}
	case autoscalingv2.PodsMetricSourceType:
		want = m.Pods.Target
		if have != nil && have.Pods != nil {
			now = &have.Pods.Current
		}
	case autoscalingv2.ObjectMetricSourceType:
		want = m.Object.Target
		if have != nil && have.Object != nil {
			now = &have.Object.Current
		}
	case autoscalingv2.ExternalMetricSourceType:
		want = m.External.Target
		if have != nil && have.External != nil {
			now = &have.External.Current
		}
	default:
		return "<unknown type>"
	}
	is, average := unknown, ""
	switch {
	case want.AverageUtilization != nil:
		if now != nil && now.AverageUtilization != nil {
			is = fmt.Sprintf("%d%%", *now.AverageUtilization)
		}
		return fmt.Sprintf("%s%s/%d%%", prefix, is, *want.AverageUtilization)
	case want.AverageValue != nil:
		if now != nil && now.AverageValue != nil {
			is = now.AverageValue.String()
		}
		if m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType {
			average = " (avg)"
		}
		return fmt.Sprintf("%s%s/%s%s", prefix, is, want.AverageValue, average)
	case want.Value != nil:
		if now != nil && now.Value != nil {
			is = now.Value.String()
		}
		return fmt.Sprintf("%s%s/%s", prefix, is, want.Value)
	}
	return prefix + is + "/<auto>"
}
