package legal

import (
	"maps"

	policyv1 "k8s.io/api/policy/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	admreg "k8s.io/kubernetes/pkg/apis/admissionregistration"
	admregvalidation "k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
	"k8s.io/kubernetes/pkg/apis/authentication"
	authenticationvalidation "k8s.io/kubernetes/pkg/apis/authentication/validation"
	"k8s.io/kubernetes/pkg/apis/authorization"
	authorizationvalidation "k8s.io/kubernetes/pkg/apis/authorization/validation"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesvalidation "k8s.io/kubernetes/pkg/apis/certificates/validation"
	"k8s.io/kubernetes/pkg/apis/coordination"
	coordinationvalidation "k8s.io/kubernetes/pkg/apis/coordination/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryvalidation "k8s.io/kubernetes/pkg/apis/discovery/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/node"
	nodevalidation "k8s.io/kubernetes/pkg/apis/node/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingvalidation "k8s.io/kubernetes/pkg/apis/scheduling/validation"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
)

// checks is the whole law.
func checks() map[schema.GroupKind]check {
	all := map[schema.GroupKind]check{}
	for _, part := range []map[schema.GroupKind]check{coreChecks(), workChecks(), networkChecks(), storageChecks(), accessChecks(), admissionChecks()} {
		maps.Copy(all, part)
	}
	return all
}

func networkChecks() map[schema.GroupKind]check {
	return map[schema.GroupKind]check{
		networking.Kind("Ingress"): {
			create: one(networkingvalidation.ValidateIngressCreate),
			update: two(networkingvalidation.ValidateIngressUpdate),
			status: two(networkingvalidation.ValidateIngressStatusUpdate),
		},
		networking.Kind("IngressClass"): {
			create: one(networkingvalidation.ValidateIngressClass),
			update: two(networkingvalidation.ValidateIngressClassUpdate),
		},
		networking.Kind("NetworkPolicy"): {
			create: one(func(o *networking.NetworkPolicy) field.ErrorList {
				return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.ValidationOptionsForNetworking(o, nil))
			}),
			update: two(func(o, old *networking.NetworkPolicy) field.ErrorList {
				return networkingvalidation.ValidateNetworkPolicyUpdate(o, old, networkingvalidation.ValidationOptionsForNetworking(o, old))
			}),
		},
		discovery.Kind("EndpointSlice"): {
			create: one(discoveryvalidation.ValidateEndpointSliceCreate),
			update: two(discoveryvalidation.ValidateEndpointSliceUpdate),
		},
		policy.Kind("PodDisruptionBudget"): {
			create: one(func(o *policy.PodDisruptionBudget) field.ErrorList {
				return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{})
			}),
			update: two(func(o, old *policy.PodDisruptionBudget) field.ErrorList {
				return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{
					AllowInvalidLabelValueInSelector: metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector),
				})
			}),
			status: two(func(o, old *policy.PodDisruptionBudget) field.ErrorList {
				return policyvalidation.ValidatePodDisruptionBudgetStatusUpdate(o.Status, old.Status, field.NewPath("status"), policyv1.SchemeGroupVersion)
			}),
		},
	}
}

func storageChecks() map[schema.GroupKind]check {
	return map[schema.GroupKind]check{
		storage.Kind("StorageClass"): {
			create: one(storagevalidation.ValidateStorageClass),
			update: both(storagevalidation.ValidateStorageClass, storagevalidation.ValidateStorageClassUpdate),
		},
		storage.Kind("CSIDriver"): {create: one(storagevalidation.ValidateCSIDriver), update: two(storagevalidation.ValidateCSIDriverUpdate)},
		storage.Kind("CSINode"):   {create: one(storagevalidation.ValidateCSINode), update: two(storagevalidation.ValidateCSINodeUpdate)},
		storage.Kind("CSIStorageCapacity"): {
			create: one(func(o *storage.CSIStorageCapacity) field.ErrorList {
				return storagevalidation.ValidateCSIStorageCapacity(o, storagevalidation.CSIStorageCapacityValidateOptions{})
			}),
			update: two(func(o, old *storage.CSIStorageCapacity) field.ErrorList {
				opts := storagevalidation.CSIStorageCapacityValidateOptions{
					AllowInvalidLabelValueInSelector: metav1validation.LabelSelectorHasInvalidLabelValue(old.NodeTopology),
				}
				return append(storagevalidation.ValidateCSIStorageCapacity(o, opts), storagevalidation.ValidateCSIStorageCapacityUpdate(o, old)...)
			}),
		},
		storage.Kind("VolumeAttachment"): {
			create: one(storagevalidation.ValidateVolumeAttachment),
			update: two(storagevalidation.ValidateVolumeAttachmentUpdate),
		},
		storage.Kind("VolumeAttributesClass"): {
			create: one(storagevalidation.ValidateVolumeAttributesClass),
			update: two(storagevalidation.ValidateVolumeAttributesClassUpdate),
		},
	}
}

func accessChecks() map[schema.GroupKind]check {
	return map[schema.GroupKind]check{
		rbac.Kind("Role"):               {create: one(rbacvalidation.ValidateRole), update: two(rbacvalidation.ValidateRoleUpdate)},
		rbac.Kind("RoleBinding"):        {create: one(rbacvalidation.ValidateRoleBinding), update: two(rbacvalidation.ValidateRoleBindingUpdate)},
		rbac.Kind("ClusterRoleBinding"): {create: one(rbacvalidation.ValidateClusterRoleBinding), update: two(rbacvalidation.ValidateClusterRoleBindingUpdate)},
		rbac.Kind("ClusterRole"): {
			create: one(func(o *rbac.ClusterRole) field.ErrorList {
				return rbacvalidation.ValidateClusterRole(o, rbacvalidation.ClusterRoleValidationOptions{})
			}),
			update: two(func(o, old *rbac.ClusterRole) field.ErrorList {
				var opts rbacvalidation.ClusterRoleValidationOptions
				if old.AggregationRule != nil {
					for i := range old.AggregationRule.ClusterRoleSelectors {
						if metav1validation.LabelSelectorHasInvalidLabelValue(&old.AggregationRule.ClusterRoleSelectors[i]) {
							opts.AllowInvalidLabelValueInSelector = true
						}
					}
				}
				return rbacvalidation.ValidateClusterRoleUpdate(o, old, opts)
			}),
		},
		certificates.Kind("CertificateSigningRequest"): {
			create: one(certificatesvalidation.ValidateCertificateSigningRequestCreate),
			update: two(certificatesvalidation.ValidateCertificateSigningRequestUpdate),
			status: two(certificatesvalidation.ValidateCertificateSigningRequestStatusUpdate),
			parts: map[string]func(o, old runtime.Object) field.ErrorList{
				"approval": two(certificatesvalidation.ValidateCertificateSigningRequestApprovalUpdate),
			},
		},
		coordination.Kind("Lease"):                     {create: one(coordinationvalidation.ValidateLease), update: two(coordinationvalidation.ValidateLeaseUpdate)},
		scheduling.Kind("PriorityClass"):               {create: one(schedulingvalidation.ValidatePriorityClass), update: two(schedulingvalidation.ValidatePriorityClassUpdate)},
		authentication.Kind("TokenRequest"):            {create: one(authenticationvalidation.ValidateTokenRequest)},
		authorization.Kind("SubjectAccessReview"):      {create: one(authorizationvalidation.ValidateSubjectAccessReview)},
		authorization.Kind("SelfSubjectAccessReview"):  {create: one(authorizationvalidation.ValidateSelfSubjectAccessReview)},
		authorization.Kind("LocalSubjectAccessReview"): {create: one(authorizationvalidation.ValidateLocalSubjectAccessReview)},
		node.Kind("RuntimeClass"): {
			create: one(nodevalidation.ValidateRuntimeClass),
			update: both(nodevalidation.ValidateRuntimeClass, nodevalidation.ValidateRuntimeClassUpdate),
		},
	}
}

func admissionChecks() map[schema.GroupKind]check {
	return map[schema.GroupKind]check{
		admreg.Kind("ValidatingWebhookConfiguration"): {
			create: one(admregvalidation.ValidateValidatingWebhookConfiguration),
			update: two(admregvalidation.ValidateValidatingWebhookConfigurationUpdate),
		},
		admreg.Kind("MutatingWebhookConfiguration"): {
			create: one(admregvalidation.ValidateMutatingWebhookConfiguration),
			update: two(admregvalidation.ValidateMutatingWebhookConfigurationUpdate),
		},
		admreg.Kind("ValidatingAdmissionPolicy"): {
			create: one(admregvalidation.ValidateValidatingAdmissionPolicy),
			update: two(admregvalidation.ValidateValidatingAdmissionPolicyUpdate),
			status: two(admregvalidation.ValidateValidatingAdmissionPolicyStatusUpdate),
		},
		admreg.Kind("ValidatingAdmissionPolicyBinding"): {
			create: one(admregvalidation.ValidateValidatingAdmissionPolicyBinding),
			update: two(admregvalidation.ValidateValidatingAdmissionPolicyBindingUpdate),
		},
		admreg.Kind("MutatingAdmissionPolicy"): {
			create: one(admregvalidation.ValidateMutatingAdmissionPolicy),
			update: two(admregvalidation.ValidateMutatingAdmissionPolicyUpdate),
		},
		admreg.Kind("MutatingAdmissionPolicyBinding"): {
			create: one(admregvalidation.ValidateMutatingAdmissionPolicyBinding),
			update: two(admregvalidation.ValidateMutatingAdmissionPolicyBindingUpdate),
		},
	}
}
