package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"perch/cmd/perch/daemon/door"
	"perch/cmd/perch/daemon/shipped"
	"perch/metrics/dashboard"
)

// serveDashboards answers the dashboards of the page: the ConfigMaps with
// Grafana's label in namespaces whose ConfigMaps the caller may read, and to
// everybody the shipped ones, as this binary has them where the caller may not
// read what became of them.
func serveDashboards(web *door.Door, client kubernetes.Interface) error {
	ours, err := dashboard.Shipped()
	if err != nil {
		return err
	}
	list := func(ctx context.Context) ([]corev1.ConfigMap, error) {
		got, err := client.CoreV1().ConfigMaps(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: shipped.DashboardLabel})
		if err != nil {
			return nil, fmt.Errorf("list dashboards: %w", err)
		}
		return got.Items, nil
	}
	web.Handle("GET /ui/api/v1/dashboards", door.ConfigMaps, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		all, err := list(req.Context())
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the asker is gone if this fails
			return
		}
		scope := door.ScopeOf(req.Context())
		_ = json.NewEncoder(w).Encode(dashboardList{Items: visibleDashboards(all, ours, scope), Hidden: scope.Hidden}) // as above
	}))
	return nil
}

type dashboardList struct {
	Items  []dashboardText `json:"items"`
	Hidden int             `json:"hidden,omitempty"` // namespaces the caller may not look into
}

// dashboardText has the fields of a ConfigMap that the page reads.
type dashboardText struct {
	Metadata dashboardName     `json:"metadata"`
	Data     map[string]string `json:"data"`
}

type dashboardName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func visibleDashboards(all []corev1.ConfigMap, ours []dashboard.Dashboard, scope door.Scope) []dashboardText {
	asShipped := map[string]map[string]string{}
	for _, d := range ours {
		asShipped[shipped.DashboardName(d.Name)] = map[string]string{shipped.DashboardFile(d.Name): d.JSON}
	}
	out := []dashboardText{}
	for _, c := range all {
		data := c.Data
		if !scope.All && !slices.Contains(scope.Namespaces, c.Namespace) {
			if data = asShipped[c.Name]; data == nil || c.Namespace != metav1.NamespaceSystem {
				continue
			}
		}
		out = append(out, dashboardText{dashboardName{c.Namespace, c.Name}, data})
	}
	return out
}
