package daemon

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/cmd/perch/daemon/door"
	"perch/metrics/dashboard"
)

func TestWhoMayNotListConfigMapsSeesTheShippedDashboardsAndTheirOwn(t *testing.T) {
	board := func(namespace, name, file, text string) corev1.ConfigMap {
		return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{file: text}}
	}
	all := []corev1.ConfigMap{
		board("kube-system", "perch-dashboard-nodes", "perch-nodes.json", "edited"),
		board("kube-system", "secret-board", "x.json", "of the administrators"),
		board("shop", "orders", "orders.json", "orders"),
		board("bank", "perch-dashboard-nodes", "perch-nodes.json", "of the bank"), // a shipped one's name elsewhere
	}
	ours := []dashboard.Dashboard{{Name: "nodes", JSON: "as shipped"}, {Name: "pods", JSON: "deleted by an administrator"}}
	for _, c := range []struct {
		who   string
		scope door.Scope
		want  []string
	}{
		{"an administrator", door.Scope{All: true}, []string{"kube-system edited", "kube-system of the administrators", "shop orders", "bank of the bank"}},
		{"a developer of shop", door.Scope{Namespaces: []string{"shop"}, Hidden: 3}, []string{"kube-system as shipped", "shop orders"}},
		{"somebody without rights", door.Scope{}, []string{"kube-system as shipped"}},
	} {
		var got []string
		for _, d := range visibleDashboards(all, ours, c.scope) {
			for _, text := range d.Data {
				got = append(got, d.Metadata.Namespace+" "+text)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s sees %q, want %q", c.who, got, c.want)
		}
	}
}
