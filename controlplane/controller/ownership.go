package controller

import "perch/controlplane/controller/reconcile"

// loops lists every controller; a new kind is one line here.
func loops(d deps) []*reconcile.Controller {
	return []*reconcile.Controller{
		newDeployment(d),
		newReplicaSet(d),
		newReplicationController(d),
		newJob(d),
		newEndpoint(d),
		newNodeCIDR(d),
		newNamespace(d),
		newNamespaceDefault(d),
		newGarbage(d),
		newLeftoverPod(d),
		newDisruption(d),
	}
}

// Ownership is one row of the table of who reads and writes what.
type Ownership struct {
	Controller string
	Reads      []string
	Writes     []reconcile.Part
}

// Table tells which controller reads and writes which parts of objects.
func (s *Set) Table() []Ownership {
	var out []Ownership
	for _, loop := range s.loops {
		out = append(out, Ownership{loop.Name, loop.Reads, loop.Writes})
	}
	return out
}

// ActedOn lists the kinds, as group/Kind, whose objects change something when they
// are written: by these controllers, the scheduler, the autoscaler, nodelife, the
// API server itself or the agents. A write to another built-in kind is stored and
// deserves a warning.
func ActedOn() []string {
	return []string{
		"Binding", "ConfigMap", "Endpoints", "Event", "LimitRange", "Namespace", "Node", "Pod", "ReplicationController",
		"ResourceQuota", "Secret", "Service", "ServiceAccount",
		"admissionregistration.k8s.io/MutatingWebhookConfiguration", "admissionregistration.k8s.io/ValidatingAdmissionPolicy",
		"admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding", "admissionregistration.k8s.io/ValidatingWebhookConfiguration",
		"apiextensions.k8s.io/CustomResourceDefinition",
		"apps/Deployment", "apps/ReplicaSet",
		"autoscaling/HorizontalPodAutoscaler",
		"batch/Job",
		"certificates.k8s.io/CertificateSigningRequest",
		"coordination.k8s.io/Lease",
		"discovery.k8s.io/EndpointSlice",
		"events.k8s.io/Event",
		"policy/PodDisruptionBudget",
		"rbac.authorization.k8s.io/ClusterRole", "rbac.authorization.k8s.io/ClusterRoleBinding",
		"rbac.authorization.k8s.io/Role", "rbac.authorization.k8s.io/RoleBinding",
		"scheduling.k8s.io/PriorityClass",
	}
}
