package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// certificatePlugin asks for the right to approve or sign for a signer, beside
// the right to write the subresource, and keeps system:masters out of requests.
type certificatePlugin struct {
	*admission.Handler
	authorizer authorizer.Authorizer
}

var _ admission.ValidationInterface = (*certificatePlugin)(nil)

func newCertificate() *certificatePlugin {
	return &certificatePlugin{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

func (c *certificatePlugin) SetAuthorizer(a authorizer.Authorizer) { c.authorizer = a }

func (c *certificatePlugin) ValidateInitialization() error {
	if c.authorizer == nil {
		return errors.New("plugin CertificateRestriction needs an authorizer")
	}
	return nil
}

func (c *certificatePlugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	have, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil
	}
	switch a.GetSubresource() {
	case "":
		if a.GetOperation() == admission.Create && have.Spec.SignerName == certificatesv1.KubeAPIServerClientSignerName {
			return c.subject(a, have)
		}
	case "approval":
		return c.mayOn(ctx, a, "approve", have.Spec.SignerName)
	case "status":
		old, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
		if ok && equality.Semantic.DeepEqual(old.Status.Certificate, have.Status.Certificate) {
			return nil
		}
		return c.mayOn(ctx, a, "sign", have.Spec.SignerName)
	}
	return nil
}

func (c *certificatePlugin) subject(a admission.Attributes, csr *certificatesv1.CertificateSigningRequest) error {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil {
		return admission.NewForbidden(a, errors.New("unable to parse CSR: no PEM block"))
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("unable to parse CSR: %w", err))
	}
	if slices.Contains(request.Subject.Organization, user.SystemPrivilegedGroup) {
		return admission.NewForbidden(a, fmt.Errorf("use of %s signer with %s group is not allowed", csr.Spec.SignerName, user.SystemPrivilegedGroup))
	}
	return nil
}

// mayOn asks for a verb on the signer by name or on all of its domain.
func (c *certificatePlugin) mayOn(ctx context.Context, a admission.Attributes, verb, signer string) error {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := c.authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: a.GetUserInfo(), Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", Name: name, ResourceRequest: true,
		})
		if err != nil {
			return admission.NewForbidden(a, err)
		}
		if decision == authorizer.DecisionAllow {
			return nil
		}
	}
	return admission.NewForbidden(a, fmt.Errorf("user not permitted to %s requests with signerName %q", verb, signer))
}
