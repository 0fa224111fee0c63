package legal

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	jobapi "k8s.io/kubernetes/pkg/api/job"
	podapi "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// templated is the check of a kind that makes pods from a template.
func templated[T runtime.Object](
	template func(T) *core.PodTemplateSpec,
	selector func(T) *metav1.LabelSelector,
	create func(T, validation.PodValidationOptions) field.ErrorList,
	update func(o, old T, opts validation.PodValidationOptions) field.ErrorList,
	status func(o, old T) field.ErrorList,
	templatePath *field.Path,
) check {
	c := check{
		create: one(func(o T) field.ErrorList {
			return create(o, podapi.GetValidationOptionsFromPodTemplate(template(o), nil))
		}),
		update: two(func(o, old T) field.ErrorList {
			opts := podapi.GetValidationOptionsFromPodTemplate(template(o), template(old))
			if selector != nil && metav1validation.LabelSelectorHasInvalidLabelValue(selector(old)) {
				opts.AllowInvalidLabelValueInSelector = true
			}
			return update(o, old, opts)
		}),
		warn: func(ctx context.Context, o, old runtime.Object) []string {
			if old == nil {
				return podapi.GetWarningsForPodTemplate(ctx, templatePath, template(o.(T)), nil)
			}
			return podapi.GetWarningsForPodTemplate(ctx, templatePath, template(o.(T)), template(old.(T)))
		},
	}
	if status != nil {
		c.status = two(status)
	}
	return c
}

func workChecks() map[schema.GroupKind]check {
	spec := field.NewPath("spec", "template")
	cron := templated(
		func(o *batch.CronJob) *core.PodTemplateSpec { return &o.Spec.JobTemplate.Spec.Template }, nil,
		batchvalidation.ValidateCronJobCreate, batchvalidation.ValidateCronJobUpdate, nil,
		field.NewPath("spec", "jobTemplate", "spec", "template"))
	return map[schema.GroupKind]check{
		apps.Kind("Deployment"): templated(
			func(o *apps.Deployment) *core.PodTemplateSpec { return &o.Spec.Template },
			func(o *apps.Deployment) *metav1.LabelSelector { return o.Spec.Selector },
			appsvalidation.ValidateDeployment, appsvalidation.ValidateDeploymentUpdate, appsvalidation.ValidateDeploymentStatusUpdate, spec),
		apps.Kind("ReplicaSet"): templated(
			func(o *apps.ReplicaSet) *core.PodTemplateSpec { return &o.Spec.Template },
			func(o *apps.ReplicaSet) *metav1.LabelSelector { return o.Spec.Selector },
			appsvalidation.ValidateReplicaSet, appsvalidation.ValidateReplicaSetUpdate, appsvalidation.ValidateReplicaSetStatusUpdate, spec),
		apps.Kind("StatefulSet"): templated(
			func(o *apps.StatefulSet) *core.PodTemplateSpec { return &o.Spec.Template },
			func(o *apps.StatefulSet) *metav1.LabelSelector { return o.Spec.Selector },
			appsvalidation.ValidateStatefulSet, appsvalidation.ValidateStatefulSetUpdate, appsvalidation.ValidateStatefulSetStatusUpdate, spec),
		apps.Kind("DaemonSet"): templated(
			func(o *apps.DaemonSet) *core.PodTemplateSpec { return &o.Spec.Template },
			func(o *apps.DaemonSet) *metav1.LabelSelector { return o.Spec.Selector },
			appsvalidation.ValidateDaemonSet, appsvalidation.ValidateDaemonSetUpdate, appsvalidation.ValidateDaemonSetStatusUpdate, spec),
		apps.Kind("ControllerRevision"): {
			create: one(appsvalidation.ValidateControllerRevisionCreate),
			update: two(appsvalidation.ValidateControllerRevisionUpdate),
		},
		batch.Kind("CronJob"): cron,
		batch.Kind("Job"): {
			create: one(func(o *batch.Job) field.ErrorList { return batchvalidation.ValidateJob(o, jobOptions(o, nil)) }),
			update: two(func(o, old *batch.Job) field.ErrorList {
				opts := jobOptions(o, old)
				return append(batchvalidation.ValidateJob(o, opts), batchvalidation.ValidateJobUpdate(o, old, opts)...)
			}),
			status: two(func(o, old *batch.Job) field.ErrorList {
				// The rest of Kubernetes' transition rules bind its own controller's
				// intermediate conditions (FailureTarget, SuccessCriteriaMet).
				return batchvalidation.ValidateJobUpdateStatus(o, old, batchvalidation.JobStatusValidationOptions{
					RejectDisablingTerminalCondition:     true,
					RejectFinishedJobWithActivePods:      finished(o) && !finished(old),
					RejectCompleteJobWithFailedCondition: true,
				})
			}),
			warn: func(ctx context.Context, o, old runtime.Object) []string {
				var was *batch.JobSpec
				if old != nil {
					was = &old.(*batch.Job).Spec
				}
				return jobapi.WarningsForJobSpec(ctx, field.NewPath("spec"), &o.(*batch.Job).Spec, was)
			},
		},
		autoscaling.Kind("HorizontalPodAutoscaler"): {
			create: one(func(o *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
				return autoscalingvalidation.ValidateHorizontalPodAutoscaler(o, hpaOptions(o, nil))
			}),
			update: two(func(o, old *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
				return autoscalingvalidation.ValidateHorizontalPodAutoscalerUpdate(o, old, hpaOptions(o, old))
			}),
			status: two(autoscalingvalidation.ValidateHorizontalPodAutoscalerStatusUpdate),
		},
		autoscaling.Kind("Scale"): {create: one(autoscalingvalidation.ValidateScale)},
	}
}

func finished(o *batch.Job) bool { return batchvalidation.IsJobFinished(o) }

// jobOptions lets a Job that never started, or was suspended and emptied, change
// where and how its pods run.
func jobOptions(o, old *batch.Job) batchvalidation.JobValidationOptions {
	if old == nil {
		return batchvalidation.JobValidationOptions{
			PodValidationOptions:  podapi.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil),
			RequirePrefixedLabels: true,
		}
	}
	opts := batchvalidation.JobValidationOptions{
		PodValidationOptions: podapi.GetValidationOptionsFromPodTemplate(&o.Spec.Template, &old.Spec.Template),
	}
	if metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector) {
		opts.AllowInvalidLabelValueInSelector = true
	}
	suspended := old.Spec.Suspend != nil && *old.Spec.Suspend
	opts.AllowMutableSchedulingDirectives = suspended && old.Status.StartTime == nil
	_, named := old.Spec.Template.Labels[batch.JobNameLabel]
	_, owned := old.Spec.Template.Labels[batch.ControllerUidLabel]
	opts.RequirePrefixedLabels = named && owned
	return opts
}

// hpaOptions keeps accepting what an older version stored with a bad reference.
func hpaOptions(o, old *autoscaling.HorizontalPodAutoscaler) autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions {
	opts := autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{
		MinReplicasLowerBound:          1,
		ObjectMetricsValidationOptions: autoscalingvalidation.CrossVersionObjectReferenceValidationOptions{AllowEmptyAPIGroup: true},
	}
	if old != nil && o.Spec.ScaleTargetRef.Kind == old.Spec.ScaleTargetRef.Kind && o.Spec.ScaleTargetRef.APIVersion == old.Spec.ScaleTargetRef.APIVersion {
		opts.ScaleTargetRefValidationOptions.AllowInvalidAPIVersion = true
		opts.ScaleTargetRefValidationOptions.AllowEmptyAPIGroup = true
	}
	return opts
}
