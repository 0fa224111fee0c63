package node

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func agent(name string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{Group, user.AllAuthenticated}}
}

func pod() *corev1.Pod {
	secret := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0"},
		Spec: corev1.PodSpec{
			NodeName: "n1", ServiceAccountName: "web",
			ImagePullSecrets: []corev1.LocalObjectReference{secret("pull")},
			InitContainers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: secret("init-env")}},
			}}},
			Containers: []corev1.Container{{Env: []corev1.EnvVar{
				{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: secret("settings")}}},
			}}},
			Volumes: []corev1.Volume{
				{Name: "a", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "tls"}}},
				{Name: "b", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: secret("kube-root-ca.crt")}},
					{Secret: &corev1.SecretProjection{LocalObjectReference: secret("projected")}},
				}}}},
				{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
			},
		},
	}
}

func TestDecide(t *testing.T) {
	facts := Facts{Pods: []*corev1.Pod{pod()}, Volume: func(namespace, claim string) string {
		if namespace == "shop" && claim == "data" {
			return "pv-7"
		}
		return ""
	}}
	selector := func(text string) fields.Requirements {
		s, err := fields.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		return s.Requirements()
	}
	for _, c := range []struct {
		name                                 string
		verb, group, namespace, kind, object string
		selector                             string
		want                                 Decision
	}{
		{"it reads all nodes, for routes", "list", "", "", "nodes", "", "", Yes},
		{"it writes its own status", "patch", "", "", "nodes/status", "n1", "", Yes},
		{"not that of another", "patch", "", "", "nodes/status", "n2", "", No},
		{"it does not delete nodes", "delete", "", "", "nodes", "n1", "", No},
		{"it lists its pods by selector", "watch", "", "", "pods", "", "spec.nodeName=n1", Yes},
		{"not those of another", "list", "", "", "pods", "", "spec.nodeName=n2", No},
		{"nor all", "list", "", "", "pods", "", "", No},
		{"nor all but its own", "list", "", "", "pods", "", "spec.nodeName!=n1", No},
		{"it gets a pod bound to it", "get", "", "shop", "pods", "web-0", "", Yes},
		{"and no other", "get", "", "shop", "pods", "web-1", "", NoReference},
		{"it does not create pods", "create", "", "shop", "pods", "", "", No},
		{"it reports pods", "patch", "", "shop", "pods/status", "web-0", "", Yes},
		{"a secret in a volume", "get", "", "shop", "secrets", "tls", "", Yes},
		{"a secret for pulling", "get", "", "shop", "secrets", "pull", "", Yes},
		{"a secret in an init container's environment", "get", "", "shop", "secrets", "init-env", "", Yes},
		{"a secret in a projected volume, watched by name", "watch", "", "shop", "secrets", "projected", "", Yes},
		{"a secret nobody uses", "get", "", "shop", "secrets", "other", "", NoReference},
		{"the same name elsewhere", "get", "", "bank", "secrets", "tls", "", NoReference},
		{"all secrets", "list", "", "shop", "secrets", "", "", No},
		{"writing a secret it may read", "update", "", "shop", "secrets", "tls", "", No},
		{"a config map in the environment", "get", "", "shop", "configmaps", "settings", "", Yes},
		{"the root CA", "get", "", "shop", "configmaps", "kube-root-ca.crt", "", Yes},
		{"a secret's name is no config map", "get", "", "shop", "configmaps", "tls", "", NoReference},
		{"a claim", "get", "", "shop", "persistentvolumeclaims", "data", "", Yes},
		{"the claim of an ephemeral volume", "get", "", "shop", "persistentvolumeclaims", "web-0-scratch", "", Yes},
		{"the volume behind a claim", "get", "", "", "persistentvolumes", "pv-7", "", Yes},
		{"another volume", "get", "", "", "persistentvolumes", "pv-8", "", NoReference},
		{"a token for an account of its pods", "create", "", "shop", "serviceaccounts/token", "web", "", Yes},
		{"a token for another account", "create", "", "shop", "serviceaccounts/token", "admin", "", NoReference},
		{"its lease", "update", "coordination.k8s.io", "kube-node-lease", "leases", "n1", "", Yes},
		{"another's lease", "update", "coordination.k8s.io", "kube-node-lease", "leases", "n2", "", No},
		{"a lease of a controller", "update", "coordination.k8s.io", "kube-system", "leases", "n1", "", No},
		{"a review of a caller's token", "create", "authentication.k8s.io", "", "tokenreviews", "", "", Yes},
		{"approving its own request", "update", "certificates.k8s.io", "", "certificatesigningrequests/approval", "x", "", No},
		{"roles", "get", "rbac.authorization.k8s.io", "", "clusterroles", "admin", "", No},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := authorizer.AttributesRecord{User: agent("n1"), Verb: c.verb, APIGroup: c.group, Namespace: c.namespace, Name: c.object, ResourceRequest: true}
			a.Resource, a.Subresource, _ = strings.Cut(c.kind, "/")
			if c.selector != "" {
				a.FieldSelectorRequirements = selector(c.selector)
			}
			got, reason := Decide(a, "n1", facts)
			if got != c.want || reason == "" {
				t.Fatalf("got %v because %q, want %v", got, reason, c.want)
			}
		})
	}
}

func TestNameOf(t *testing.T) {
	for _, c := range []struct {
		name string
		u    user.Info
		want string
	}{
		{"a node", agent("n1"), "n1"},
		{"the name without the group is nobody", &user.DefaultInfo{Name: "system:node:n1"}, ""},
		{"the group without the name is nobody", &user.DefaultInfo{Name: "n1", Groups: []string{Group}}, ""},
		{"an empty name is nobody", agent(""), ""},
	} {
		if got, ok := NameOf(c.u); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %v", c.name, got, ok)
		}
	}
}

func TestAuthorizeWaitsForTheInformer(t *testing.T) {
	f := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	n, err := New(f)
	if err != nil {
		t.Fatal(err)
	}
	a := authorizer.AttributesRecord{User: agent("n1"), Verb: "get", Namespace: "shop", Resource: "secrets", Name: "tls", ResourceRequest: true}
	synctest.Test(t, func(t *testing.T) {
		if d, why, _ := n.Authorize(t.Context(), a); d != authorizer.DecisionNoOpinion || !strings.Contains(why, "no pod on node n1 refers to secrets shop/tls") {
			t.Fatalf("%v %s", d, why)
		}
		time.AfterFunc(30*time.Millisecond, func() { _ = n.pods.Add(pod()) })
		if d, why, _ := n.Authorize(t.Context(), a); d != authorizer.DecisionAllow {
			t.Fatalf("%v %s", d, why)
		}
	})
}
