package controller

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rolloutStatus counts the pods of all sets and judges availability.
func rolloutStatus(now time.Time, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet, conditions []appsv1.DeploymentCondition) appsv1.DeploymentStatus {
	status := appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, CollisionCount: d.Status.CollisionCount, TerminatingReplicas: d.Status.TerminatingReplicas,
		Conditions: slices.Clone(conditions),
	}
	var failure *appsv1.ReplicaSetCondition
	for _, set := range sets {
		status.Replicas += set.Status.Replicas
		status.ReadyReplicas += set.Status.ReadyReplicas
		status.AvailableReplicas += set.Status.AvailableReplicas
		isCurrent := current != nil && set.Name == current.Name
		if isCurrent {
			status.UpdatedReplicas = set.Status.Replicas
		}
		for i := range set.Status.Conditions {
			if c := &set.Status.Conditions[i]; c.Type == appsv1.ReplicaSetReplicaFailure && (failure == nil || isCurrent) {
				failure = c
			}
		}
	}
	status.UnavailableReplicas = max(0, specSum(sets)-status.AvailableReplicas)
	if now.IsZero() { // only the counts are asked for
		return status
	}
	_, unavailable := surgeAndUnavailable(d)
	if status.AvailableReplicas >= replicasOr1(d.Spec.Replicas)-unavailable {
		status.Conditions = setCondition(status.Conditions, condition(now, appsv1.DeploymentAvailable, corev1.ConditionTrue,
			"MinimumReplicasAvailable", "Deployment has minimum availability."))
	} else {
		status.Conditions = setCondition(status.Conditions, condition(now, appsv1.DeploymentAvailable, corev1.ConditionFalse,
			"MinimumReplicasUnavailable", "Deployment does not have minimum availability."))
	}
	if failure != nil {
		status.Conditions = setCondition(status.Conditions, condition(now, appsv1.DeploymentReplicaFailure, failure.Status, failure.Reason, failure.Message))
	} else {
		status.Conditions = dropCondition(status.Conditions, appsv1.DeploymentReplicaFailure)
	}
	return status
}

// progress writes the status of a running rollout, judging its deadline.
func (p *rolloutPlan) progress(now time.Time, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) {
	if current == nil && p.Create != nil {
		current = p.Create
	}
	before := p.Status
	status := rolloutStatus(now, d, sets, current, before.Conditions)
	if p.createdCond { // the set was made just now: its progress starts here
		p.Status = status
		p.Again = deadline(d)
		return
	}
	have := findCondition(status.Conditions, appsv1.DeploymentProgressing)
	switch {
	case d.Spec.ProgressDeadlineSeconds == nil:
		status.Conditions = dropCondition(status.Conditions, appsv1.DeploymentProgressing)
	case have != nil && have.Reason == "NewReplicaSetAvailable" && status.Replicas == status.UpdatedReplicas && current != nil && p.Create == nil:
		// complete before: losing a pod later is no rollout
	case complete(d, status) && current != nil:
		status.Conditions = setCondition(status.Conditions, condition(now, appsv1.DeploymentProgressing, corev1.ConditionTrue,
			"NewReplicaSetAvailable", fmt.Sprintf("ReplicaSet %q has successfully progressed.", current.Name)))
	case moved(before, status):
		c := condition(now, appsv1.DeploymentProgressing, corev1.ConditionTrue, "ReplicaSetUpdated", progressMessage(d, current, "is progressing."))
		if have != nil && have.Status == corev1.ConditionTrue {
			c.LastTransitionTime = have.LastTransitionTime
		}
		status.Conditions = append(dropCondition(status.Conditions, appsv1.DeploymentProgressing), c)
	case have != nil && have.Reason != "ProgressDeadlineExceeded" && have.Reason != "NewReplicaSetAvailable":
		if left := have.LastUpdateTime.Add(deadline(d)).Sub(now); left > 0 {
			p.Again = left + time.Second
		} else {
			status.Conditions = setCondition(status.Conditions, condition(now, appsv1.DeploymentProgressing, corev1.ConditionFalse,
				"ProgressDeadlineExceeded", progressMessage(d, current, "has timed out progressing.")))
		}
	}
	if c := findCondition(status.Conditions, appsv1.DeploymentProgressing); p.Again == 0 && c != nil && c.Reason != "NewReplicaSetAvailable" && c.Reason != "ProgressDeadlineExceeded" {
		p.Again = max(time.Second, c.LastUpdateTime.Add(deadline(d)).Sub(now)+time.Second)
	}
	p.Status = status
}

func deadline(d *appsv1.Deployment) time.Duration {
	if d.Spec.ProgressDeadlineSeconds == nil {
		return 0
	}
	return time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second
}

func progressMessage(d *appsv1.Deployment, current *appsv1.ReplicaSet, end string) string {
	if current == nil {
		return fmt.Sprintf("Deployment %q %s", d.Name, end)
	}
	return fmt.Sprintf("ReplicaSet %q %s", current.Name, end)
}

func complete(d *appsv1.Deployment, status appsv1.DeploymentStatus) bool {
	want := replicasOr1(d.Spec.Replicas)
	return status.UpdatedReplicas == want && status.Replicas == want && status.AvailableReplicas == want && status.ObservedGeneration >= d.Generation
}

func moved(before, after appsv1.DeploymentStatus) bool {
	return after.UpdatedReplicas > before.UpdatedReplicas ||
		after.Replicas-after.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		after.ReadyReplicas > before.ReadyReplicas || after.AvailableReplicas > before.AvailableReplicas
}

// pauseConditions tells a pause apart from a rollout that got stuck.
func pauseConditions(now time.Time, d *appsv1.Deployment, conditions []appsv1.DeploymentCondition) []appsv1.DeploymentCondition {
	have := findCondition(conditions, appsv1.DeploymentProgressing)
	if d.Spec.ProgressDeadlineSeconds == nil || (have != nil && have.Reason == "ProgressDeadlineExceeded") {
		return conditions
	}
	paused := have != nil && have.Reason == "DeploymentPaused"
	switch {
	case d.Spec.Paused && !paused:
		return setCondition(conditions, condition(now, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused"))
	case !d.Spec.Paused && paused:
		return setCondition(conditions, condition(now, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed"))
	}
	return conditions
}

func condition(now time.Time, kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	stamp := metav1.NewTime(now)
	return appsv1.DeploymentCondition{Type: kind, Status: status, Reason: reason, Message: message, LastUpdateTime: stamp, LastTransitionTime: stamp}
}

func findCondition(conditions []appsv1.DeploymentCondition, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

// setCondition replaces a condition of the same type, unless status and reason are the same.
func setCondition(conditions []appsv1.DeploymentCondition, c appsv1.DeploymentCondition) []appsv1.DeploymentCondition {
	if have := findCondition(conditions, c.Type); have != nil {
		if have.Status == c.Status && have.Reason == c.Reason {
			return conditions
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
	}
	return append(dropCondition(conditions, c.Type), c)
}

func dropCondition(conditions []appsv1.DeploymentCondition, kind appsv1.DeploymentConditionType) []appsv1.DeploymentCondition {
	return slices.DeleteFunc(slices.Clone(conditions), func(c appsv1.DeploymentCondition) bool { return c.Type == kind })
}
