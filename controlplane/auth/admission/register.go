package admission

import (
	"fmt"
	"io"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/client-go/informers"

	"perch/controlplane/auth/quota"
)

// Names of our plugins; those that Kubernetes has, too, carry its names.
const (
	nodeRestriction   = "NodeRestriction"
	serviceAccount    = "ServiceAccount"
	limitRanger       = "LimitRanger"
	priority          = "Priority"
	defaultToleration = "DefaultTolerationSeconds"
	defaultClass      = "DefaultStorageClass"
	escalation        = "RBACEscalation"
	certificate       = "CertificateRestriction"
)

// Order is that in which plugins see a write: mutating ones first, in this
// order, then the validating ones. Quota counts last, when all others agreed.
func Order() []string {
	return []string{
		lifecycle.PluginName,
		nodeRestriction, serviceAccount, limitRanger, priority, defaultToleration, defaultClass,
		escalation, certificate,
		mutatingpolicy.PluginName, mutatingwebhook.PluginName,
		validatingpolicy.PluginName, validatingwebhook.PluginName,
		resourcequota.PluginName,
	}
}

// Register adds our plugins. Those of the library in Order (namespace life
// cycle, policies, webhooks) are registered by options.NewAdmissionOptions.
func Register(plugins *admission.Plugins) {
	for name, make := range map[string]func() admission.Interface{
		nodeRestriction:   func() admission.Interface { return newNodeRestriction() },
		serviceAccount:    func() admission.Interface { return newServiceAccount() },
		limitRanger:       func() admission.Interface { return newLimitRanger() },
		priority:          func() admission.Interface { return newPriority() },
		defaultToleration: func() admission.Interface { return newDefaultToleration() },
		defaultClass:      func() admission.Interface { return newDefaultClass() },
		escalation:        func() admission.Interface { return newEscalation() },
		certificate:       func() admission.Interface { return newCertificate() },
	} {
		plugins.Register(name, func(io.Reader) (admission.Interface, error) { return make(), nil })
	}
	plugins.Register(resourcequota.PluginName, func(io.Reader) (admission.Interface, error) {
		q, err := resourcequota.NewResourceQuota(nil, 5)
		if err != nil {
			return nil, fmt.Errorf("open plugin %s: %w", resourcequota.PluginName, err)
		}
		return &quotaPlugin{q}, nil
	})
}

// quotaPlugin is the library's plugin with our evaluators. The library sets the
// informers after the stop channel that the evaluators' workers need.
type quotaPlugin struct{ *resourcequota.QuotaAdmission }

// SetExternalKubeInformerFactory hands on the informers and sets what is counted.
func (q *quotaPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	q.QuotaAdmission.SetExternalKubeInformerFactory(f)
	q.SetQuotaConfiguration(quota.Configuration(nil))
}
