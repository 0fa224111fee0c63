package daemon

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"

	"perch/metrics/target"
)

// reaches refuses an object that looks for targets where its author may not write one
// like it: what it finds there it may ask for anything, and give series of that
// namespace any name. In namespaces whose rules are for all, objects may look into all.
func (p *monitorPlugin) reaches(ctx context.Context, a kadmission.Attributes, o target.Object) error {
	all, names := o.Reach()
	if all {
		names = []string{metav1.NamespaceAll}
	}
	for _, ns := range names {
		decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{User: a.GetUserInfo(), Verb: "create", Namespace: ns,
			APIGroup: a.GetResource().Group, APIVersion: a.GetResource().Version, Resource: a.GetResource().Resource, ResourceRequest: true})
		if err != nil {
			return fmt.Errorf("ask whether it may look into namespace %q: %w", ns, err)
		}
		if decision == authorizer.DecisionAllow || p.wide(ctx, a.GetNamespace()) {
			continue
		}
		where, there := fmt.Sprintf("namespace %q", ns), "there"
		if all {
			where, there = "all namespaces", "in all of them"
		}
		return fmt.Errorf("it looks for targets in %s, and %s may not create %s %s: write one in each namespace, ask who may, or have the namespace %s labelled %s=cluster",
			where, a.GetUserInfo().GetName(), a.GetResource().Resource, there, a.GetNamespace(), rulesLabel)
	}
	return nil
}

// wide is asked for objects that would be refused only.
func (p *monitorPlugin) wide(ctx context.Context, namespace string) bool {
	return wideNow(ctx, p.client, namespace)
}

// wideNow asks the API server whether what lives in a namespace is for all namespaces.
func wideNow(ctx context.Context, client kubernetes.Interface, namespace string) bool {
	if namespace == metav1.NamespaceSystem {
		return true
	}
	if client == nil {
		return false
	}
	ns, err := client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	return err == nil && ns.Labels[rulesLabel] == "cluster"
}
