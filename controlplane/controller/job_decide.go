package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	jobFirstBackoff = 10 * time.Second
	jobLastBackoff  = 10 * time.Minute
	noIndex         = -1
)

// jobPlan is the next step of a Job.
type jobPlan struct {
	Create  []int // completion indexes; noIndex for jobs without them
	Delete  []*corev1.Pod
	Expired bool // the Job outlived ttlSecondsAfterFinished
	Status  batchv1.JobStatus
	Events  []happening
	Again   time.Duration
}

// decideJob counts a Job's pods and names the next step. Pods carry no tracking
// finalizer: an ended pod that somebody deletes is remembered by the counts in the
// status (which never go down), so deleting ended pods of a running Job without
// indexes can make it run one pod more than asked for, never fewer.
func decideJob(now time.Time, job *batchv1.Job, pods []*corev1.Pod) jobPlan {
	plan := jobPlan{Status: *job.Status.DeepCopy()}
	if end := jobCondition(&job.Status, batchv1.JobComplete, batchv1.JobFailed); end != nil {
		plan.expire(now, job, end)
		return plan
	}
	if job.DeletionTimestamp != nil {
		return plan
	}
	active, leaving := plan.count(job, pods)
	if job.Spec.Suspend != nil && *job.Spec.Suspend && jobCondition(&plan.Status, batchv1.JobFailureTarget) == nil {
		plan.suspend(now, active)
		return plan
	}
	if plan.Status.StartTime == nil {
		stamp := metav1.NewTime(now)
		plan.Status.StartTime = &stamp
		if have := jobCondition(&plan.Status, batchv1.JobSuspended); have != nil {
			plan.set(now, batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed")
		}
	}
	reason, message := jobFailed(now, job, plan.Status, pods)
	if reason != "" && !jobSucceeded(job, plan.Status, len(active)) && jobCondition(&plan.Status, batchv1.JobFailureTarget) == nil {
		plan.set(now, batchv1.JobFailureTarget, corev1.ConditionTrue, reason, message)
	}
	if plan.finish(now, job, active, leaving) {
		return plan
	}
	plan.balance(now, job, active, pods)
	if limit := job.Spec.ActiveDeadlineSeconds; limit != nil {
		left := plan.Status.StartTime.Add(time.Duration(*limit) * time.Second).Sub(now)
		if plan.Again == 0 || left < plan.Again {
			plan.Again = max(left, time.Second)
		}
	}
	return plan
}

// count fills the numbers of the status and returns the pods that run and those that leave.
func (p *jobPlan) count(job *batchv1.Job, pods []*corev1.Pod) (active []*corev1.Pod, leaving int) {
	var succeeded, failed, ready int32
	done := parseIndexes(p.Status.CompletedIndexes)
	for _, pod := range pods {
		switch {
		case pod.Status.Phase == corev1.PodSucceeded:
			succeeded++
			if i := indexOf(pod); i != noIndex && job.Spec.Completions != nil && i < int(*job.Spec.Completions) {
				done[i] = true
			}
		case pod.Status.Phase == corev1.PodFailed:
			failed++
		case pod.DeletionTimestamp != nil:
			leaving++
		default:
			active = append(active, pod)
			if podReady(pod) {
				ready++
			}
		}
	}
	p.Status.Active, p.Status.Ready = int32(len(active)), &ready
	p.Status.Failed = max(p.Status.Failed, failed)
	p.Status.Succeeded = max(p.Status.Succeeded, succeeded)
	if isIndexed(job) {
		p.Status.Succeeded, p.Status.CompletedIndexes = int32(len(done)), formatIndexes(done)
	}
	leave := int32(leaving)
	p.Status.Terminating = &leave
	return active, leaving
}

// finish ends what still runs once the outcome is known, then says the outcome.
func (p *jobPlan) finish(now time.Time, job *batchv1.Job, active []*corev1.Pod, leaving int) bool {
	failing := jobCondition(&p.Status, batchv1.JobFailureTarget)
	if failing == nil && !jobSucceeded(job, p.Status, len(active)) {
		return false
	}
	if len(active) > 0 {
		p.Delete = active
		return true
	}
	if leaving > 0 {
		return true
	}
	p.Status.Ready = new(int32)
	if failing != nil {
		p.set(now, batchv1.JobFailed, corev1.ConditionTrue, failing.Reason, failing.Message)
		p.Events = append(p.Events, happening{corev1.EventTypeWarning, failing.Reason, failing.Message})
		return true
	}
	stamp := metav1.NewTime(now)
	p.Status.CompletionTime = &stamp
	p.set(now, batchv1.JobComplete, corev1.ConditionTrue, "CompletionsReached", "Reached expected number of succeeded pods")
	p.Events = append(p.Events, happening{corev1.EventTypeNormal, "Completed", "Job completed"})
	return true
}

// balance makes or ends pods until as many run as may.
func (p *jobPlan) balance(now time.Time, job *batchv1.Job, active, pods []*corev1.Pod) {
	parallel := int(replicasOr1(job.Spec.Parallelism))
	want := parallel
	if job.Spec.Completions != nil {
		want = min(parallel, max(0, int(*job.Spec.Completions)-int(p.Status.Succeeded)))
	} else if p.Status.Succeeded > 0 {
		want = min(parallel, len(active)) // one success ends a work queue: nothing new starts
	}
	if excess := len(active) - want; excess > 0 {
		p.Delete = expendable(now, active, nil)[:excess]
		return
	}
	missing := min(want-len(active), createBurst)
	if missing == 0 {
		return
	}
	if wait := jobBackoff(now, pods); wait > 0 {
		p.Again = wait
		return
	}
	if !isIndexed(job) {
		for range missing {
			p.Create = append(p.Create, noIndex)
		}
		return
	}
	taken := parseIndexes(p.Status.CompletedIndexes)
	for _, pod := range active {
		taken[indexOf(pod)] = true
	}
	for i := 0; i < int(*job.Spec.Completions) && len(p.Create) < missing; i++ {
		if !taken[i] {
			p.Create = append(p.Create, i)
		}
	}
}

func (p *jobPlan) suspend(now time.Time, active []*corev1.Pod) {
	p.Delete = active
	p.Status.StartTime = nil
	if have := jobCondition(&p.Status, batchv1.JobSuspended); have == nil {
		p.set(now, batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended")
		p.Events = append(p.Events, happening{corev1.EventTypeNormal, "Suspended", "Job suspended"})
	}
}

func (p *jobPlan) expire(now time.Time, job *batchv1.Job, end *batchv1.JobCondition) {
	if job.Spec.TTLSecondsAfterFinished == nil || job.DeletionTimestamp != nil {
		return
	}
	left := end.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second).Sub(now)
	p.Expired, p.Again = left <= 0, max(left, 0)
}

func jobFailed(now time.Time, job *batchv1.Job, status batchv1.JobStatus, pods []*corev1.Pod) (reason, message string) {
	if limit := job.Spec.ActiveDeadlineSeconds; limit != nil && now.Sub(status.StartTime.Time) >= time.Duration(*limit)*time.Second {
		return batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"
	}
	limit := int32(6)
	if job.Spec.BackoffLimit != nil {
		limit = *job.Spec.BackoffLimit
	}
	failures := status.Failed
	if job.Spec.Template.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
		for _, pod := range pods {
			for _, c := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
				failures += c.RestartCount
			}
		}
	}
	if failures > limit {
		return batchv1.JobReasonBackoffLimitExceeded, fmt.Sprintf("Job has reached the specified backoff limit (%d failures, limit %d)", failures, limit)
	}
	return "", ""
}

func jobSucceeded(job *batchv1.Job, status batchv1.JobStatus, active int) bool {
	if job.Spec.Completions == nil {
		return status.Succeeded > 0 && active == 0
	}
	return status.Succeeded >= *job.Spec.Completions
}

// jobBackoff is how long to wait after failures: 10 s, doubled for each further
// failure since the last success, ten minutes at most.
func jobBackoff(now time.Time, pods []*corev1.Pod) time.Duration {
	var lastSuccess, lastFailure time.Time
	for _, pod := range pods {
		if pod.Status.Phase == corev1.PodSucceeded && endOf(pod).After(lastSuccess) {
			lastSuccess = endOf(pod)
		}
	}
	failures := 0
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodFailed || !endOf(pod).After(lastSuccess) {
			continue
		}
		failures++
		if endOf(pod).After(lastFailure) {
			lastFailure = endOf(pod)
		}
	}
	if failures == 0 {
		return 0
	}
	wait := min(jobLastBackoff, jobFirstBackoff<<min(failures-1, 10))
	return max(0, lastFailure.Add(wait).Sub(now))
}

func endOf(pod *corev1.Pod) time.Time {
	end := pod.CreationTimestamp.Time
	for _, c := range pod.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(end) {
			end = t.FinishedAt.Time
		}
	}
	return end
}

func isIndexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion && job.Spec.Completions != nil
}

func indexOf(pod *corev1.Pod) int {
	i, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || i < 0 {
		return noIndex
	}
	return i
}

// parseIndexes reads "1,3-5"; what cannot be read counts as not done.
func parseIndexes(text string) map[int]bool {
	out := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			continue
		}
		to := from
		if ranged {
			if to, err = strconv.Atoi(last); err != nil || to-from > 1_000_000 {
				continue
			}
		}
		for i := from; i <= to; i++ {
			out[i] = true
		}
	}
	return out
}

func formatIndexes(done map[int]bool) string {
	var all []int
	for i := range done {
		all = append(all, i)
	}
	slices.SortFunc(all, cmp.Compare[int])
	var parts []string
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1] == all[j]+1 {
			j++
		}
		switch j - i {
		case 0:
			parts = append(parts, strconv.Itoa(all[i]))
		case 1:
			parts = append(parts, strconv.Itoa(all[i]), strconv.Itoa(all[j]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", all[i], all[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// jobCondition returns the first true condition of the given types.
func jobCondition(status *batchv1.JobStatus, kinds ...batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range status.Conditions {
		if c := &status.Conditions[i]; slices.Contains(kinds, c.Type) && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

func (p *jobPlan) set(now time.Time, kind batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) {
	stamp := metav1.NewTime(now)
	fresh := batchv1.JobCondition{Type: kind, Status: status, Reason: reason, Message: message, LastProbeTime: stamp, LastTransitionTime: stamp}
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			p.Status.Conditions[i] = fresh
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, fresh)
}
