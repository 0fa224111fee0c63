package exporter

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func lease(s *sender, l *coordinationv1.Lease) {
	own := []string{"namespace", l.Namespace, "lease", l.Name}
	holder := ""
	if l.Spec.HolderIdentity != nil {
		holder = *l.Spec.HolderIdentity
	}
	of := l.OwnerReferences
	if len(of) == 0 {
		of = []metav1.OwnerReference{{}}
	}
	for _, o := range of {
		s.gauge("kube_lease_owner", "Who owns a lease and who holds it.", 1, join(own, "owner_kind", o.Kind, "owner_name", o.Name, "lease_holder", holder)...)
	}
	if t := l.Spec.RenewTime; t != nil && !t.IsZero() {
		s.gauge("kube_lease_renew_time", "When a lease was renewed, unix time.", float64(t.Unix()), own...)
	}
}

func signingRequest(s *sender, r *certificatesv1.CertificateSigningRequest) {
	own := []string{"certificatesigningrequest", r.Name, "signer_name", r.Spec.SignerName}
	created(s, "kube_certificatesigningrequest_created", r.ObjectMeta, own)
	count := map[certificatesv1.RequestConditionType]int{}
	for _, c := range r.Status.Conditions {
		count[c.Type]++
	}
	const conditions, help = "kube_certificatesigningrequest_condition", "How often a signing request was approved or denied."
	s.gauge(conditions, help, float64(count[certificatesv1.CertificateApproved]), join(own, "condition", "approved")...)
	s.gauge(conditions, help, float64(count[certificatesv1.CertificateDenied]), join(own, "condition", "denied")...)
	s.gauge("kube_certificatesigningrequest_cert_length", "Bytes of the certificate that was issued.", float64(len(r.Status.Certificate)), own...)
}

// hook is what both kinds of webhooks have.
type hook struct {
	name string
	at   admissionv1.WebhookClientConfig
}

func webhooks(s *sender, kind string, m metav1.ObjectMeta, list []hook) {
	name, own := "kube_"+kind, []string{"namespace", m.Namespace, kind, m.Name}
	s.gauge(name+"_info", "About a configuration of webhooks.", 1, own...)
	created(s, name+"_created", m, own)
	version(s, name+"_metadata_resource_version", m, own)
	for _, h := range list {
		to := admissionv1.ServiceReference{}
		if h.at.Service != nil {
			to = *h.at.Service
		}
		s.gauge(name+"_webhook_clientconfig_service", "Service that a webhook is asked at.", 1, join(own, "webhook_name", h.name, "service_name", to.Name, "service_namespace", to.Namespace)...)
	}
}

func mutatingWebhooks(s *sender, c *admissionv1.MutatingWebhookConfiguration) {
	list := make([]hook, len(c.Webhooks))
	for i, w := range c.Webhooks {
		list[i] = hook{w.Name, w.ClientConfig}
	}
	webhooks(s, "mutatingwebhookconfiguration", c.ObjectMeta, list)
}

func validatingWebhooks(s *sender, c *admissionv1.ValidatingWebhookConfiguration) {
	list := make([]hook, len(c.Webhooks))
	for i, w := range c.Webhooks {
		list[i] = hook{w.Name, w.ClientConfig}
	}
	webhooks(s, "validatingwebhookconfiguration", c.ObjectMeta, list)
}

func volumeAttachment(s *sender, a *storagev1.VolumeAttachment) {
	own := []string{"volumeattachment", a.Name}
	s.gauge("kube_volumeattachment_info", "About a volume at a node.", 1, join(own, "attacher", a.Spec.Attacher, "node", a.Spec.NodeName)...)
	created(s, "kube_volumeattachment_created", a.ObjectMeta, own)
	if v := a.Spec.Source.PersistentVolumeName; v != nil {
		s.gauge("kube_volumeattachment_spec_source_persistentvolume", "Volume that is attached.", 1, join(own, "volumename", *v)...)
	}
	s.gauge("kube_volumeattachment_status_attached", "1 if the volume is attached.", yes(a.Status.Attached), own...)
}
