package daemon

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"perch/cmd/perch/daemon/config"
)

func TestANewerPerchBringsItsObjectsToAnOlderCluster(t *testing.T) {
	kube := fake.NewClientset(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem}})
	kube.PrependReactor("create", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		// As the API does, which looks for the address before it looks for the name.
		return true, nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "kube-dns", nil)
	})
	c := clients{kube: kube, dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())}
	cfg := config.Config{ClusterCIDR: netip.MustParsePrefix("10.1.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.2.0.0/16")}
	for range 2 {
		if err := ensureOnce(t.Context(), cfg, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.dynamic.Resource(crds).Get(t.Context(), "probes.monitoring.coreos.com", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := kube.CoreV1().ServiceAccounts(metav1.NamespaceSystem).Get(t.Context(), scrapeAccountName, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
