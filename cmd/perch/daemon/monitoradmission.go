package daemon

import (
	"context"
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"

	"perch/metrics/target"
)

// monitorCheck refuses objects of scraping and alert routing that would not be in
// force, with the path of the field, and warns of fields that do nothing.
const monitorCheck = "MonitorCheck"

type monitorPlugin struct{ *kadmission.Handler }

// warnLimit bounds the warnings of one request.
const warnLimit = 20

// Validate implements admission.ValidationInterface. What is written anew as it
// was, a label changed on a broken object, passes.
func (monitorPlugin) Validate(ctx context.Context, a kadmission.Attributes, _ kadmission.ObjectInterfaces) error {
	have, ok := a.GetObject().(*unstructured.Unstructured)
	if !ok || a.GetSubresource() != "" || a.GetResource().Group != "monitoring.coreos.com" {
		return nil
	}
	if old, ok := a.GetOldObject().(*unstructured.Unstructured); ok && old != nil && equality.Semantic.DeepEqual(old.Object["spec"], have.Object["spec"]) {
		return nil
	}
	var wrong, idle []string
	for kind, resource := range scrapeKinds() {
		if resource.GroupResource() == a.GetResource().GroupResource() {
			wrong, idle = scrapeObject(kind, have).Check()
		}
	}
	if alertRoutes.GroupResource() == a.GetResource().GroupResource() {
		if err := alertRouteObject(have).Check(target.GuardedAddress); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) > 0 {
		return kadmission.NewForbidden(a, errors.New(strings.Join(wrong, "; ")))
	}
	for i, text := range idle {
		if i < warnLimit {
			warning.AddWarning(ctx, "", text)
		}
	}
	return nil
}
