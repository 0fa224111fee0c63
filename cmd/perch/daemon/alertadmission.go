package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"perch/alerts/route"
	"perch/alerts/rule"
	"perch/cmd/perch/daemon/audit"
	"perch/controlplane/apiserver"
	"perch/controlplane/auth/admission"
	"perch/metrics/custom"
	"perch/metrics/remote"
)

// alertCheck refuses rules, queries of metrics and of lines, and configurations of
// alert routes and remote write that would not be in force: who writes them hears
// it at once.
const alertCheck = "AlertCheck"

// admitting are the plugins of the control plane, and those of this package. routing is
// the cluster's own configuration of alerts.
func admitting(routing watchedText) apiserver.Admission {
	order := admission.Order()
	quota := len(order) - 1 // counts last
	return apiserver.Admission{
		Order: slices.Insert(order, quota, alertCheck, monitorCheck, audit.DryRun),
		Register: func(p *kadmission.Plugins) {
			admission.Register(p)
			p.Register(alertCheck, func(io.Reader) (kadmission.Interface, error) {
				return &alertPlugin{Handler: kadmission.NewHandler(kadmission.Create, kadmission.Update)}, nil
			})
			p.Register(audit.DryRun, func(io.Reader) (kadmission.Interface, error) { return audit.NewDryRun(), nil })
			p.Register(monitorCheck, func(io.Reader) (kadmission.Interface, error) {
				return &monitorPlugin{Handler: kadmission.NewHandler(kadmission.Create, kadmission.Update), routing: routing}, nil
			})
		},
	}
}

type alertPlugin struct {
	*kadmission.Handler
	client kubernetes.Interface // nil: no namespace is known to be wide
}

// SetExternalKubeClientSet implements initializer.WantsExternalKubeClientSet.
func (p *alertPlugin) SetExternalKubeClientSet(c kubernetes.Interface) { p.client = c }

// Validate implements admission.ValidationInterface. What is written anew as it
// was, a label changed on a broken object, passes.
func (p alertPlugin) Validate(ctx context.Context, a kadmission.Attributes, _ kadmission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	var now, before string
	var check func(string) error
	switch have := a.GetObject().(type) {
	case *unstructured.Unstructured:
		text := ruleText
		switch a.GetResource().GroupResource() {
		case prometheusRules.GroupResource():
			check = func(text string) error {
				if err := checkRules(text, a.GetNamespace()); err == nil || !wideNow(ctx, p.client, a.GetNamespace()) {
					return err
				}
				return checkRules(text, "")
			}
		case metricQueries.GroupResource():
			text, check = queryText, custom.Check
		case logRules.GroupResource():
			check = checkLogRules
		default:
			return nil
		}
		now = text(have)
		if old, ok := a.GetOldObject().(*unstructured.Unstructured); ok && old != nil {
			before = text(old)
		}
	case *corev1.Secret:
		key := ""
		switch {
		case a.GetNamespace() != metav1.NamespaceSystem:
			return nil
		case a.GetName() == alertConfigName:
			key, check = alertConfigKey, route.Check
		case a.GetName() == remoteWriteName:
			key, check = remoteWriteKey, remote.Check
		default:
			return nil
		}
		now = string(have.Data[key])
		if old, ok := a.GetOldObject().(*corev1.Secret); ok && old != nil {
			before = string(old.Data[key])
		}
	case *corev1.Namespace:
		now = have.Annotations[retentionAnnotation] + "\n" + have.Annotations[bytesAnnotation]
		check = func(string) error { _, err := ownRetention(have.Annotations); return err }
		if old, ok := a.GetOldObject().(*corev1.Namespace); ok && old != nil {
			before = old.Annotations[retentionAnnotation] + "\n" + old.Annotations[bytesAnnotation]
		}
	default:
		return nil
	}
	if now == before {
		return nil
	}
	if err := check(now); err != nil {
		return kadmission.NewForbidden(a, err)
	}
	return nil
}

// ruleText is the rule file that an object holds.
func ruleText(u *unstructured.Unstructured) string {
	spec, _, _ := unstructured.NestedMap(u.Object, "spec") // a copy; what is no map has no groups
	groups, _ := spec["groups"].([]any)
	for _, g := range groups {
		if g, ok := g.(map[string]any); ok {
			delete(g, "partial_response_strategy") // of Thanos; the object's type has it
		}
	}
	text, err := yaml.Marshal(spec)
	if err != nil {
		return "groups: " + err.Error() // shown as this source's problem
	}
	return string(text)
}

// checkRules names what is wrong with the rules of a namespace; empty: with those that
// see all.
func checkRules(text, namespace string) error {
	var say []string
	for _, p := range rule.Check(rule.Source{Name: "spec", Text: text, Namespace: namespace}) {
		if p.Group == "" {
			say = append(say, p.Error)
			continue
		}
		say = append(say, fmt.Sprintf("group %q, rule %d %q: %s", p.Group, p.Number, p.Rule, p.Error)) // lines are not the author's
	}
	if len(say) == 0 {
		return nil
	}
	return errors.New(strings.Join(say, "; "))
}
