package admission

import (
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"perch/controlplane/auth/rbac"
)

// chain opens one plugin of ours the way the API server does.
func chain(t *testing.T, name string, objects ...runtime.Object) admission.Interface {
	t.Helper()
	client := fake.NewClientset(objects...)
	f := informers.NewSharedInformerFactory(client, 0)
	roles, err := rbac.New(f)
	if err != nil {
		t.Fatal(err)
	}
	plugins := admission.NewPlugins()
	Register(plugins)
	stop := t.Context().Done()
	init := initializer.New(client, nil, f, roles, nil, nil, stop, nil)
	p, err := plugins.InitPlugin(name, nil, init)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(stop)
	f.WaitForCacheSync(stop)
	return p
}

func write(op admission.Operation, u user.Info, resource string, old, have runtime.Object) admission.Attributes {
	object := have
	if object == nil {
		object = old
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		panic(err)
	}
	resource, sub, _ := strings.Cut(resource, "/")
	gvr := corev1.SchemeGroupVersion.WithResource(resource)
	switch object.(type) {
	case *rbacv1.Role, *rbacv1.RoleBinding, *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding:
		gvr = rbacv1.SchemeGroupVersion.WithResource(resource)
	}
	return admission.NewAttributesRecord(have, old, schema.GroupVersionKind{Kind: "X"}, accessor.GetNamespace(), accessor.GetName(), gvr, sub, op, nil, false, u)
}

var alice = &user.DefaultInfo{Name: "alice", Groups: []string{user.AllAuthenticated}}

func run(t *testing.T, p admission.Interface, a admission.Attributes) error {
	t.Helper()
	if m, ok := p.(admission.MutationInterface); ok && p.Handles(a.GetOperation()) {
		if err := m.Admit(t.Context(), a, nil); err != nil {
			return err
		}
	}
	if v, ok := p.(admission.ValidationInterface); ok && p.Handles(a.GetOperation()) {
		return v.Validate(t.Context(), a, nil)
	}
	return nil
}

func newPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0"},
		Spec:       corev1.PodSpec{InitContainers: []corev1.Container{{Name: "init"}}, Containers: []corev1.Container{{Name: "web"}}},
	}
}

func TestOrderNamesOnlyRegisteredPlugins(t *testing.T) {
	o := options.NewAdmissionOptions()
	Register(o.Plugins)
	o.RecommendedPluginOrder = Order()
	if errs := o.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
}

func TestServiceAccount(t *testing.T) {
	no := false
	p := chain(t, serviceAccount,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "quiet"}, AutomountServiceAccountToken: &no})
	t.Run("a plain pod gets account, token and pull secrets", func(t *testing.T) {
		pod := newPod()
		for range 2 { // a webhook may cause a second pass
			if err := run(t, p, write(admission.Create, alice, "pods", nil, pod)); err != nil {
				t.Fatal(err)
			}
		}
		if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.ImagePullSecrets) != 1 || len(pod.Spec.Volumes) != 1 {
			t.Fatalf("%+v", pod.Spec)
		}
		v := pod.Spec.Volumes[0]
		if !strings.HasPrefix(v.Name, "kube-api-access-") || len(v.Name) != len("kube-api-access-")+5 {
			t.Errorf("volume is called %s", v.Name)
		}
		sources := v.Projected.Sources
		if len(sources) != 3 || sources[0].ServiceAccountToken.Path != "token" || *sources[0].ServiceAccountToken.ExpirationSeconds != 3607 ||
			sources[1].ConfigMap.Name != "kube-root-ca.crt" || sources[2].DownwardAPI.Items[0].FieldRef.FieldPath != "metadata.namespace" || *v.Projected.DefaultMode != 0o644 {
			t.Errorf("sources are %+v", sources)
		}
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" || !c.VolumeMounts[0].ReadOnly {
				t.Errorf("container %s mounts %+v", c.Name, c.VolumeMounts)
			}
		}
	})
	t.Run("an account that wants no token mounted gets none", func(t *testing.T) {
		pod := newPod()
		pod.Spec.ServiceAccountName = "quiet"
		if err := run(t, p, write(admission.Create, alice, "pods", nil, pod)); err != nil || len(pod.Spec.Volumes) != 0 {
			t.Fatalf("%v %+v", err, pod.Spec.Volumes)
		}
	})
	t.Run("a missing account is named", func(t *testing.T) {
		pod := newPod()
		pod.Spec.ServiceAccountName = "nobody"
		err := run(t, p, write(admission.Create, alice, "pods", nil, pod))
		if err == nil || !strings.Contains(err.Error(), `error looking up service account shop/nobody: serviceaccounts "nobody" not found`) {
			t.Fatal(err)
		}
	})
}

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

func TestLimitRanger(t *testing.T) {
	p := chain(t, limitRanger, &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bounds"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{
				Type:           corev1.LimitTypeContainer,
				DefaultRequest: corev1.ResourceList{"cpu": quantity("100m"), "memory": quantity("64Mi")},
				Default:        corev1.ResourceList{"cpu": quantity("200m"), "memory": quantity("128Mi")},
				Min:            corev1.ResourceList{"cpu": quantity("50m")},
				Max:            corev1.ResourceList{"memory": quantity("1Gi")}, MaxLimitRequestRatio: corev1.ResourceList{"cpu": quantity("4")},
			},
			{Type: corev1.LimitTypePod, Max: corev1.ResourceList{"cpu": quantity("1")}},
			{Type: corev1.LimitTypePersistentVolumeClaim, Min: corev1.ResourceList{"storage": quantity("1Gi")}},
		}},
	})
	for _, c := range []struct {
		name             string
		requests, limits corev1.ResourceList
		problem          string
	}{
		{"defaults are filled in", nil, nil, ""},
		{"what is stated stays", corev1.ResourceList{"cpu": quantity("150m")}, nil, ""},
		{"too little is refused", corev1.ResourceList{"cpu": quantity("10m")}, corev1.ResourceList{"cpu": quantity("40m")}, "minimum cpu usage per Container is 50m, but request is 10m"},
		{"too much is refused", nil, corev1.ResourceList{"memory": quantity("2Gi")}, "maximum memory usage per Container is 1Gi, but limit is 2Gi"},
		{"a burst too high is refused", corev1.ResourceList{"cpu": quantity("100m")}, corev1.ResourceList{"cpu": quantity("500m")}, "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000"},
		{"all containers together are bounded", corev1.ResourceList{"cpu": quantity("900m")}, corev1.ResourceList{"cpu": quantity("1200m")}, "maximum cpu usage per Pod is 1, but limit is 1200m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := newPod()
			pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: c.requests.DeepCopy(), Limits: c.limits.DeepCopy()}
			err := run(t, p, write(admission.Create, alice, "pods", nil, pod))
			if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			have := pod.Spec.Containers[0].Resources
			want := quantity("100m")
			if q, ok := c.requests["cpu"]; ok {
				want = q
			}
			if have.Requests.Cpu().Cmp(want) != 0 || have.Limits.Memory().String() != "128Mi" || pod.Annotations["kubernetes.io/limit-ranger"] == "" {
				t.Errorf("%+v %v", have, pod.Annotations)
			}
		})
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"}}
	claim.Spec.Resources.Requests = corev1.ResourceList{"storage": quantity("10Mi")}
	if err := run(t, p, write(admission.Create, alice, "persistentvolumeclaims", nil, claim)); err == nil || !strings.Contains(err.Error(), "minimum storage usage per PersistentVolumeClaim is 1Gi") {
		t.Errorf("claim: %v", err)
	}
}

func TestPriority(t *testing.T) {
	never := corev1.PreemptNever
	p := chain(t, priority,
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "normal"}, Value: 10, GlobalDefault: true},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000, PreemptionPolicy: &never})
	wrong := int32(5)
	for _, c := range []struct {
		name, class string
		given       *int32
		value       int32
		policy      corev1.PreemptionPolicy
		problem     string
	}{
		{"no class means the default class", "", nil, 10, corev1.PreemptLowerPriority, ""},
		{"a class sets number and policy", "high", nil, 1000, corev1.PreemptNever, ""},
		{"a system class is known before it is stored", "system-node-critical", nil, 2000001000, corev1.PreemptLowerPriority, ""},
		{"an unknown class is refused", "x", nil, 0, "", "no PriorityClass with name x was found"},
		{"a number of one's own is refused", "high", &wrong, 0, "", "must not be provided in pod spec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := newPod()
			pod.Spec.PriorityClassName, pod.Spec.Priority = c.class, c.given
			err := run(t, p, write(admission.Create, alice, "pods", nil, pod))
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Fatal(err)
				}
				return
			}
			if err != nil || *pod.Spec.Priority != c.value || *pod.Spec.PreemptionPolicy != c.policy {
				t.Fatalf("%v %+v", err, pod.Spec)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	p := chain(t, defaultToleration)
	pod := newPod()
	pod.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists}}
	if err := run(t, p, write(admission.Create, alice, "pods", nil, pod)); err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.Tolerations) != 2 || *pod.Spec.Tolerations[1].TolerationSeconds != 300 || pod.Spec.Tolerations[1].Key != corev1.TaintNodeUnreachable {
		t.Errorf("%+v", pod.Spec.Tolerations)
	}

	p = chain(t, defaultClass,
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "slow"}},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local", Annotations: map[string]string{isDefaultClass: "true"}}})
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"}}
	if err := run(t, p, write(admission.Create, alice, "persistentvolumeclaims", nil, claim)); err != nil || claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != "local" {
		t.Errorf("%v %v", err, claim.Spec.StorageClassName)
	}
	none := ""
	claim.Spec.StorageClassName = &none
	if err := run(t, p, write(admission.Create, alice, "persistentvolumeclaims", nil, claim)); err != nil || *claim.Spec.StorageClassName != "" {
		t.Errorf("a claim that wants no class: %v %v", err, claim.Spec.StorageClassName)
	}
}

func TestNodeRestriction(t *testing.T) {
	mine, others := newPod(), newPod()
	mine.Spec.NodeName, mine.UID = "n1", "u1"
	others.Name, others.Spec.NodeName, others.UID = "web-1", "n2", "u2"
	p := chain(t, nodeRestriction, mine, others)
	n1 := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	self := func(change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"kubernetes.io/hostname": "n1"}}}
		change(n)
		return n
	}
	same := func(*corev1.Node) {}
	token := func(pod *corev1.Pod) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"},
			Spec:       authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		}
	}
	unbound := &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}}
	for _, c := range []struct {
		name    string
		a       admission.Attributes
		problem string
	}{
		{"a node makes itself", write(admission.Create, n1, "nodes", nil, self(same)), ""},
		{"not another", write(admission.Create, n1, "nodes", nil, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}), "same name"},
		{"it sets common labels", write(admission.Update, n1, "nodes", self(same), self(func(n *corev1.Node) { n.Labels["topology.kubernetes.io/zone"] = "a" })), ""},
		{"not those others decide by", write(admission.Update, n1, "nodes", self(same), self(func(n *corev1.Node) { n.Labels["node-restriction.kubernetes.io/pci"] = "yes" })), "not allowed to modify labels: node-restriction.kubernetes.io/pci"},
		{"nor a role", write(admission.Update, n1, "nodes", self(same), self(func(n *corev1.Node) { n.Labels["node-role.kubernetes.io/control-plane"] = "" })), "not allowed to modify labels"},
		{"nor its taints", write(admission.Update, n1, "nodes/status", self(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "x"}} }), self(same)), "modify taints"},
		{"it reports its pods", write(admission.Update, n1, "pods/status", mine, mine), ""},
		{"not others", write(admission.Update, n1, "pods/status", others, others), "spec.nodeName set to itself"},
		{"it deletes its pods", write(admission.Delete, n1, "pods", mine, nil), ""},
		{"not others'", write(admission.Delete, n1, "pods", others, nil), "can only delete pods"},
		{"it asks for tokens of its pods", write(admission.Create, n1, "serviceaccounts/token", nil, token(mine)), ""},
		{"not of others", write(admission.Create, n1, "serviceaccounts/token", nil, token(others)), "different node"},
		{"nor unbound ones", write(admission.Create, n1, "serviceaccounts/token", nil, unbound), "not bound to a pod"},
		{"users are none of its business", write(admission.Update, alice, "pods/status", others, others), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := run(t, p, c.a)
			if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
				t.Fatalf("got %v, want %q", err, c.problem)
			}
		})
	}
}

func TestEscalationPlugin(t *testing.T) {
	view := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "view"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	all := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "cluster-admin"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}}}
	p := chain(t, escalation, view, all, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "alice"}}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"},
	})
	binding := func(role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "bob"}}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role}}
	}
	labelled := binding("cluster-admin")
	labelled.Labels = map[string]string{"team": "a"}
	root := &user.DefaultInfo{Name: "root", Groups: []string{user.SystemPrivilegedGroup}}
	for _, c := range []struct {
		name    string
		a       admission.Attributes
		problem string
	}{
		{"what she holds she may hand out", write(admission.Create, alice, "rolebindings", nil, binding("view")), ""},
		{"not what she lacks", write(admission.Create, alice, "rolebindings", nil, binding("cluster-admin")), "attempting to grant RBAC permissions not currently held"},
		{"nor a role that may come to be", write(admission.Create, alice, "rolebindings", nil, binding("later")), "does not exist"},
		{"a label may be put on a strong binding", write(admission.Update, alice, "rolebindings", binding("cluster-admin"), labelled), ""},
		{"a strong role cannot be written", write(admission.Create, alice, "clusterroles", nil, all), "attempting to grant"},
		{"masters may do all", write(admission.Create, root, "rolebindings", nil, binding("later")), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := run(t, p, c.a)
			if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
				t.Fatalf("got %v, want %q", err, c.problem)
			}
		})
	}
}

func TestEverythingInOrderOpens(t *testing.T) {
	for _, name := range Order() {
		plugins := admission.NewPlugins()
		Register(plugins)
		if slices.Contains(plugins.Registered(), name) {
			chain(t, name)
		}
	}
}

func TestQuotaIsCountedOnTheWayIn(t *testing.T) {
	hard := corev1.ResourceList{"pods": quantity("2"), "requests.cpu": quantity("1")}
	p := chain(t, "ResourceQuota", &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "q", ResourceVersion: "1"}, Spec: corev1.ResourceQuotaSpec{Hard: hard},
		Status: corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{"pods": quantity("1"), "requests.cpu": quantity("500m")}},
	})
	ask := func(cpu string) error {
		pod := newPod()
		pod.Spec.InitContainers = nil
		if cpu != "" {
			pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": quantity(cpu)}
		}
		return run(t, p, write(admission.Create, alice, "pods", nil, pod))
	}
	if err := ask(""); err == nil || !strings.Contains(err.Error(), "failed quota: q: must specify requests.cpu") {
		t.Errorf("nothing stated: %v", err)
	}
	if err := ask("600m"); err == nil || !strings.Contains(err.Error(), "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1") {
		t.Errorf("too much: %v", err)
	}
	if err := ask("500m"); err != nil {
		t.Errorf("just enough: %v", err)
	}
}
