package controller

import (
	"context"
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	batchlisters "k8s.io/client-go/listers/batch/v1"

	"perch/controlplane/controller/reconcile"
)

// jobs run pods to their end. Not acted on yet: podFailurePolicy, successPolicy,
// backoffLimitPerIndex, podReplacementPolicy.
type jobs struct {
	podKeeper
	jobs batchlisters.JobLister
}

func newJob(d deps) *reconcile.Controller {
	informer, pods := d.informers.Batch().V1().Jobs(), d.informers.Core().V1().Pods()
	c := &jobs{d.keeper("job-controller", batchv1.SchemeGroupVersion.WithKind("Job"), pods.Lister()), informer.Lister()}
	return &reconcile.Controller{
		Name: "job", Reads: []string{"batch/Job", "Pod"}, Workers: 2,
		Writes: []reconcile.Part{
			{Kind: "Pod", Fields: "objects", Of: "Job"}, {Kind: "Pod", Fields: "metadata.ownerReferences", Of: "Job"},
			{Kind: "batch/Job", Fields: "status"}, {Kind: "batch/Job", Fields: "objects", Of: "expired Job"},
		},
		Sources:   []reconcile.Source{{Informer: informer.Informer()}, c.source(pods.Informer(), func(*corev1.Pod) []reconcile.Key { return nil })},
		Reconcile: c.reconcile,
	}
}

func (c *jobs) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	job, err := c.jobs.Jobs(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.expect.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read job %s: %w", key, err)
	}
	selector, err := jobSelector(job)
	if err != nil {
		return 0, nil // validation refuses such selectors; nothing can be found with them
	}
	met := c.expect.Met(time.Now(), key)
	mine, err := c.claim(ctx, job, selector, func() (metav1.Object, error) {
		return c.kube.BatchV1().Jobs(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	})
	if err != nil {
		return 0, err
	}
	if !met {
		return 0, nil // the watch wakes us when it has shown what was done
	}
	plan := decideJob(time.Now(), job, mine)
	if plan.Expired {
		background := metav1.DeletePropagationBackground
		err := c.kube.BatchV1().Jobs(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: metav1.NewUIDPreconditions(string(job.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("delete expired job %s: %w", key, err)
		}
		return 0, nil
	}
	if !apiequality.Semantic.DeepEqual(job.Status, plan.Status) {
		fresh := job.DeepCopy()
		fresh.Status = plan.Status
		if _, err := c.kube.BatchV1().Jobs(key.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{}); err != nil {
			return 0, fmt.Errorf("update status of job %s: %w", key, err)
		}
	}
	for _, happened := range plan.Events {
		c.say(job, happened.Type, happened.Reason, happened.Message)
	}
	if len(plan.Delete) > 0 {
		return plan.Again, c.delete(ctx, key, job, plan.Delete)
	}
	if len(plan.Create) > 0 {
		var pods []*corev1.Pod
		for _, index := range plan.Create {
			pods = append(pods, jobPod(job, index))
		}
		_, err = c.create(ctx, key, job, pods)
	}
	return plan.Again, err
}

func jobSelector(job *batchv1.Job) (labels.Selector, error) {
	if job.Spec.Selector == nil {
		return labels.SelectorFromSet(labels.Set{batchv1.ControllerUidLabel: string(job.UID)}), nil
	}
	return metav1.LabelSelectorAsSelector(job.Spec.Selector)
}

// jobPod makes a pod of a Job; one with an index learns it by annotation, label,
// host name and the variable JOB_COMPLETION_INDEX.
func jobPod(job *batchv1.Job, index int) *corev1.Pod {
	prefix := job.Name
	if index != noIndex {
		prefix += "-" + strconv.Itoa(index)
	}
	pod := podOf(&job.Spec.Template, job.Namespace, prefix)
	if job.Spec.Selector == nil {
		pod.Labels = with(pod.Labels, batchv1.ControllerUidLabel, string(job.UID))
		pod.Labels = with(pod.Labels, batchv1.JobNameLabel, job.Name)
	}
	if index == noIndex {
		return pod
	}
	text := strconv.Itoa(index)
	pod.Annotations = with(pod.Annotations, batchv1.JobCompletionIndexAnnotation, text)
	pod.Labels = with(pod.Labels, batchv1.JobCompletionIndexAnnotation, text)
	pod.Spec.Hostname = job.Name + "-" + text
	variable := corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", Value: text}
	for i := range pod.Spec.InitContainers {
		pod.Spec.InitContainers[i].Env = append(pod.Spec.InitContainers[i].Env, variable)
	}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Env = append(pod.Spec.Containers[i].Env, variable)
	}
	return pod
}
