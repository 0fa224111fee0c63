package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func aDeployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: aPod(name).Spec},
		},
	}
}

func aPod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx:1"}}}}
}

func TestGenerationCountsChangesOfSpecOnly(t *testing.T) {
	ctx, api := t.Context(), shared.client.AppsV1().Deployments(namespace(t))
	d, err := api.Create(ctx, aDeployment("a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Generation != 1 || *d.Spec.Replicas != 1 || d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		t.Errorf("generation %d, replicas %d, strategy %q", d.Generation, *d.Spec.Replicas, d.Spec.Strategy.Type)
	}
	d.Labels = map[string]string{"x": "y"}
	d.Status.Replicas = 7 // belongs to /status and is ignored here
	if d, err = api.Update(ctx, d, metav1.UpdateOptions{}); err != nil || d.Generation != 1 || d.Status.Replicas != 0 {
		t.Fatalf("after label: generation %d, status %d, %v", d.Generation, d.Status.Replicas, err)
	}
	d.Spec.Template.Spec.Containers[0].Image = "nginx:2"
	if d, err = api.Update(ctx, d, metav1.UpdateOptions{}); err != nil || d.Generation != 2 {
		t.Fatalf("after image: generation %d, %v", d.Generation, err)
	}
	d.Status.ObservedGeneration, d.Status.Replicas = 2, 1
	d.Spec.Template.Spec.Containers[0].Image = "nginx:3" // does not belong to /status
	if d, err = api.UpdateStatus(ctx, d, metav1.UpdateOptions{}); err != nil || d.Generation != 2 || d.Status.Replicas != 1 || d.Spec.Template.Spec.Containers[0].Image != "nginx:2" {
		t.Fatalf("after status: generation %d, status %+v, %v", d.Generation, d.Status, err)
	}
}

func TestBadManifestsGetFieldErrors(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	p := aPod("p")
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 99999}}
	p.Spec.Containers[0].Name = "Not_A_Label"
	_, err := shared.client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.containers[0].ports[0].containerPort") || !strings.Contains(err.Error(), "spec.containers[0].name") {
		t.Errorf("have %v", err)
	}
	d, err := shared.client.AppsV1().Deployments(ns).Create(ctx, aDeployment("d"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Spec.Selector.MatchLabels["new"], d.Spec.Template.Labels["new"] = "x", "x"
	if _, err := shared.client.AppsV1().Deployments(ns).Update(ctx, d, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "field is immutable") {
		t.Errorf("have %v", err)
	}
	yes := true
	cm, err := shared.client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Immutable: &yes, Data: map[string]string{"a": "1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["a"] = "2"
	if _, err := shared.client.CoreV1().ConfigMaps(ns).Update(ctx, cm, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("immutable config map changed: %v", err)
	}
	err = shared.client.CoreV1().RESTClient().Post().Namespace(ns).Resource("configmaps").Param("fieldValidation", "Strict").
		Body([]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"},"dada":{}}`)).SetHeader("Content-Type", "application/json").Do(ctx).Error()
	if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `unknown field "dada"`) {
		t.Errorf("have %v", err)
	}
}

func TestAllPatchTypes(t *testing.T) {
	ctx, api := t.Context(), shared.client.AppsV1().Deployments(namespace(t))
	if _, err := api.Create(ctx, aDeployment("d"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind types.PatchType
		body string
		want func(*appsv1.Deployment) bool
	}{
		{types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox"}]}}}}`, func(d *appsv1.Deployment) bool { return len(d.Spec.Template.Spec.Containers) == 2 }},
		{types.MergePatchType, `{"metadata":{"labels":{"merged":"yes"}}}`, func(d *appsv1.Deployment) bool { return d.Labels["merged"] == "yes" }},
		{types.JSONPatchType, `[{"op":"replace","path":"/spec/replicas","value":4}]`, func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 4 }},
	} {
		d, err := api.Patch(ctx, "d", c.kind, []byte(c.body), metav1.PatchOptions{})
		if err != nil || !c.want(d) {
			t.Errorf("%s: %v", c.kind, err)
		}
	}
}

func TestServerSideApplyTellsConflicts(t *testing.T) {
	ctx, api := t.Context(), shared.client.AppsV1().Deployments(namespace(t))
	apply := func(manager string, replicas int, force bool) error {
		d := aDeployment("d")
		d.APIVersion, d.Kind = "apps/v1", "Deployment"
		n := int32(replicas)
		d.Spec.Replicas = &n
		body, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		_, err = api.Patch(ctx, "d", types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: manager, Force: &force})
		return err
	}
	if err := apply("one", 2, false); err != nil {
		t.Fatal(err)
	}
	if err := apply("two", 3, false); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), ".spec.replicas") {
		t.Errorf("have %v", err)
	}
	if err := apply("two", 3, true); err != nil {
		t.Error(err)
	}
	scale, err := api.GetScale(ctx, "d", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scale.Spec.Replicas = 5
	if scale, err = api.UpdateScale(ctx, "d", scale, metav1.UpdateOptions{}); err != nil || scale.Spec.Replicas != 5 || scale.Status.Selector != "app=d" {
		t.Fatalf("scale %+v, %v", scale, err)
	}
	if err := apply("two", 3, false); !apierrors.IsConflict(err) {
		t.Errorf("scale did not take ownership of replicas: %v", err)
	}
	if _, err := api.UpdateScale(ctx, "d", &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: scale.Namespace}, Spec: autoscalingv1.ScaleSpec{Replicas: -1}}, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("have %v", err)
	}
}

func TestWatchSeesChangesAndBookmarks(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ns := namespace(t)
	api := shared.client.CoreV1().ConfigMaps(ns)
	w, err := api.Watch(ctx, metav1.ListOptions{AllowWatchBookmarks: true, SendInitialEvents: new(bool), ResourceVersionMatch: ""})
	if err == nil {
		w.Stop()
	}
	yes := true
	w, err = api.Watch(ctx, metav1.ListOptions{AllowWatchBookmarks: true, SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Bookmark {
		t.Fatalf("have %s, want the bookmark that ends the initial list", e.Type)
	}
	if _, err := api.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := api.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Deleted} {
		if e := <-w.ResultChan(); e.Type != want {
			t.Errorf("have %s, want %s", e.Type, want)
		}
	}
}

func TestListsAreCutIntoPages(t *testing.T) {
	ctx, api := t.Context(), shared.client.CoreV1().ConfigMaps(namespace(t))
	for i := range 7 {
		if _, err := api.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i), Labels: map[string]string{"odd": fmt.Sprint(i%2 == 1)}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	next := ""
	for {
		l, err := api.List(ctx, metav1.ListOptions{Limit: 3, Continue: next})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range l.Items {
			seen = append(seen, c.Name)
		}
		if next = l.Continue; next == "" {
			break
		}
	}
	if len(seen) != 7 || !slices.IsSorted(seen) {
		t.Errorf("have %v", seen)
	}
	if l, err := api.List(ctx, metav1.ListOptions{LabelSelector: "odd=true"}); err != nil || len(l.Items) != 3 {
		t.Errorf("label selector: %v", err)
	}
	if l, err := api.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=c4"}); err != nil || len(l.Items) != 1 {
		t.Errorf("field selector: %v", err)
	}
}

func TestDryRunLeavesNothing(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	s, err := shared.client.CoreV1().Services(ns).Create(ctx, aService("s"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || s.Spec.ClusterIP == "" {
		t.Fatalf("have %+v, %v", s, err)
	}
	if _, err := shared.client.CoreV1().Services(ns).Get(ctx, "s", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("have %v", err)
	}
}

func TestKindsWithoutActorWarn(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	shared.warned.take()
	labels := map[string]string{"app": "s"}
	_, err := shared.client.AppsV1().StatefulSets(ns).Create(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: appsv1.StatefulSetSpec{
		ServiceName: "s", Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: aPod("p").Spec},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if have := shared.warned.take(); !slices.Contains(have, "StatefulSet is stored, but no part of perch acts on it yet") {
		t.Errorf("have %q", have)
	}
	if _, err := shared.client.AppsV1().Deployments(ns).Create(ctx, aDeployment("d"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if have := shared.warned.take(); len(have) != 0 {
		t.Errorf("have %q", have)
	}
}

func TestJobsGetTheirOwnSelector(t *testing.T) {
	p := aPod("p")
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	j, err := shared.client.BatchV1().Jobs(namespace(t)).Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{GenerateName: "j-"}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: p.Spec}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != string(j.UID) || j.Spec.Template.Labels[batchv1.JobNameLabel] != j.Name || *j.Spec.BackoffLimit != 6 {
		t.Errorf("have %+v", j.Spec)
	}
}

func TestEventsOfBothGroupsShareStorage(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: ns}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: ns},
		Reason: "Tested", Message: "hello", Type: corev1.EventTypeNormal, Source: corev1.EventSource{Component: "test"},
	}
	if _, err := shared.client.CoreV1().Events(ns).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	other, err := shared.client.EventsV1().Events(ns).Get(ctx, "e", metav1.GetOptions{})
	if err != nil || other.Note != "hello" || other.Regarding.Name != "p" {
		t.Fatalf("have %+v, %v", other, err)
	}
	now := metav1.NowMicro()
	_, err = shared.client.EventsV1().Events(ns).Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "f", Namespace: ns}, EventTime: now, ReportingController: "perch.dev/test", ReportingInstance: "x", Action: "Test",
		Reason: "Tested", Type: "Normal", Note: "second", Regarding: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: ns},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := shared.client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=p,reason=Tested"})
	if err != nil || len(l.Items) != 2 || l.Items[1].Message != "second" {
		t.Errorf("have %d, %v", len(l.Items), err)
	}
}

func TestAutoscalersAreServedInBothVersions(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	cpu := int32(60)
	v1, err := shared.client.AutoscalingV1().HorizontalPodAutoscalers(ns).Create(ctx, &autoscalingv1.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "h"},
		Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
			MaxReplicas: 3, TargetCPUUtilizationPercentage: &cpu,
			ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"},
		},
	}, metav1.CreateOptions{})
	if err != nil || *v1.Spec.TargetCPUUtilizationPercentage != 60 {
		t.Fatalf("have %+v, %v", v1, err)
	}
	v2, err := shared.client.AutoscalingV2().HorizontalPodAutoscalers(ns).Get(ctx, "h", metav1.GetOptions{})
	if err != nil || len(v2.Spec.Metrics) != 1 || *v2.Spec.Metrics[0].Resource.Target.AverageUtilization != 60 {
		t.Fatalf("have %+v, %v", v2, err)
	}
	v2.Status.DesiredReplicas = 2
	if v2, err = shared.client.AutoscalingV2().HorizontalPodAutoscalers(ns).UpdateStatus(ctx, v2, metav1.UpdateOptions{}); err != nil || v2.Status.DesiredReplicas != 2 {
		t.Errorf("have %+v, %v", v2.Status, err)
	}
	if l, err := shared.client.AutoscalingV1().HorizontalPodAutoscalers(ns).List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) != 1 || l.Items[0].Status.DesiredReplicas != 2 {
		t.Errorf("v1 list: %v", err)
	}
}

func TestSecretsAreEncryptedAtRest(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	s, err := shared.client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "plain-text-needle"}}, metav1.CreateOptions{})
	if err != nil || string(s.Data["k"]) != "plain-text-needle" || s.Type != corev1.SecretTypeOpaque {
		t.Fatalf("have %+v, %v", s, err)
	}
	r, err := shared.store.Client().Get(ctx, "/registry/secrets/"+ns+"/s")
	if err != nil || len(r.Kvs) != 1 || strings.Contains(string(r.Kvs[0].Value), "needle") || !strings.HasPrefix(string(r.Kvs[0].Value), "k8s:enc:secretbox:v1:") {
		t.Errorf("stored as %.60q, %v", r.Kvs, err)
	}
	again, err := shared.client.CoreV1().Secrets(ns).Get(ctx, "s", metav1.GetOptions{})
	if err != nil || !equality.Semantic.DeepEqual(again, s) {
		t.Errorf("have %+v, %v", again, err)
	}
}

func TestNamespacesGoInTwoSteps(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	api := shared.client.CoreV1().Namespaces()
	n, err := api.Get(ctx, ns, metav1.GetOptions{})
	if err != nil || n.Status.Phase != corev1.NamespaceActive || n.Labels[corev1.LabelMetadataName] != ns {
		t.Fatalf("have %+v, %v", n, err)
	}
	if err := api.Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err = api.Get(ctx, ns, metav1.GetOptions{}); err != nil || n.Status.Phase != corev1.NamespaceTerminating || n.DeletionTimestamp == nil {
		t.Fatalf("have %+v, %v", n, err)
	}
	if _, err := shared.client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("have %v", err)
	}
	n.Spec.Finalizers = nil
	if _, err := api.Finalize(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Get(ctx, ns, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("have %v", err)
	}
}
