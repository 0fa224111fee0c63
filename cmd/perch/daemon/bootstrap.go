package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/shipped"
	"perch/controlplane/auth/rbac"
)

// infoName is the ConfigMap in kube-public that tells clients where the web
// door is; rbac.ClusterConfigMap in kube-system tells joining nodes the same.
const infoName = "perch-info"

// ensureObjects keeps the objects that perch itself needs: repeated until all
// are there, since the API may still be starting. One that stays away is told.
func ensureObjects(ctx context.Context, cfg config.Config, c clients, log *slog.Logger) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		err := ensureOnce(ctx, cfg, c)
		if err == nil {
			return nil
		}
		if n%60 == 0 {
			log.Warn("perch's own objects are not all there, it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("keep perch's own objects: %w", err)
		case <-tick.C:
		}
	}
}

func ensureOnce(ctx context.Context, cfg config.Config, c clients) error {
	info := map[string]string{
		"web": webURL(cfg), "clusterCIDR": cfg.ClusterCIDR.String(), "serviceCIDR": cfg.ServiceCIDR.String(),
		"clusterDomain": cfg.ClusterDomain, "clusterDNS": cfg.ServiceIP(10).String(), "name": cfg.Name,
	}
	for ns, name := range map[string]string{metav1.NamespacePublic: infoName, metav1.NamespaceSystem: rbac.ClusterConfigMap} {
		maps := c.kube.CoreV1().ConfigMaps(ns)
		want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Data: info}
		if _, err := maps.Create(ctx, want, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			if _, err := maps.Update(ctx, want, metav1.UpdateOptions{}); err != nil {
				return fmt.Errorf("update ConfigMap %s: %w", name, err)
			}
		} else if err != nil {
			return fmt.Errorf("create ConfigMap %s: %w", name, err)
		}
	}
	if err := ensureDNS(ctx, cfg, c); err != nil {
		return err
	}
	if err := ensureRoles(ctx, c); err != nil {
		return err
	}
	if err := ensureScrapeAccount(ctx, c); err != nil {
		return err
	}
	return ensureCRDs(ctx, c)
}

func ensureDNS(ctx context.Context, cfg config.Config, c clients) error {
	services := c.kube.CoreV1().Services(metav1.NamespaceSystem)
	// A second Create would be refused for its address, not for its name.
	if _, err := services.Get(ctx, "kube-dns", metav1.GetOptions{}); err == nil {
		return nil
	} else if !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Service kube-dns: %w", err)
	}
	dns := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem, Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{ClusterIP: cfg.ServiceIP(10).String(), Ports: []corev1.ServicePort{
			{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)},
			{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, TargetPort: intstr.FromInt32(53)}}}}
	if _, err := services.Create(ctx, dns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create Service kube-dns: %w", err)
	}
	return nil
}

// ensureRoles adds to the default roles what belongs to objects of this file:
// everybody may find the web door, the telemetry role may read what it is
// configured with.
func ensureRoles(ctx context.Context, c clients) error {
	api := c.kube.RbacV1()
	for _, r := range []struct {
		namespace, name string
		rule            rbacv1.PolicyRule
		subject         rbacv1.Subject
	}{
		{metav1.NamespacePublic, "perch:daemon", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{infoName}, Verbs: []string{"get"}},
			rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:authenticated"}},
		{metav1.NamespaceSystem, "perch:shipped", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{shipped.RecordName}, Verbs: []string{"get"}},
			rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: rbac.TelemetryUser}},
		{metav1.NamespaceSystem, "perch:scrape", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{scrapeAccountName}, Verbs: []string{"create"}},
			rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: rbac.TelemetryUser}},
		{metav1.NamespaceSystem, "perch:daemon", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{alertConfigName, remoteWriteName}, Verbs: []string{"get"}},
			rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: rbac.TelemetryUser}},
	} {
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: r.name, Namespace: r.namespace}, Rules: []rbacv1.PolicyRule{r.rule}}
		_, err := api.Roles(r.namespace).Create(ctx, role, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			_, err = api.Roles(r.namespace).Update(ctx, role, metav1.UpdateOptions{}) // an older perch may have made it
		}
		if err != nil {
			return fmt.Errorf("write Role %s/%s: %w", r.namespace, role.Name, err)
		}
		bind := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role.Name, Namespace: r.namespace},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name}, Subjects: []rbacv1.Subject{r.subject}}
		if _, err := api.RoleBindings(r.namespace).Create(ctx, bind, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create RoleBinding %s/%s: %w", r.namespace, role.Name, err)
		}
	}
	return nil
}
