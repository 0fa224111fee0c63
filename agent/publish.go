package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"perch/agent/pod"
)

const verbStatus pod.Verb = "send status"

// publish sends the status if the API does not have it, one patch at a time:
// what changes meanwhile goes with the next one. It says whether the API has it.
func (w *worker) publish(ctx context.Context, want *corev1.Pod, status corev1.PodStatus, now time.Time) bool {
	if w.removed {
		return true
	}
	if !w.told {
		return false // what the API has now is not known
	}
	have := w.want.Status
	if w.sent != nil {
		have = *w.sent
	}
	have.Conditions, status.Conditions = ownConditions(have), ownConditions(status)
	if equality.Semantic.DeepEqual(have, status) {
		return true
	}
	if _, busy := w.busy[keyStatus]; busy {
		return false
	}
	if f, failed := w.failures[keyStatus]; failed && f.Retry.After(now) {
		return false
	}
	fresh := *want
	fresh.Status = status
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	w.seq++
	seq := w.seq
	w.busy[keyStatus] = running{Operation: pod.Operation{Verb: verbStatus}, cancel: cancel, seq: seq}
	w.ops.Go(func() {
		defer cancel()
		start := time.Now()
		err := w.agent.patchStatus(ctx, have, &fresh)
		w.agent.metrics.step(string(verbStatus), time.Since(start), err)
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			// Gone, or replaced by a pod of the same name: nobody waits for it.
			w.tell(func(in *inbox) { in.removed = in.removed || w.agent.listed.Load() })
		}
		o := outcome{step: pod.Step{Verb: verbStatus, Key: keyStatus}, seq: seq, err: err, status: &status}
		select {
		case w.done <- o:
		case <-w.quit:
		}
	})
	return false
}

// patchStatus writes what is new in a status.
func (a *Agent) patchStatus(ctx context.Context, old corev1.PodStatus, fresh *corev1.Pod) error {
	was, err := json.Marshal(corev1.Pod{Status: old})
	if err != nil {
		return fmt.Errorf("encode status of pod: %w", err)
	}
	now, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: fresh.UID}, Status: fresh.Status})
	if err != nil {
		return fmt.Errorf("encode status of pod: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(was, now, corev1.Pod{})
	if err != nil {
		return fmt.Errorf("compare statuses of pod: %w", err)
	}
	_, err = a.parts.API.CoreV1().Pods(fresh.Namespace).Patch(ctx, fresh.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// ownConditions leaves out the conditions that others write.
func ownConditions(s corev1.PodStatus) []corev1.PodCondition {
	var out []corev1.PodCondition
	for _, c := range s.Conditions {
		if ownCondition(c.Type) {
			out = append(out, c)
		}
	}
	return out
}

// ownCondition says whether the agent alone writes a condition.
func ownCondition(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodScheduled, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodReadyToStartContainers:
		return true
	}
	return false
}

func mergeCondition(s *corev1.PodStatus, c corev1.PodCondition) {
	for i := range s.Conditions {
		if s.Conditions[i].Type == c.Type {
			s.Conditions[i] = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}
