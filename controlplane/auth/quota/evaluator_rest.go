package quota

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
)

func as[T runtime.Object](object runtime.Object) (T, error) {
	have, ok := object.(T)
	if !ok {
		var want T
		return want, fmt.Errorf("want a %T, got %T", want, object)
	}
	return have, nil
}

// wholeWrites are creations and updates of the object itself.
func wholeWrites(a admission.Attributes) bool {
	return a.GetSubresource() == "" && (a.GetOperation() == admission.Create || a.GetOperation() == admission.Update)
}

// unscoped is for kinds that no scope knows and that lack nothing.
type unscoped struct{}

func (unscoped) lacks([]corev1.ResourceName, runtime.Object) []corev1.ResourceName { return nil }

func (unscoped) inScope(corev1.ScopedResourceSelectorRequirement, runtime.Object) (bool, error) {
	return false, nil
}

func (unscoped) handles(a admission.Attributes) bool { return wholeWrites(a) }

// serviceKind counts services, their node ports and load balancers.
type serviceKind struct{ unscoped }

func (serviceKind) names(input []corev1.ResourceName) []corev1.ResourceName {
	var out []corev1.ResourceName
	for _, name := range input {
		switch name {
		case corev1.ResourceServices, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers, "count/services":
			out = append(out, name)
		}
	}
	return out
}

func (serviceKind) usage(object runtime.Object) (corev1.ResourceList, error) {
	service, err := as[*corev1.Service](object)
	if err != nil {
		return nil, err
	}
	out := corev1.ResourceList{
		corev1.ResourceServices: one(), "count/services": one(),
		corev1.ResourceServicesNodePorts:     resource.Quantity{Format: resource.DecimalSI},
		corev1.ResourceServicesLoadBalancers: resource.Quantity{Format: resource.DecimalSI},
	}
	ports := *resource.NewQuantity(int64(len(service.Spec.Ports)), resource.DecimalSI)
	switch service.Spec.Type {
	case corev1.ServiceTypeNodePort:
		out[corev1.ResourceServicesNodePorts] = ports
	case corev1.ServiceTypeLoadBalancer:
		out[corev1.ResourceServicesLoadBalancers] = one()
		if a := service.Spec.AllocateLoadBalancerNodePorts; a == nil || *a {
			out[corev1.ResourceServicesNodePorts] = ports
		}
	}
	return out, nil
}

const classSuffix = ".storageclass.storage.k8s.io/"

// claimKind counts claims and the bytes they ask for, in all and by class.
type claimKind struct{ unscoped }

func (claimKind) names(input []corev1.ResourceName) []corev1.ResourceName {
	var out []corev1.ResourceName
	for _, name := range input {
		_, rest, byClass := strings.Cut(string(name), classSuffix)
		if !byClass {
			rest = string(name)
		}
		if rest == "persistentvolumeclaims" || rest == "requests.storage" || rest == "count/persistentvolumeclaims" && !byClass {
			out = append(out, name)
		}
	}
	return out
}

func (claimKind) usage(object runtime.Object) (corev1.ResourceList, error) {
	claim, err := as[*corev1.PersistentVolumeClaim](object)
	if err != nil {
		return nil, err
	}
	out := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: one(), "count/persistentvolumeclaims": one()}
	class := claim.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" && claim.Spec.StorageClassName != nil {
		class = *claim.Spec.StorageClassName
	}
	if class != "" {
		out[corev1.ResourceName(class+classSuffix+"persistentvolumeclaims")] = one()
	}
	if q, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		out[corev1.ResourceRequestsStorage] = q
		if class != "" {
			out[corev1.ResourceName(class+classSuffix+"requests.storage")] = q
		}
	}
	return out, nil
}
