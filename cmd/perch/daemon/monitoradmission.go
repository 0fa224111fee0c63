package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/kubernetes"

	"perch/alerts/route"
	"perch/metrics/target"
)

// monitorCheck refuses objects of scraping and alert routing that would not be in
// force, with the path of the field, those that look into namespaces where their author
// may not write, and warns of fields that do nothing.
const monitorCheck = "MonitorCheck"

type monitorPlugin struct {
	*kadmission.Handler
	routing    watchedText // what is set for all is open to all
	client     kubernetes.Interface
	authorizer authorizer.Authorizer
}

// SetAuthorizer implements initializer.WantsAuthorizer.
func (p *monitorPlugin) SetAuthorizer(a authorizer.Authorizer) { p.authorizer = a }

// SetExternalKubeClientSet implements initializer.WantsExternalKubeClientSet.
func (p *monitorPlugin) SetExternalKubeClientSet(c kubernetes.Interface) { p.client = c }

// ValidateInitialization implements admission.InitializationValidator.
func (p *monitorPlugin) ValidateInitialization() error {
	if p.client == nil || p.authorizer == nil {
		return errors.New(monitorCheck + " has no client or authorizer")
	}
	return nil
}

// guarded tells which addresses a receiver of a namespace may not name: those that the
// cluster's configuration names for all it may, as when they are connected. That is
// asked for once, and only when an address depends on it; one that cannot be read
// opens nothing.
func (p *monitorPlugin) guarded(ctx context.Context) func(address string) bool {
	open := sync.OnceValue(func() map[string]bool {
		text, err := p.routing.read(ctx, p.client)
		if err != nil {
			return nil
		}
		open, err := route.Open(text)
		if err != nil {
			return nil
		}
		return open
	})
	return func(address string) bool { return target.GuardedAddress(address) && !open()[address] }
}

// owes asks whether an object's receivers would have the cluster's credentials sent to
// servers of their own. Where the cluster's configuration cannot be read, that is told
// when it is put into force.
func (p *monitorPlugin) owes(ctx context.Context, have *unstructured.Unstructured) error {
	text, err := p.routing.read(ctx, p.client)
	if err != nil {
		return nil
	}
	return alertRouteObject(have).Owes(text)
}

// warnLimit bounds the warnings of one request.
const warnLimit = 20

// Validate implements admission.ValidationInterface. What is written anew as it
// was, a label changed on a broken object, passes.
func (p *monitorPlugin) Validate(ctx context.Context, a kadmission.Attributes, _ kadmission.ObjectInterfaces) error {
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
			o := scrapeObject(kind, have)
			if wrong, idle = o.Check(); len(wrong) > 0 {
				continue
			}
			if err := p.reaches(ctx, a, o); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
	}
	if alertRoutes.GroupResource() == a.GetResource().GroupResource() {
		if err := alertRouteObject(have).Check(p.guarded(ctx)); err != nil {
			wrong = append(wrong, err.Error())
		} else if err := p.owes(ctx, have); err != nil {
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
