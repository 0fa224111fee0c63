package legal

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	pvapi "k8s.io/kubernetes/pkg/api/persistentvolume"
	pvcapi "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	podapi "k8s.io/kubernetes/pkg/api/pod"
	serviceapi "k8s.io/kubernetes/pkg/api/service"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func podOptions(pod, old *core.Pod) validation.PodValidationOptions {
	var opts validation.PodValidationOptions
	if old == nil {
		opts = podapi.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, nil, &pod.ObjectMeta, nil)
	} else {
		opts = podapi.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, &old.Spec, &pod.ObjectMeta, &old.ObjectMeta)
	}
	opts.ResourceIsPod = true
	return opts
}

func podCheck(f func(o, old *core.Pod, opts validation.PodValidationOptions) field.ErrorList) func(o, old runtime.Object) field.ErrorList {
	return two(func(o, old *core.Pod) field.ErrorList { return f(o, old, podOptions(o, old)) })
}

func coreChecks() map[schema.GroupKind]check {
	events := core.SchemeGroupVersion
	events.Version = "v1"
	return map[schema.GroupKind]check{
		core.Kind("Pod"): {
			create: one(func(p *core.Pod) field.ErrorList { return validation.ValidatePodCreate(p, podOptions(p, nil)) }),
			update: podCheck(validation.ValidatePodUpdate),
			status: podCheck(validation.ValidatePodStatusUpdate),
			parts: map[string]func(o, old runtime.Object) field.ErrorList{
				"ephemeralcontainers": podCheck(validation.ValidatePodEphemeralContainersUpdate),
				"resize":              podCheck(validation.ValidatePodResize),
			},
			warn: func(ctx context.Context, o, old runtime.Object) []string {
				if old != nil {
					return podapi.GetWarningsForPod(ctx, o.(*core.Pod), old.(*core.Pod))
				}
				return podapi.GetWarningsForPod(ctx, o.(*core.Pod), nil)
			},
		},
		core.Kind("Node"): {
			create: one(validation.ValidateNode),
			update: both(validation.ValidateNode, validation.ValidateNodeUpdate),
			status: two(validation.ValidateNodeUpdate),
		},
		core.Kind("Namespace"): {
			create: one(validation.ValidateNamespace),
			update: both(validation.ValidateNamespace, validation.ValidateNamespaceUpdate),
			status: two(validation.ValidateNamespaceStatusUpdate),
			parts:  map[string]func(o, old runtime.Object) field.ErrorList{"finalize": two(validation.ValidateNamespaceFinalizeUpdate)},
		},
		core.Kind("Service"): {
			create: one(validation.ValidateServiceCreate),
			update: two(validation.ValidateServiceUpdate),
			status: two(validation.ValidateServiceStatusUpdate),
			warn: func(_ context.Context, o, old runtime.Object) []string {
				if old != nil {
					return serviceapi.GetWarningsForService(o.(*core.Service), old.(*core.Service))
				}
				return serviceapi.GetWarningsForService(o.(*core.Service), nil)
			},
		},
		core.Kind("ReplicationController"): {
			create: one(func(o *core.ReplicationController) field.ErrorList {
				return validation.ValidateReplicationController(o, podapi.GetValidationOptionsFromPodTemplate(o.Spec.Template, nil))
			}),
			update: two(func(o, old *core.ReplicationController) field.ErrorList {
				return validation.ValidateReplicationControllerUpdate(o, old, podapi.GetValidationOptionsFromPodTemplate(o.Spec.Template, old.Spec.Template))
			}),
			status: two(validation.ValidateReplicationControllerStatusUpdate),
		},
		core.Kind("PodTemplate"): {
			create: one(func(o *core.PodTemplate) field.ErrorList {
				return validation.ValidatePodTemplate(o, podapi.GetValidationOptionsFromPodTemplate(&o.Template, nil))
			}),
			update: two(func(o, old *core.PodTemplate) field.ErrorList {
				return validation.ValidatePodTemplateUpdate(o, old, podapi.GetValidationOptionsFromPodTemplate(&o.Template, &old.Template))
			}),
		},
		core.Kind("ConfigMap"):      {create: one(validation.ValidateConfigMap), update: two(validation.ValidateConfigMapUpdate)},
		core.Kind("Secret"):         {create: one(validation.ValidateSecret), update: two(validation.ValidateSecretUpdate)},
		core.Kind("ServiceAccount"): {create: one(validation.ValidateServiceAccount), update: two(validation.ValidateServiceAccountUpdate)},
		core.Kind("Endpoints"):      {create: one(validation.ValidateEndpointsCreate), update: two(validation.ValidateEndpointsUpdate)},
		core.Kind("LimitRange"): {
			create: one(validation.ValidateLimitRange),
			update: two(func(o, _ *core.LimitRange) field.ErrorList { return validation.ValidateLimitRange(o) }),
		},
		core.Kind("ResourceQuota"): {
			create: one(validation.ValidateResourceQuota),
			update: two(validation.ValidateResourceQuotaUpdate),
			status: two(validation.ValidateResourceQuotaStatusUpdate),
		},
		core.Kind("Event"): {
			create: one(func(o *core.Event) field.ErrorList { return validation.ValidateEventCreate(o, events) }),
			update: two(func(o, old *core.Event) field.ErrorList { return validation.ValidateEventUpdate(o, old, events) }),
		},
		core.Kind("PersistentVolume"): {
			create: one(func(o *core.PersistentVolume) field.ErrorList {
				return validation.ValidatePersistentVolume(o, validation.ValidationOptionsForPersistentVolume(o, nil))
			}),
			update: two(func(o, old *core.PersistentVolume) field.ErrorList {
				opts := validation.ValidationOptionsForPersistentVolume(o, old)
				return append(validation.ValidatePersistentVolume(o, opts), validation.ValidatePersistentVolumeUpdate(o, old, opts)...)
			}),
			status: two(validation.ValidatePersistentVolumeStatusUpdate),
			warn: func(_ context.Context, o, _ runtime.Object) []string {
				return pvapi.GetWarningsForPersistentVolume(o.(*core.PersistentVolume))
			},
		},
		core.Kind("PersistentVolumeClaim"): {
			create: one(func(o *core.PersistentVolumeClaim) field.ErrorList {
				return validation.ValidatePersistentVolumeClaim(o, validation.ValidationOptionsForPersistentVolumeClaim(o, nil))
			}),
			update: two(func(o, old *core.PersistentVolumeClaim) field.ErrorList {
				return validation.ValidatePersistentVolumeClaimUpdate(o, old, validation.ValidationOptionsForPersistentVolumeClaim(o, old))
			}),
			status: two(func(o, old *core.PersistentVolumeClaim) field.ErrorList {
				return validation.ValidatePersistentVolumeClaimStatusUpdate(o, old, validation.ValidationOptionsForPersistentVolumeClaim(o, old))
			}),
			warn: func(_ context.Context, o, _ runtime.Object) []string {
				return pvcapi.GetWarningsForPersistentVolumeClaim(o.(*core.PersistentVolumeClaim))
			},
		},
		core.Kind("Binding"): {create: one(validation.ValidatePodBinding)},
	}
}
