package controller

import (
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/controlplane/controller/reconcile"
)

func sums(edits ...func(*batchv1.Job)) *batchv1.Job {
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sums"}, Spec: batchv1.JobSpec{
		Parallelism: ref(int32(2)), Completions: ref(int32(5)), BackoffLimit: ref(int32(2)),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c"}}}},
	}}
	for _, edit := range edits {
		edit(job)
	}
	return job
}

func ends(phase corev1.PodPhase) func(*corev1.Pod) *corev1.PodStatus {
	return func(*corev1.Pod) *corev1.PodStatus {
		return &corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.Now()}}}}}
	}
}

func jobWorld(t *testing.T, job *batchv1.Job, behave func(*corev1.Pod) *corev1.PodStatus) (*world, func() *batchv1.Job) {
	w := newWorld(t, func(d deps) []*reconcile.Controller { return []*reconcile.Controller{newJob(d)} }, job)
	w.behaves(behave)
	return w, func() *batchv1.Job {
		t.Helper()
		have, err := w.client.BatchV1().Jobs("shop").Get(w.ctx, "sums", metav1.GetOptions{})
		w.ok(err)
		return have
	}
}

func TestAJobRunsToItsCompletionsAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, job := jobWorld(t, sums(func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ref(int32(300)) }), ends(corev1.PodSucceeded))
		<-time.After(time.Minute)
		if s := job().Status; s.Succeeded != 5 || s.Active != 0 || s.CompletionTime == nil || jobCondition(&s, batchv1.JobComplete) == nil || len(w.pods("")) != 5 {
			t.Errorf("%d pods, status %+v", len(w.pods("")), s)
		}
		<-time.After(6 * time.Minute)
		if list, err := w.client.BatchV1().Jobs("shop").List(w.ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
			t.Errorf("an expired job must go: %v %v", list.Items, err)
		}
	})
}

func TestAnIndexedJobRunsEachIndexOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, job := jobWorld(t, sums(func(j *batchv1.Job) { j.Spec.CompletionMode = ref(batchv1.IndexedCompletion) }), ends(corev1.PodSucceeded))
		<-time.After(time.Minute)
		if s := job().Status; s.CompletedIndexes != "0-4" || s.Succeeded != 5 || len(w.pods("")) != 5 {
			t.Errorf("%d pods, status %+v", len(w.pods("")), s)
		}
		if p := w.pods("batch.kubernetes.io/job-completion-index=3"); len(p) != 1 || p[0].Spec.Hostname != "sums-3" || p[0].Spec.Containers[0].Env[0].Value != "3" {
			t.Errorf("pod of index 3: %+v", p)
		}
	})
}

func TestAFailingJobBacksOffAndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, job := jobWorld(t, sums(func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = ref(int32(1)), ref(int32(1)) }), ends(corev1.PodFailed))
		<-time.After(8 * time.Second)
		if n := len(w.pods("")); n != 1 {
			t.Errorf("%d pods within the first back-off", n)
		}
		<-time.After(5 * time.Minute)
		s := job().Status
		if c := jobCondition(&s, batchv1.JobFailed); c == nil || c.Reason != "BackoffLimitExceeded" || s.Failed != 3 || len(w.pods("")) != 3 {
			t.Errorf("%d pods, status %+v", len(w.pods("")), s)
		}
	})
}

func TestAJobBeyondItsDeadlineIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, job := jobWorld(t, sums(func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ref(int64(30)) }), running)
		<-time.After(20 * time.Second)
		if s := job().Status; s.Active != 2 || *s.Ready != 2 {
			t.Errorf("status %+v", s)
		}
		<-time.After(20 * time.Second)
		s := job().Status
		if c := jobCondition(&s, batchv1.JobFailed); c == nil || c.Reason != "DeadlineExceeded" || len(w.pods("")) != 0 {
			t.Errorf("%d pods, status %+v", len(w.pods("")), s)
		}
	})
}

func TestIndexLists(t *testing.T) {
	for _, text := range []string{"", "0", "0,1", "0-4", "1,3-5,7", "0,2,4-6"} {
		if got := formatIndexes(parseIndexes(text)); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func FuzzParseIndexes(f *testing.F) {
	f.Add("1,3-5,7")
	f.Add("-1,x,9-2,,")
	f.Fuzz(func(t *testing.T, text string) {
		once := formatIndexes(parseIndexes(text))
		if twice := formatIndexes(parseIndexes(once)); twice != once && len(once) < 1000 {
			t.Errorf("%q, then %q", once, twice)
		}
	})
}
