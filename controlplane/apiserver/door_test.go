package apiserver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"

	"perch/controlplane/api"
)

func TestNoDoorAnswersWithoutAuthentication(t *testing.T) {
	anonymous := restclient.AnonymousClientConfig(shared.config)
	c, err := restclient.HTTPClientFor(anonymous)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/livez": 200, "/readyz": 200, "/healthz": 200,
		"/": 401, "/api": 401, "/apis": 401, "/version": 401, "/metrics": 401, "/openapi/v2": 401, "/openapi/v3": 401,
		"/debug/pprof/": 401, "/api/v1/pods": 401, "/apis/example.com/v1/x": 401, "/livez/../api/v1/secrets": 401,
	} {
		r, err := c.Get(shared.config.Host + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close() // only the status matters
		if r.StatusCode != want {
			t.Errorf("%s answered %d, want %d", path, r.StatusCode, want)
		}
	}
	nobody := restclient.CopyConfig(shared.config)
	nobody.CertFile = filepath.Join(filepath.Dir(nobody.CertFile), "nobody.crt")
	nobody.KeyFile = filepath.Join(filepath.Dir(nobody.KeyFile), "nobody.key")
	client := kubernetes.NewForConfigOrDie(nobody)
	if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("have %v", err)
	}
}

func TestTheFrontAnswersBeforeAnyoneIsKnown(t *testing.T) {
	c, err := restclient.HTTPClientFor(restclient.AnonymousClientConfig(shared.config))
	if err != nil {
		t.Fatal(err)
	}
	for bearer, want := range map[string]string{"spent": "this was spent", "other": "Unauthorized"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, shared.config.Host+"/api/v1/pods", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // read
		if err != nil || resp.StatusCode != http.StatusUnauthorized || !strings.Contains(string(body), want) {
			t.Errorf("%s: have %s %q %v, want %s", bearer, resp.Status, body, err, want)
		}
	}
}

func TestConnectionsAreThoseOfABoundedListener(t *testing.T) {
	before := shared.accepted.Load()
	c, err := tls.Dial("tcp", strings.TrimPrefix(shared.config.Host, "https://"), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // who answers does not matter here
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if after := shared.accepted.Load(); after <= before {
		t.Errorf("%d connections, then %d", before, after)
	}
}

func TestReviewsAnswerWhoAndWhetherAllowed(t *testing.T) {
	ctx := t.Context()
	me, err := shared.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || me.Status.UserInfo.Username != "admin" {
		t.Errorf("have %+v, %v", me, err)
	}
	what := &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "default"}
	mine, err := shared.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: what}}, metav1.CreateOptions{})
	if err != nil || !mine.Status.Allowed {
		t.Errorf("have %+v, %v", mine, err)
	}
	other, err := shared.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "eve", ResourceAttributes: what}}, metav1.CreateOptions{})
	if err != nil || other.Status.Allowed {
		t.Errorf("have %+v, %v", other, err)
	}
	token, err := shared.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "wrong"}}, metav1.CreateOptions{})
	if err != nil || token.Status.Authenticated {
		t.Errorf("have %+v, %v", token, err)
	}
	if _, err := shared.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{}, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("have %v", err)
	}
}

func TestDiscoveryHasEveryKindOfTheTable(t *testing.T) {
	for _, k := range api.Kinds() {
		l, err := shared.client.Discovery().ServerResourcesForGroupVersion(k.GroupVersion.String())
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, r := range l.APIResources {
			have[r.Name] = true
		}
		if !have[k.Plural] || k.Status && !have[k.Plural+"/status"] || k.Scale && !have[k.Plural+"/scale"] {
			t.Errorf("%s is not complete: %v", k.GVK(), have)
		}
	}
	v, err := shared.client.Discovery().ServerVersion()
	if err != nil || v.Major != "1" || v.Minor != "36" || v.GitVersion != fallbackVersion {
		t.Errorf("have %+v, %v", v, err)
	}
}

func TestEveryKindCanBeListedAndWatched(t *testing.T) {
	for _, k := range api.Kinds() {
		if _, err := shared.dyn.Resource(k.GVR()).List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("list %s: %v", k.GVR(), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w, err := shared.dyn.Resource(k.GVR()).Watch(ctx, metav1.ListOptions{})
		if err != nil {
			t.Errorf("watch %s: %v", k.GVR(), err)
		} else {
			w.Stop()
		}
		cancel()
	}
}

func TestCustomResourcesGoRoundTrip(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	crds := shared.dyn.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	crd := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets.test.perch.dev"},
		"spec":{"group":"test.perch.dev","scope":"Namespaced","names":{"plural":"widgets","singular":"widget","kind":"Widget","listKind":"WidgetList"},
		"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{
			"spec":{"type":"object","description":"what the widget shall be","properties":{"size":{"type":"integer","maximum":10,"default":3}},"x-kubernetes-validations":[{"rule":"self.size != 7"}]},
			"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}`), crd); err != nil {
		t.Fatal(err)
	}
	if _, err := crds.Create(ctx, crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	widgets := shared.dyn.Resource(schema.GroupVersionResource{Group: "test.perch.dev", Version: "v1", Resource: "widgets"}).Namespace(ns)
	widget := func(name string, spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "test.perch.dev/v1", "kind": "Widget", "metadata": map[string]any{"name": name}, "spec": spec}}
	}
	eventually(t, "widgets are served", func() bool {
		_, err := widgets.Create(ctx, widget("a", map[string]any{}), metav1.CreateOptions{})
		return err == nil
	})
	a, err := widgets.Get(ctx, "a", metav1.GetOptions{})
	if size, _, _ := unstructured.NestedInt64(a.Object, "spec", "size"); err != nil || size != 3 {
		t.Errorf("size %d, %v", size, err)
	}
	for _, wrong := range []int64{11, 7} {
		if _, err := widgets.Create(ctx, widget("b", map[string]any{"size": wrong}), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("size %d: %v", wrong, err)
		}
	}
	get := func(path string) string {
		body, err := shared.client.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx)
		if err != nil {
			return err.Error()
		}
		return string(body)
	}
	if !strings.Contains(get("/apis"), `"apiextensions.k8s.io"`) {
		t.Error("old clients do not find the group of the definitions")
	}
	eventually(t, "old clients find the group", func() bool { return strings.Contains(get("/apis"), "test.perch.dev") })
	eventually(t, "the schema can be explained", func() bool {
		return strings.Contains(get("/openapi/v3/apis/test.perch.dev/v1"), "what the widget shall be")
	})
	if err := crds.Delete(ctx, "widgets.test.perch.dev", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the group is gone", func() bool { return !strings.Contains(get("/apis"), "test.perch.dev") })
}

func TestMetricsAndOpenAPIAreServed(t *testing.T) {
	c, err := restclient.HTTPClientFor(shared.config)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/metrics":           "apiserver_request_total",
		"/openapi/v2":        "io.k8s.api.apps.v1.Deployment",
		"/openapi/v3/api/v1": "io.k8s.api.core.v1.Pod",
		"/readyz?verbose":    "[+]etcd ok",
		"/api/v1?as=ignored": "ephemeralcontainers",
		"/apis/autoscaling/": `"preferredVersion":{"groupVersion":"autoscaling/v2"`,
	} {
		r, err := c.Get(shared.config.Host + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close() // read only
		if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(strings.ReplaceAll(string(body), " ", ""), strings.ReplaceAll(want, " ", "")) {
			t.Errorf("%s: %d, %v, %.300s", path, r.StatusCode, err, body)
		}
	}
}

func TestTablesComeOverTheWire(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	if _, err := shared.client.CoreV1().Pods(ns).Create(ctx, aPod("p"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	body, err := shared.client.CoreV1().RESTClient().Get().Namespace(ns).Resource("pods").SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &table); err != nil || len(table.Rows) != 1 || table.Rows[0].Cells[0] != "p" || table.Rows[0].Cells[2] != string(corev1.PodPending) {
		t.Errorf("have %+v, %v", table.Rows, err)
	}
}
