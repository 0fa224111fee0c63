package apiserver

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// eventSeconds is how long an Event lives.
const eventSeconds = 3600

// behaviours says what each kind does beyond the common strategy. A kind that is
// missing here is a plain object.
func behaviours() map[schema.GroupKind]behaviour {
	k := func(group, kind string) schema.GroupKind { return schema.GroupKind{Group: group, Kind: kind} }
	work := behaviour{generation: true, canonical: true}
	role := behaviour{createOnUpdate: true}
	admission := behaviour{generation: true, conditional: true}
	fenced := behaviour{conditional: true}
	return map[schema.GroupKind]behaviour{
		k("", "Namespace"):             {create: on(newNamespace), fields: selectable(namespaceFields), extra: namespaceParts, wrap: namespaceStore},
		k("", "Node"):                  {keepStatus: true, fields: selectable(nodeFields), extra: nodeParts, status: onChange(nodeStatus)},
		k("", "Pod"):                   podBehaviour(),
		k("", "Service"):               {update: onChange(updateService), fields: selectable(serviceFields), extra: serviceParts, status: onChange(serviceStatus)},
		k("", "ReplicationController"): {generation: true, canonical: true, create: on(newReplicationController), fields: selectable(replicationControllerFields)},
		k("", "Secret"):                {create: on(newSecret), canonical: true, fields: selectable(secretFields)},
		k("", "Event"):                 {ttl: eventSeconds, createOnUpdate: true, fields: selectable(eventFields)},
		k("", "ServiceAccount"):        {extra: serviceAccountParts},
		k("", "Endpoints"):             {createOnUpdate: true},
		k("", "LimitRange"):            {createOnUpdate: true},
		k("", "PersistentVolume"):      {create: on(newVolume)},
		k("", "PersistentVolumeClaim"): {create: on(newClaim)},
		k("", "PodTemplate"):           {canonical: true, generation: true},

		k("apps", "Deployment"):  {generation: true, canonical: true, update: onChange(updateDeployment)},
		k("apps", "ReplicaSet"):  {generation: true, canonical: true, fields: selectable(replicaSetFields)},
		k("apps", "StatefulSet"): work,
		k("apps", "DaemonSet"):   {generation: true, canonical: true, create: on(newDaemonSet), update: onChange(updateDaemonSet)},

		k("batch", "Job"):     {generation: true, canonical: true, create: on(newJob), fields: selectable(jobFields)},
		k("batch", "CronJob"): work,

		k("networking.k8s.io", "Ingress"):       {generation: true},
		k("networking.k8s.io", "IngressClass"):  {generation: true},
		k("networking.k8s.io", "NetworkPolicy"): {generation: true},
		k("policy", "PodDisruptionBudget"):      {generation: true, conditional: true},

		k("rbac.authorization.k8s.io", "Role"):               role,
		k("rbac.authorization.k8s.io", "RoleBinding"):        role,
		k("rbac.authorization.k8s.io", "ClusterRole"):        role,
		k("rbac.authorization.k8s.io", "ClusterRoleBinding"): role,

		k("storage.k8s.io", "CSIDriver"):          fenced,
		k("storage.k8s.io", "CSINode"):            fenced,
		k("storage.k8s.io", "CSIStorageCapacity"): fenced,
		k("storage.k8s.io", "VolumeAttachment"):   fenced,

		k("coordination.k8s.io", "Lease"):       {createOnUpdate: true, conditional: true},
		k("discovery.k8s.io", "EndpointSlice"):  {generation: true},
		k("scheduling.k8s.io", "PriorityClass"): {generation: true},
		k("node.k8s.io", "RuntimeClass"):        {createOnUpdate: true, conditional: true},
		k("certificates.k8s.io", "CertificateSigningRequest"): {
			create: on(newSigningRequest), update: onChange(updateSigningRequest), status: onChange(signingRequestStatus),
			fields: selectable(signingRequestFields), extra: signingRequestParts,
		},

		k("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"):   admission,
		k("admissionregistration.k8s.io", "MutatingWebhookConfiguration"):     admission,
		k("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"):        admission,
		k("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): admission,
		k("admissionregistration.k8s.io", "MutatingAdmissionPolicy"):          admission,
		k("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"):   admission,
	}
}

func nodeFields(n *corev1.Node) fields.Set {
	return fields.Set{"spec.unschedulable": fmt.Sprint(n.Spec.Unschedulable)}
}

// nodeStatus keeps a node's configuration source out of the agent's reach.
func nodeStatus(_ context.Context, o, old *corev1.Node) { o.Status.Config = old.Status.Config }

func replicationControllerFields(o *corev1.ReplicationController) fields.Set {
	return fields.Set{"status.replicas": fmt.Sprint(o.Status.Replicas)}
}

func replicaSetFields(o *appsv1.ReplicaSet) fields.Set {
	return fields.Set{"status.replicas": fmt.Sprint(o.Status.Replicas)}
}

func jobFields(o *batchv1.Job) fields.Set {
	return fields.Set{"status.successful": fmt.Sprint(o.Status.Succeeded)}
}

func secretFields(o *corev1.Secret) fields.Set { return fields.Set{"type": string(o.Type)} }

func eventFields(e *corev1.Event) fields.Set {
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	about := e.InvolvedObject
	return fields.Set{
		"involvedObject.kind": about.Kind, "involvedObject.namespace": about.Namespace, "involvedObject.name": about.Name,
		"involvedObject.uid": string(about.UID), "involvedObject.apiVersion": about.APIVersion,
		"involvedObject.resourceVersion": about.ResourceVersion, "involvedObject.fieldPath": about.FieldPath,
		"reason": e.Reason, "reportingComponent": e.ReportingController, "source": source, "type": e.Type,
	}
}

// newReplicationController labels the controller like its pods, as users of the
// oldest kind expect.
func newReplicationController(_ context.Context, o *corev1.ReplicationController) {
	if len(o.Labels) == 0 && o.Spec.Template != nil {
		o.Labels = o.Spec.Template.Labels
	}
}

func newSecret(_ context.Context, o *corev1.Secret) {
	if o.Type == "" {
		o.Type = corev1.SecretTypeOpaque
	}
}

func newVolume(_ context.Context, o *corev1.PersistentVolume) {
	now := metav1.Now()
	o.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &now}
}

func newClaim(_ context.Context, o *corev1.PersistentVolumeClaim) {
	o.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
}

// updateDeployment counts a change of annotations as a change of the
// deployment: they are copied to its ReplicaSets.
func updateDeployment(_ context.Context, o, old *appsv1.Deployment) {
	if fmt.Sprint(o.Annotations) != fmt.Sprint(old.Annotations) && sameContent(o, old) {
		o.Generation = old.Generation + 1
	}
}

func newDaemonSet(_ context.Context, o *appsv1.DaemonSet) {
	if o.Spec.UpdateStrategy.Type == "" {
		o.Spec.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	setTemplateGeneration(o, "1")
}

// updateDaemonSet maintains the deprecated generation of the pod template.
func updateDaemonSet(_ context.Context, o, old *appsv1.DaemonSet) {
	setTemplateGeneration(o, old.Annotations[appsv1.DeprecatedTemplateGeneration])
}

func setTemplateGeneration(o *appsv1.DaemonSet, value string) {
	if value == "" {
		return
	}
	if o.Annotations == nil {
		o.Annotations = map[string]string{}
	}
	o.Annotations[appsv1.DeprecatedTemplateGeneration] = value
}

// newJob generates the selector by which a Job finds its own pods only.
func newJob(_ context.Context, o *batchv1.Job) {
	if o.Spec.ManualSelector != nil && *o.Spec.ManualSelector {
		return
	}
	own := map[string]string{
		batchv1.JobNameLabel: o.Name, "job-name": o.Name,
		batchv1.ControllerUidLabel: string(o.UID), "controller-uid": string(o.UID),
	}
	if o.Spec.Template.Labels == nil {
		o.Spec.Template.Labels = map[string]string{}
	}
	for k, v := range own {
		// A label that the user set stays; validation tells when it conflicts.
		if _, ok := o.Spec.Template.Labels[k]; !ok {
			o.Spec.Template.Labels[k] = v
		}
	}
	if o.Spec.Selector == nil {
		o.Spec.Selector = &metav1.LabelSelector{}
	}
	if o.Spec.Selector.MatchLabels == nil {
		o.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := o.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		o.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(o.UID)
	}
}

// ---- certificate signing requests

func signingRequestFields(o *certificatesv1.CertificateSigningRequest) fields.Set {
	return fields.Set{"spec.signerName": o.Spec.SignerName}
}

// newSigningRequest records who asks; the requester cannot claim to be another.
func newSigningRequest(ctx context.Context, o *certificatesv1.CertificateSigningRequest) {
	o.Spec.Username, o.Spec.UID, o.Spec.Groups, o.Spec.Extra = "", "", nil, nil
	if u, ok := genericapirequest.UserFrom(ctx); ok {
		o.Spec.Username, o.Spec.UID, o.Spec.Groups = u.GetName(), u.GetUID(), u.GetGroups()
		for k, v := range u.GetExtra() {
			if o.Spec.Extra == nil {
				o.Spec.Extra = map[string]certificatesv1.ExtraValue{}
			}
			o.Spec.Extra[k] = v
		}
	}
}

// updateSigningRequest keeps everything but labels and annotations.
func updateSigningRequest(_ context.Context, o, old *certificatesv1.CertificateSigningRequest) {
	o.Spec, o.Status = old.Spec, old.Status
}

// signingRequestStatus keeps approval apart from the certificate.
func signingRequestStatus(_ context.Context, o, old *certificatesv1.CertificateSigningRequest) {
	kept := verdicts(old)
	for _, c := range o.Status.Conditions {
		if c.Type != certificatesv1.CertificateApproved && c.Type != certificatesv1.CertificateDenied {
			kept = append(kept, c)
		}
	}
	o.Status.Conditions = stamp(kept, old.Status.Conditions)
}

func verdicts(o *certificatesv1.CertificateSigningRequest) []certificatesv1.CertificateSigningRequestCondition {
	var out []certificatesv1.CertificateSigningRequestCondition
	for _, c := range o.Status.Conditions {
		if c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied {
			out = append(out, c)
		}
	}
	return out
}

// stamp sets the times that the author of a condition left out.
func stamp(have, was []certificatesv1.CertificateSigningRequestCondition) []certificatesv1.CertificateSigningRequestCondition {
	now := metav1.Now()
	for i := range have {
		if have[i].LastUpdateTime.IsZero() {
			have[i].LastUpdateTime = now
		}
		if !have[i].LastTransitionTime.IsZero() {
			continue
		}
		have[i].LastTransitionTime = now
		for _, c := range was {
			if c.Type == have[i].Type && c.Status == have[i].Status && !c.LastTransitionTime.IsZero() {
				have[i].LastTransitionTime = c.LastTransitionTime
			}
		}
	}
	return have
}

func signingRequestParts(i *installer, store *genericregistry.Store, parts map[string]rest.Storage) {
	approval := *store
	s := i.strategyOf(store).forPart("approval", nil)
	s.does.update = onChange(func(_ context.Context, o, old *certificatesv1.CertificateSigningRequest) {
		said := o.Status.Conditions
		o.Spec, o.Status = old.Spec, *old.Status.DeepCopy()
		o.Status.Conditions = stamp(said, old.Status.Conditions)
	})
	approval.UpdateStrategy, approval.ResetFieldsStrategy = approvalStrategy{s}, s
	parts["certificatesigningrequests/approval"] = &partStore{store: &approval}
}

// approvalStrategy does not copy status from the old object before it looks.
type approvalStrategy struct{ strategy }

// PrepareForUpdate takes only the conditions from the client.
func (a approvalStrategy) PrepareForUpdate(ctx context.Context, o, old runtime.Object) {
	a.does.update(ctx, o, old)
}
